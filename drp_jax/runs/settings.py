"""Which settings a run may be resumed with.

A run is what its settings say, so it is resumed with the settings that it was
begun with. Those of `MAY_CHANGE` say how long it trains, how often it reports,
and what of the machine it uses; they may differ between starts. Those of
`PLACES` say where something lies. Such a path may change if what lies there is
the same.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any

import ml_collections

# Every other key of configs/base.py and configs/preprocess.py must stay.
MAY_CHANGE = (
  # How long, how often.
  'pretrain.num_steps',
  'pretrain.log_every',
  'pretrain.eval_every',
  'pretrain.eval_batches',
  'pretrain.checkpoint_every',
  'finetune.num_steps',
  'finetune.log_every',
  'finetune.eval_every',
  'finetune.eval_episodes',
  'finetune.checkpoint_every',
  'optim.max_bad_steps',
  # What of the machine.
  'remat',
  'env.num_envs',
  'env.max_seconds',
  'replay.capacity',
  'extract.device',
  'extract.torch_threads',
  'extract.sea_raft.batch_size',
  'extract.tapir.batch_size',
  # The same in preprocessing.
  'shards',
  'beam_runner',
  'beam_options',
  'data.num_shards',  # plan.json says how many there are in the end
  'data.num_workers',
  'data.max_seconds',
)

# `drp_jax/runs/inputs.py` says how the content is compared.
PLACES = (
  'init_from',
  'data.shards_dir',
  'env.texture_folder',
  'extract.sea_raft.weights',
  'extract.grounded_sam.detector',
  'extract.grounded_sam.segmenter',
  'extract.onnx.model',
  'extract.cotracker3.checkout',
  'extract.cotracker3.weights',
  'extract.tapir.checkout',
  'extract.tapir.weights',
  # Of preprocessing.
  'path',
  'ssv2.annotations',
)

# Places that are not compared by content: a clone holds more than what is read.
CHECKOUTS = ('extract.cotracker3.checkout', 'extract.tapir.checkout')

_SHOWN = 10  # differences that an error lists


def flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns all settings by their dotted names, as JSON values."""
  return flat_tree(json.loads(config.to_json()))


def flat_tree(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """Returns the leaves of nested dicts by their dotted names."""
  out = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      out |= flat_tree(value, f'{prefix}{key}.')
    else:
      out[prefix + key] = value
  return out


def differences(
  old: Mapping[str, Any],
  new: Mapping[str, Any],
  defaults: Mapping[str, Any],
) -> dict[str, tuple[Any, Any]]:
  """Compares flat settings.

  Args:
    old: recorded settings. A key that is missing, since the run did not know it
      yet, has its value of `defaults`.
    new: settings of today. Recorded keys that they lack are not compared.
    defaults: value of keys that are missing in `old`; where it has none, any
      new value counts as the same.

  Returns:
    Key to the old and the new value, where these differ.
  """
  found = {}
  for key, value in new.items():
    before = old.get(key, defaults.get(key, value))
    if before != value:
      found[key] = before, value
  return found


def refuse(
  folder: str,
  changed: Mapping[str, tuple[Any, Any]],
  flag: str,
  record: str = 'config.json',
) -> None:
  """Raises ValueError if anything has changed that must not.

  Args:
    folder: of the run.
    changed: what differs, from `differences`.
    flag: the setting that chooses another folder.
    record: file in it that holds the settings.
  """
  if not changed:
    return
  lines = describe(changed)
  rest = len(lines) - _SHOWN
  raise ValueError(
    f'{folder!r} was begun with other settings than this command has:'
    f' {"; ".join(lines[:_SHOWN])}{f"; and {rest} more" if rest > 0 else ""}.'
    f' Choose another {flag}, or delete this one; or give the settings that are'
    f' recorded in its {record} to resume it.'
  )


def describe(changed: Mapping[str, tuple[Any, Any]]) -> list[str]:
  """Returns a text for every difference, sorted by key."""
  return [
    f'config.{key} {old!r} -> {new!r}'
    for key, (old, new) in sorted(changed.items())
  ]


def without(
  changed: Mapping[str, tuple[Any, Any]], free: Collection[str]
) -> dict[str, tuple[Any, Any]]:
  """Leaves out the keys that are free to change."""
  return {key: pair for key, pair in changed.items() if key not in free}
