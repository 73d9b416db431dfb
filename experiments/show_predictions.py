r"""Shows predictions and reconstructions of models (Figs. 8, 15 and 16).

  python -m experiments.show_predictions --shards_dir=runs/shards \
      --models=DRP=runs/pretrain,IPV=runs/pretrain_ipv --out=runs/see

Every model sees the first frames of the same clips, then predicts the rest
(E9). The command writes

  bodies.md                  errors of every body on all and on moving pixels,
                             and whether the model passes each bar
  errors.json                the same and more as numbers
  errors.csv                 a row for every model and frame
  predictions.png and .webp  a clip each of some bodies: true frames,
                             reconstructions, predictions, copies

prediction_scores.py defines the measures, and open_loop.py the motions that
predictions follow. Frames and errors.csv show the first draw.

A body is named by the source id of a video without its number; --body changes
that. For the clips of configs/preprocess.py:bodies:

  --body='robots/(ball_in_cup|humanoid_CMU|[^_]+)_|^(arms|pushes)/|(real/\w+)'
  --following=dog,fish,hopper,humanoid,humanoid_CMU,swimmer

Clips of another domain, such as Meta-World (Fig. 8b), need another folder of
shards:

  python -m experiments.run_preprocess --config=configs/preprocess.py:sim \
      --config.sim.tasks="('metaworld_drawer-open',)" \
      --config.sim.policy=scripted --config.path=runs/arm_videos \
      --config.data.shards_dir=runs/arm
"""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from drp_jax import extras, files
from drp_jax.data import shards
from drp_jax.runs import workdir as workdir_lib
from drp_jax.train import evaluate, pretrained
from drp_jax.viz import video
from experiments import clip_batches, clip_flags, launch, open_loop
from experiments import prediction_scores as scores

_SHOWN = 5  # bodies in a picture
_FPS = 5


class _HeldOut(NamedTuple):
  """Names and masks of the clips to predict.

  Attributes:
    clips: [N] examples of shards.
    videos: [N] source ids.
    bodies: [V] name of the body of each of `np.unique(videos)`.
    masks: pixels -> [N, T - n, H, W] bool, of the frames to predict.
    following: bodies whose camera follows them.
  """

  clips: list[dict[str, Any]]
  videos: np.ndarray
  bodies: np.ndarray
  masks: dict[str, np.ndarray]
  following: Sequence[str]


def show(
  models: dict[str, str],
  shards_dir: str,
  split: str,
  num_clips: int,
  body: str,
  following: Sequence[str],
  out: str,
) -> dict[str, Any]:
  """Writes pictures and errors.

  Args:
    models: label -> workdir of a pre-training.
    shards_dir: shards of the clips.
    split: 'train' or 'validation'.
    num_clips: number of clips, evenly spaced.
    body: pattern of the body in a source id, see `scores.body_of`.
    following: bodies whose camera follows them.
    out: folder; created if missing.

  Returns:
    The content of errors.json. `errors`: label -> mean `mse`, `psnr` (dB) and
    `ssim` of predicted frames, and `recon_mse` and so on of reconstructions of
    all frames. `scores`: label -> `bars`, `bodies`, `mean` over videos and
    `spread` over draws, see prediction_scores.py.

  Raises:
    ValueError: for an unsuitable workdir, shards or names of bodies.
  """
  extras.require('show_predictions', 'figures', 'dm_pix')
  for workdir in models.values():  # all must accept these clips
    length = workdir_lib.read_config(workdir).data.clip_length
    source = shards.open_split(shards_dir, split, length)
  clips = clip_batches.spaced(source, num_clips)
  true, n = np.stack([clip['image'] for clip in clips]), evaluate.CONTEXT_STEPS
  if true.shape[1] <= n:
    raise ValueError(
      f'The clips of {shards_dir!r} have {true.shape[1]} frames; {n} are shown,'
      ' more are needed.'
    )
  held_out = _held_out(clips, body, following)
  copied = open_loop.copies(clips)
  found = {
    label: open_loop.predict(pretrained.load(workdir), clips, held_out.masks)
    for label, workdir in models.items()
  }
  errors = {scores.COPY: {'prediction': _errors(true, copied)}} | {
    label: {
      'prediction': _errors(true, model.predicted),
      'reconstruction': _errors(true, model.seen),
    }
    for label, model in found.items()
  }
  copy_sums = scores.squared_errors(true[:, n:], copied[:, n:], held_out.masks)
  tables, scored = [], {}
  for label, model in found.items():
    table, scored[label] = _score(label, model.sums, copy_sums, held_out)
    tables.append(table)
  record = {
    'shards_dir': shards_dir,
    'split': split,
    'clips': len(true),
    'videos': len(held_out.bodies),
    'frames_seen': n,
    'draws': open_loop.DRAWS,
    'models': models,
    'errors': {label: _summary(kinds, n) for label, kinds in errors.items()},
    'scores': scored,
    'run': workdir_lib.describe(),
  }
  folder = pathlib.Path(out)
  _draw(folder, true, found, copied, held_out)
  _write_rows(folder / 'errors.csv', errors)
  files.write(folder / 'bodies.md', '\n'.join(tables).encode())
  files.write_json(folder / 'errors.json', record)
  return record


def _held_out(clips, body, following) -> _HeldOut:
  videos = np.array([clip['source_id'].decode() for clip in clips])
  bodies = np.array([scores.body_of(v, body) for v in np.unique(videos)])
  unknown = sorted(set(following) - set(bodies))
  if unknown:
    raise ValueError(
      f'--following={list(following)}: {unknown} must be bodies of the clips:'
      f' {sorted(set(bodies))}.'
    )
  flow = np.stack([clip['flow'][evaluate.CONTEXT_STEPS :] for clip in clips])
  masks = scores.masks(flow)
  if not masks['moving'].any():
    raise ValueError(
      f'No pixel of these {len(clips)} clips moves by more than {scores.MOVES}'
      ' pixels a frame, so there is no motion to be predicted.'
    )
  return _HeldOut(clips, videos, bodies, masks, following)


def _score(label, sums, copy_sums, held_out) -> tuple[str, dict[str, Any]]:
  """Makes the table of a model and its numbers."""
  counts = {
    pixels: mask.sum((1, 2, 3)) for pixels, mask in held_out.masks.items()
  }

  def by_video(sums, pixels):
    return scores.by_video(sums, counts[pixels], held_out.videos)

  errors = {
    kind: {
      pixels: np.mean([by_video(x, pixels) for x in drawn], 0)
      for pixels, drawn in found.items()
    }
    for kind, found in (
      (scores.COPY, {pixels: [x] for pixels, x in copy_sums.items()}),
      *sums.items(),
    )
  }
  spread = {
    pixels: float(np.std([np.nanmean(by_video(x, pixels)) for x in drawn]))
    for pixels, drawn in sums[scores.PREDICTION].items()
  }
  shares = scores.by_video(counts['moving'], counts['all'], held_out.videos)
  bodies = held_out.bodies
  measured = scores.bars(errors, bodies, held_out.following)
  table = scores.markdown(label, errors, bodies, shares, measured, spread)
  return table, {
    'bars': measured,
    'mean': scores.mean_of_videos(errors),
    'spread': spread,
    'bodies': {
      body: {
        'videos': int((bodies == body).sum()),
        'pixels_that_move': float(shares[bodies == body].mean()),
        'errors': found,
      }
      for body, found in scores.bodies_table(errors, bodies).items()
    },
  }


@jax.jit
def _frame_errors(true: jax.Array, model: jax.Array) -> dict[str, jax.Array]:
  """Compares frames [T, H, W, 3] uint8, scaled to 0..1: [T] each."""
  import dm_pix

  true, model = true / 255.0, model / 255.0
  return {
    'mse': dm_pix.mse(true, model),
    'psnr': dm_pix.psnr(true, model),
    'ssim': dm_pix.ssim(true, model),
  }


def _errors(true: np.ndarray, model: np.ndarray) -> dict[str, np.ndarray]:
  """Averages errors over clips, [T] each."""
  pairs = zip(true, model, strict=True)
  found = jax.device_get([_frame_errors(a, b) for a, b in pairs])
  # A frame without error, as in a still clip, has infinite PSNR. With 8 bits it
  # cannot be distinguished from 60 dB.
  for clip in found:
    clip['psnr'] = np.minimum(clip['psnr'], 60.0)
  return {name: np.mean([c[name] for c in found], 0) for name in found[0]}


def _summary(
  kinds: dict[str, dict[str, np.ndarray]], context: int
) -> dict[str, float]:
  values = {k: v[context:].mean() for k, v in kinds['prediction'].items()}
  for name, errors in kinds.get('reconstruction', {}).items():
    values[f'recon_{name}'] = errors.mean()
  return {name: round(float(value), 5) for name, value in values.items()}


def _draw(
  folder: pathlib.Path,
  true: np.ndarray,
  found: dict[str, open_loop.Predictions],
  copied: np.ndarray,
  held_out: _HeldOut,
) -> None:
  n, shown = evaluate.CONTEXT_STEPS, _shown(held_out)
  seen, rows = [], {'true': true}
  for label, model in found.items():
    seen.append(f'{label}, {scores.RECONSTRUCTION}')
    rows |= {seen[-1]: model.seen, label: model.predicted}
  rows[scores.COPY] = copied
  clip = video.prediction_video(
    {k: v[shown] for k, v in rows.items()}, n, seen=seen
  )
  files.write(folder / 'predictions.webp', video.encode_webp(clip, _FPS))
  strips = [
    video.prediction_strip({k: v[i] for k, v in rows.items()}, n, seen=seen)
    for i in shown
  ]
  files.write(
    folder / 'predictions.png', video.encode_png(np.concatenate(strips))
  )


def _shown(held_out: _HeldOut) -> list[int]:
  """Picks clips of some bodies, in order of decreasing motion.

  Each is the clip of its body that moves most.
  """
  moves = held_out.masks['moving'].mean((1, 2, 3))
  place = np.unique(held_out.videos, return_inverse=True)[1]
  bodies = held_out.bodies[place]  # [N]
  most = {}
  for i in np.argsort(-moves, kind='stable'):
    most.setdefault(bodies[i], int(i))
  return clip_batches.spaced(list(most.values()), _SHOWN)


def _write_rows(path: pathlib.Path, errors: dict) -> None:
  with (
    files.replacing(path) as partial,
    open(partial, 'w', newline='') as file,
  ):
    rows = csv.writer(file)
    rows.writerow(('model', 'kind', 'frame', 'mse', 'psnr', 'ssim'))
    for label, kinds in errors.items():
      for kind, found in kinds.items():
        values = zip(*(found[k] for k in ('mse', 'psnr', 'ssim')), strict=True)
        for frame, row in enumerate(values):
          rows.writerow((label, kind, frame, *(f'{x:.5g}' for x in row)))


def parse_models(entries: Sequence[str]) -> dict[str, str]:
  """Parses LABEL=WORKDIR entries.

  Raises:
    ValueError: for an entry of another form, or a repeated label.
  """
  models = {}
  for entry in entries:
    label, _, workdir = entry.partition('=')
    if not label or not workdir or label in models:
      raise ValueError(
        f'--models: {entry!r} must be LABEL=WORKDIR, each label once.'
      )
    models[label] = workdir
  return models


def main() -> None:
  show(
    parse_models(_MODELS.value),
    _FLAGS.shards_dir.value,
    _FLAGS.split.value,
    _FLAGS.clips.value,
    _BODY.value,
    _FOLLOWING.value,
    _FLAGS.out.value,
  )
  print((pathlib.Path(_FLAGS.out.value) / 'bodies.md').read_text('utf-8'))


if __name__ == '__main__':
  _MODELS = flags.DEFINE_list('models', None, 'LABEL=WORKDIR,...')
  _FLAGS = clip_flags.define(
    'validation', 64, 'Number of clips to average errors over.'
  )
  _BODY = flags.DEFINE_string(
    'body', scores.BODY, 'Regular expression with a group that names the body.'
  )
  _FOLLOWING = flags.DEFINE_list(
    'following', (), 'Bodies whose camera follows them.'
  )
  flags.mark_flags_as_required(['models'])
  launch.run(main)
