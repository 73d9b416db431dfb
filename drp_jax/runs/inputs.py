"""What a run reads from elsewhere, told by its content instead of its path.

A folder may be moved, and another may lie at its old path. `contents` describes
each input, so that a resumed run notices when it is no longer the same.
"""

import hashlib
import pathlib
from collections.abc import Iterator
from typing import Any

import ml_collections

from drp_jax.data import report
from drp_jax.runs import checkpoint

# Of a report of shards: together these tell data sets apart.
_SHARDS = (
  'clip_length',
  'seed',
  'extractor',  # of which the mask and the tracker do not show in flow_scale
  'num_shards',
  'num_clips',
  'num_videos',
  'flow_scale',
  'videos_sha256',
)
# Files of learned back-ends by the name that chooses them.
_BACKENDS = {
  'sea_raft': ('weights',),
  'grounded_sam': ('detector', 'segmenter'),
  'onnx': ('model',),
  'cotracker3': ('weights',),
  'tapir': ('weights',),
}


def contents(config: ml_collections.ConfigDict, stage: str) -> dict[str, Any]:
  """Describes the inputs of a stage.

  Args:
    config: configs/base.py.
    stage: 'pretrain' or 'finetune'.

  Returns:
    Key of the config to JSON values that are equal for equal content. Inputs
    that are not there are left out: what reads them says so.
  """
  if stage == 'pretrain':
    return dict(_shards(config.data.shards_dir))
  found = dict(_checkpoint(config.init_from))
  places = {'env.texture_folder': config.env.texture_folder}
  chosen = {config.extract[k] for k in ('flow', 'mask', 'tracker')}
  for name in chosen & _BACKENDS.keys():
    for key in _BACKENDS[name]:
      places[f'extract.{name}.{key}'] = config.extract[name][key]
  for key, place in places.items():
    if place and pathlib.Path(place).exists():
      found[key] = _sha256(pathlib.Path(place))
  return found


def _shards(shards_dir: str) -> Iterator[tuple[str, Any]]:
  if pathlib.Path(shards_dir, 'report.json').is_file():
    found = report.read_report(shards_dir)
    yield 'data.shards_dir', {key: found.get(key) for key in _SHARDS}


def _checkpoint(init_from: str) -> Iterator[tuple[str, Any]]:
  if init_from and checkpoint.latest_step(init_from) is not None:
    yield 'init_from', checkpoint.digest(init_from)


def _sha256(place: pathlib.Path) -> str:
  """Digest of a file, or of names and bytes of all files in a folder."""
  if place.is_file():
    with open(place, 'rb') as file:
      return hashlib.file_digest(file, 'sha256').hexdigest()
  whole = hashlib.sha256()
  for path in sorted(p for p in place.rglob('*') if p.is_file()):
    name = path.relative_to(place).as_posix()
    whole.update(f'{name}\0{_sha256(path)}\n'.encode(errors='surrogateescape'))
  return whole.hexdigest()
