r"""What pre-trained models predict, and what they see (Figs. 8, 15 and 16).

  python -m experiments.show_predictions --shards_dir=runs/shards \
      --models=DRP=runs/pretrain,IPV=runs/pretrain_ipv --out=runs/see

Every model is shown the first frames of the same clips, then predicts the rest
(E9). Writes, of the clips that change most, predictions.webp, predictions.png
and reconstructions.png; of all of them errors.csv, a row for every model and
frame, and errors.json. Clips of another world, as of Meta-World (Fig. 8b), are
another folder of shards:

  python -m experiments.run_preprocess --config=configs/preprocess.py:sim \
      --config.sim.tasks="('metaworld_drawer-open',)" \
      --config.sim.policy=scripted --config.path=runs/arm_videos \
      --config.data.shards_dir=runs/arm
"""

import csv
import functools
import json
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from drp_jax import extras, files
from drp_jax.data import shards
from drp_jax.ops import images, noise
from drp_jax.train import build, evaluate, pretrained
from drp_jax.train import workdir as workdir_lib
from drp_jax.viz import video
from experiments import clip_batches, launch

COPY = 'last seen frame'  # what predictions are compared with
_SHOWN = 4  # clips of a picture
_FPS = 5


def show(
  models: dict[str, str],
  shards_dir: str,
  split: str,
  num_clips: int,
  out: str,
) -> dict[str, dict[str, float]]:
  """Writes pictures and errors.

  Args:
    models: label to the workdir of a pre-training.
    shards_dir: of the clips.
    split: 'train' or 'validation'.
    num_clips: how many are looked at, evenly spaced.
    out: folder; made if it is not there.

  Returns:
    Label to mean `mse`, `psnr` (dB) and `ssim` of predicted frames, and
    `recon_mse` and so on of reconstructions of all frames.

  Raises:
    ValueError: for a workdir or shards that do not fit.
  """
  extras.require('show_predictions', 'figures', 'dm_pix')
  for workdir in models.values():  # all must be made for such clips
    length = workdir_lib.read_config(workdir).data.clip_length
    source = shards.open_split(shards_dir, split, length)
  clips = clip_batches.spaced(source, num_clips)
  true = np.stack([clip['image'] for clip in clips])
  n = evaluate.CONTEXT_STEPS
  if true.shape[1] <= n:
    raise ValueError(
      f'The clips of {shards_dir!r} have {true.shape[1]} frames; {n} are shown,'
      ' more are needed.'
    )
  seen, predicted = {}, {}
  for label, workdir in models.items():
    seen[label], predicted[label] = _frames(pretrained.load(workdir), clips)
  copied = np.concatenate(
    [true[:, :n], np.repeat(true[:, n - 1 : n], true.shape[1] - n, 1)], 1
  )
  errors = {COPY: {'prediction': _errors(true, copied)}} | {
    label: {
      'prediction': _errors(true, predicted[label]),
      'reconstruction': _errors(true, seen[label]),
    }
    for label in models
  }
  folder = pathlib.Path(out)
  _draw(folder, true, seen, predicted)
  _write_rows(folder / 'errors.csv', errors)
  summary = {label: _summary(kinds, n) for label, kinds in errors.items()}
  files.write_json(
    folder / 'errors.json',
    {
      'shards_dir': shards_dir,
      'split': split,
      'clips': len(true),
      'frames_seen': n,
      'models': models,
      'errors': summary,
      'run': workdir_lib.describe(),
    },
  )
  return summary


def _frames(
  model: pretrained.Pretrained, clips: Sequence[dict]
) -> tuple[np.ndarray, np.ndarray]:
  """Reconstructed and predicted frames of all clips, [N, T, H, W, 3] uint8."""
  K = build.keypoints(model.config)
  predict = jax.jit(
    functools.partial(
      model.system.open_loop, context_steps=evaluate.CONTEXT_STEPS
    )
  )
  found = []
  for first, batch in clip_batches.in_batches(clips, K):
    keys = noise.example_keys(jax.random.key(0), first, len(batch.image))
    frames = predict(model.variables, batch, keys)
    found.append([np.asarray(images.to_uint8(x)) for x in frames])
  seen, predicted = zip(*found, strict=True)
  return (
    np.concatenate(seen)[: len(clips)],
    np.concatenate(predicted)[: len(clips)],
  )


@jax.jit
def _frame_errors(true: jax.Array, model: jax.Array) -> dict[str, jax.Array]:
  """Of frames [T, H, W, 3] uint8 at 0..1: T numbers each."""
  import dm_pix

  true, model = true / 255.0, model / 255.0
  return {
    'mse': dm_pix.mse(true, model),
    'psnr': dm_pix.psnr(true, model),
    'ssim': dm_pix.ssim(true, model),
  }


def _errors(true: np.ndarray, model: np.ndarray) -> dict[str, np.ndarray]:
  """Means over clips, [T] each."""
  pairs = zip(true, model, strict=True)
  found = jax.device_get([_frame_errors(a, b) for a, b in pairs])
  # A frame without any error, as of a clip that stands still, has infinite
  # PSNR; 8 bits cannot tell it from 60 dB.
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
  seen: dict[str, np.ndarray],
  predicted: dict[str, np.ndarray],
) -> None:
  n = evaluate.CONTEXT_STEPS
  change = np.abs(np.diff(true.astype(np.float32), axis=1)).mean((1, 2, 3, 4))
  shown = np.argsort(-change, kind='stable')[:_SHOWN]
  rows = {'true': true, **predicted}
  clip = video.prediction_video({k: v[shown] for k, v in rows.items()}, n)
  files.write(folder / 'predictions.webp', video.encode_webp(clip, _FPS))
  for name, rows, context in (
    ('predictions', {'true': true, **predicted}, n),
    ('reconstructions', {'true': true, **seen}, true.shape[1]),
  ):
    strips = [
      video.prediction_strip({k: v[i] for k, v in rows.items()}, context)
      for i in shown
    ]
    files.write(
      folder / f'{name}.png', video.encode_png(np.concatenate(strips))
    )


def _write_rows(path: pathlib.Path, errors: dict) -> None:
  with open(path, 'w', newline='') as file:
    rows = csv.writer(file)
    rows.writerow(('model', 'kind', 'frame', 'mse', 'psnr', 'ssim'))
    for label, kinds in errors.items():
      for kind, found in kinds.items():
        values = zip(*(found[k] for k in ('mse', 'psnr', 'ssim')), strict=True)
        for frame, row in enumerate(values):
          rows.writerow((label, kind, frame, *(f'{x:.5g}' for x in row)))


def parse_models(entries: Sequence[str]) -> dict[str, str]:
  """Reads LABEL=WORKDIR entries.

  Raises:
    ValueError: for an entry of another form, or a label that comes twice.
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
  summary = show(
    parse_models(_MODELS.value),
    _SHARDS_DIR.value,
    _SPLIT.value,
    _CLIPS.value,
    _OUT.value,
  )
  print(json.dumps(summary, indent=2))


if __name__ == '__main__':
  _MODELS = flags.DEFINE_list('models', None, 'LABEL=WORKDIR,...')
  _SHARDS_DIR = flags.DEFINE_string('shards_dir', None, 'Folder of shards.')
  _SPLIT = flags.DEFINE_enum(
    'split', 'validation', ['train', 'validation'], 'Of the shards.'
  )
  _CLIPS = flags.DEFINE_integer('clips', 64, 'That errors are taken of.', 1)
  _OUT = flags.DEFINE_string('out', None, 'Folder for what is written.')
  flags.mark_flags_as_required(['models', 'shards_dir', 'out'])
  launch.run(main)
