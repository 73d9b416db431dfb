"""The probe of `show_actions --probe=action`: does a_agg know how joints move?

Ridge regression predicts the joint velocities, the actions, and which of
several actions was taken, from a representation of one step, on held-out
videos. The same is done with controls, which a learned representation has to
beat.
"""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from drp_jax import extras, files
from drp_jax.data import shards
from drp_jax.runs import workdir as workdir_lib
from drp_jax.systems import ipv as ipv_lib
from drp_jax.train import pretrained
from experiments import motion_vectors, probe_scores

TARGETS = {'joint_velocity': 'Joint velocities', 'action': 'Actions'}
ACTIONS = 8  # classes of actions                                 [ours]
_LEAST = 1e-6  # smallest standard deviation of a value that varies

_Fits = dict[str, dict[str, probe_scores.Fit]]  # body, representation


def show(
  workdir: str,
  ipv: str,
  shards_dir: str,
  split: str,
  clips_per_body: int,
  out: str,
) -> dict[str, Any]:
  """Writes action_probe.json and action_probe.md.

  Args:
    workdir: workdir of a pre-training with an aggregated action.
    ipv: workdir of a pre-training of IPV, or ''.
    shards_dir: shards of clips with recorded joint velocities or actions.
    split: 'train' or 'validation'.
    clips_per_body: maximum number of clips, evenly spaced.
    out: folder; created if missing.

  Returns:
    The record in action_probe.json. Bodies with fewer videos than folds are in
    `left_out`.

  Raises:
    ValueError: for unsuitable workdirs or shards.
  """
  extras.require('show_actions', 'figures', 'sklearn')
  model = motion_vectors.load(workdir)
  learned = motion_vectors.of_tokens(model)
  random = motion_vectors.of_tokens(pretrained.untrained(model))
  latents = _latents(ipv)
  source = shards.open_split(shards_dir, split, model.config.data.clip_length)
  fits: dict[str, _Fits] = {target: {} for target in TARGETS}
  bodies, left_out, names = {}, {}, []
  for body, clips in _bodies(source, clips_per_body, shards_dir):
    _, videos = np.unique(
      [clip['source_id'].decode() for clip in clips], return_inverse=True
    )
    num_videos = int(videos.max()) + 1
    if num_videos < probe_scores.FOLDS:
      left_out[body] = num_videos
      continue
    bodies[body] = {'clips': len(clips), 'videos': num_videos}
    vectors = learned(clips)
    names = list(vectors)
    vectors |= {f'{n}, untrained': x for n, x in random(clips).items()}
    vectors |= motion_vectors.of_flow(clips) | latents(clips)
    for target in TARGETS:
      found = _fit(vectors, clips, target, videos)
      if found:
        fits[target][body] = found
  if not bodies:
    raise ValueError(
      f'--shards_dir={shards_dir!r}: the probe needs clips of at least'
      f' {probe_scores.FOLDS} videos of a body; videos there are: {left_out}.'
    )
  record = {
    'workdir': workdir,
    'ipv': ipv,
    'shards_dir': shards_dir,
    'split': split,
    'bodies': bodies,
    'left_out': left_out,
    'folds': probe_scores.FOLDS,
    'actions': ACTIONS,
    'targets': {
      target: _summary(of_target, names)
      for target, of_target in fits.items()
      if of_target
    },
    'run': workdir_lib.describe(),
  }
  folder = pathlib.Path(out)
  files.write_json(folder / 'action_probe.json', record)
  files.write(folder / 'action_probe.md', table(record).encode())
  return record


def table(record: dict[str, Any]) -> str:
  """Writes the scores of a record of `show` as tables of Markdown."""
  lines = []
  for target, found in record['targets'].items():
    for measure, title in (
      ('r2', 'R2 of ridge regression'),
      ('accuracy', f'accuracy, one of {record["actions"]} by k-means'),
    ):
      scores = found[measure]
      bodies = list(next(iter(scores.values()))['bodies'])
      header = f'{TARGETS[target]}: {title}'
      lines += [
        f'| {" | ".join([header, *bodies, "mean"])} |',
        '|---' * (len(bodies) + 2) + '|',
      ]
      for name, row in scores.items():
        cells = [*row['bodies'].values(), row['mean']]
        lines.append(f'| {" | ".join([name, *map(_cell, cells)])} |')
      if measure == 'accuracy':
        chance = [f'{found["chance"][body]:.3f}' for body in bodies]
        lines.append(f'| {" | ".join(["most frequent", *chance, ""])} |')
      for name, above in found['above'][measure].items():
        control = min(above, key=lambda control: above[control][0])
        cells = [f'{name}, above {control}', *[''] * len(bodies)]
        lines.append(f'| {" | ".join([*cells, _cell(above[control])])} |')
      lines.append('')
  if record['left_out']:
    few = ', '.join(f'{b}: {n}' for b, n in record['left_out'].items())
    lines.append(f'Left out, of fewer than {record["folds"]} videos: {few}.\n')
  return '\n'.join(lines)


def _cell(interval: Sequence[float]) -> str:
  point, low, high = interval
  return f'{point:.3f} ({low:.3f} to {high:.3f})'


def _latents(ipv: str) -> motion_vectors.Vectors:
  """Opens the control that sees images; returns nothing if there is none."""
  if not ipv:
    return lambda _: {}
  model = pretrained.load(ipv)
  if not isinstance(model.system, ipv_lib.IPV):
    raise ValueError(
      f"--ipv={ipv!r}: config.agent={model.config.agent!r} must be 'ipv' or"
      " 'apv'."
    )
  return motion_vectors.of_latents(model)


def _bodies(
  source: Sequence[dict[str, Any]], count: int, shards_dir: str
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
  """Yields every body with recordings, and its clips."""
  places: dict[str, list[int]] = {}
  for place in range(len(source)):
    clip = source[place]
    sizes = [clip[t].shape[1] for t in TARGETS if t in clip]
    if any(sizes):
      V, A = sizes
      # Some bodies have variants with more or fewer joints.
      name = clip['body'].decode() or 'unnamed'
      name = f'{name} ({V} velocities, {A} actions)'
      places.setdefault(name, []).append(place)
  if not places:
    raise ValueError(
      f'--shards_dir={shards_dir!r}: no clip has recorded actions or joint'
      ' velocities. Preprocess videos with an .actions.npz file beside them'
      ' into a new folder of shards (docs/videos.md).'
    )
  for name, of_body in sorted(places.items()):
    some = np.linspace(0, len(of_body) - 1, min(count, len(of_body)))
    yield name, [source[of_body[int(i)]] for i in some.round()]


def _fit(
  vectors: dict[str, np.ndarray],
  clips: Sequence[dict[str, Any]],
  target: str,
  videos: np.ndarray,
) -> dict[str, probe_scores.Fit]:
  """Probes all representations of one body; {} if no value varies."""
  # Entry t of all of them led to frame t; entry 0 is empty.
  values = np.concatenate([clip[target][1:] for clip in clips]).astype(float)
  values = values[:, values.std(0) > _LEAST]
  if not values.shape[1]:
    return {}
  classes = probe_scores.classes_of(values, ACTIONS)
  steps = np.repeat(videos, len(clips[0][target]) - 1)
  return {
    name: probe_scores.fit(
      x.reshape(-1, x.shape[-1]).astype(float), values, classes, steps
    )
    for name, x in vectors.items()
  }


def _summary(fits: _Fits, learned: Sequence[str]) -> dict[str, Any]:
  """Scores all bodies and their mean, and subtracts every control."""
  weights = {
    body: probe_scores.draws(len(next(iter(found.values())).steps))
    for body, found in fits.items()
  }
  names = list(next(iter(fits.values())))
  controls = [name for name in names if name not in learned]
  out: dict[str, Any] = {'above': {}, 'chance': {}}
  for measure in ('r2', 'accuracy'):
    scores = {
      name: {
        body: getattr(found[name], measure)(weights[body])
        for body, found in fits.items()
      }
      for name in names
    }
    means = {name: np.mean(list(s.values()), 0) for name, s in scores.items()}
    out[measure] = {
      name: {
        'bodies': {
          body: probe_scores.interval(x) for body, x in scores[name].items()
        },
        'mean': probe_scores.interval(means[name]),
      }
      for name in names
    }
    out['above'][measure] = {
      name: {
        control: probe_scores.interval(means[name] - means[control])
        for control in controls
      }
      for name in learned
    }
  for body, found in fits.items():
    out['chance'][body] = next(iter(found.values())).chance
  return out
