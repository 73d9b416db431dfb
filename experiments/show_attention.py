r"""Shows which keypoints [MAT] attends to.

  python -m experiments.show_attention --workdir=runs/pretrain \
      --shards_dir=runs/shards --out=runs/see

writes two files. attention.png shows the clips that move most: flow with the
windows of the patches and, for every block of the DAE, the frame with discs
whose area is the attention of [MAT] to each keypoint. attention.json holds the
share of attention that [MAT] gives to itself, and the correlation of attention
with the speed of keypoints.
"""

import json
import pathlib

import jax
import numpy as np
from absl import flags

from drp_jax import extras, files
from drp_jax.data import shards
from drp_jax.ops import patches
from drp_jax.runs import workdir as workdir_lib
from drp_jax.train import pretrained
from drp_jax.viz import attention, contact_sheet, overlay, video
from experiments import clip_batches, clip_flags, launch

_SHOWN = 4  # clips in the picture
_MOMENTS = 2  # of each clip
_SCALE = 3


def show(
  workdir: str, shards_dir: str, split: str, num_clips: int, out: str
) -> dict[str, list[float]]:
  """Writes the picture and the numbers.

  Args:
    workdir: workdir of a pre-training of DRP.
    shards_dir: shards of the clips.
    split: 'train' or 'validation'.
    num_clips: number of clips, evenly spaced.
    out: folder; created if missing.

  Returns:
    A number for every block: `on_itself`, [MAT]'s share; `evenness`, entropy
    divided by that of even shares; `with_speed`, Spearman's rank correlation of
    a keypoint's share with its speed within a frame, mean over frames.

  Raises:
    ValueError: for an unsuitable workdir or shards.
  """
  extras.require('show_attention', 'figures', 'scipy')
  model = pretrained.load(workdir)
  if not model.system.sees_motion:
    raise ValueError(
      f'--workdir={workdir!r}: config.agent={model.config.agent!r} has no'
      ' [MAT].'
    )
  source = shards.open_split(shards_dir, split, model.config.data.clip_length)
  clips = clip_batches.spaced(source, num_clips)
  weights = _weights(model, clips)
  found = _numbers(clips, weights)
  folder = pathlib.Path(out)
  picture = _picture(clips, weights, model.config.dae.patch_size)
  files.write(folder / 'attention.png', video.encode_png(picture))
  files.write_json(
    folder / 'attention.json',
    {
      'workdir': workdir,
      'shards_dir': shards_dir,
      'split': split,
      'clips': len(clips),
      'blocks': found,
      'run': workdir_lib.describe(),
    },
  )
  return found


def _weights(model: pretrained.Pretrained, clips: list[dict]) -> np.ndarray:
  """Computes attention weights, [N, T, L, K+1]."""
  look = jax.jit(model.system.mat_attention)
  K = model.built.num_keypoints
  found = [
    np.asarray(look(model.variables, batch.motion, batch.is_first))
    for _, batch in clip_batches.in_batches(clips, K)
  ]
  return np.concatenate(found)[: len(clips)]


def _numbers(clips: list[dict], weights: np.ndarray) -> dict[str, list[float]]:
  from scipy import stats

  weights = weights[:, 1:]  # entry 0 has no motion
  L, tokens = weights.shape[2:]
  K = tokens - 1
  entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(-1)
  speeds = np.stack([_speeds(clip, K) for clip in clips])  # [N, T-1, K]
  correlations = [
    [
      stats.spearmanr(share, speed).statistic
      for share, speed in zip(
        weights[:, :, block, 1:].reshape(-1, K),
        speeds.reshape(-1, K),
        strict=True,
      )
      if np.ptp(speed) > 0 and np.ptp(share) > 0
    ]
    for block in range(L)
  ]
  return {
    'on_itself': _rounded(weights[..., 0].mean((0, 1))),
    'evenness': _rounded(entropy.mean((0, 1)) / np.log(tokens)),
    'with_speed': _rounded([np.mean(c) if c else 0.0 for c in correlations]),
  }


def _speeds(clip: dict, num_keypoints: int) -> np.ndarray:
  """Computes speeds at the keypoints, [T-1, K] pixels per frame."""
  points = clip['points'][:, :num_keypoints]
  at_points = np.asarray(patches.crop(clip['flow'], points, 1), np.float32)
  return np.linalg.norm(at_points[1:, :, 0, 0], axis=-1)


def _picture(
  clips: list[dict], weights: np.ndarray, patch_size: int
) -> np.ndarray:
  change = [np.abs(clip['flow'].astype(np.float32)).mean() for clip in clips]
  K = weights.shape[-1] - 1
  rows, titles = [], []
  for index in np.argsort(-np.array(change), kind='stable')[:_SHOWN]:
    clip = clips[index]
    points, flow = clip['points'][:, :K], clip['flow']
    colors = overlay.flow_colors(flow, overlay.top_speed(flow))
    drawn = overlay.draw_windows(
      overlay.upscale(colors, _SCALE), points, patch_size, _SCALE
    )
    panels = attention.attention_panels(
      clip['image'], points, weights[index, :, :, 1:], _SCALE
    )
    rows.append(np.concatenate([drawn, panels], 2))
    titles.append(clip['source_id'].decode())
  T = len(rows[0])
  times = np.linspace(1, T - 1, _MOMENTS + 2).round().astype(int)[1:-1]
  return contact_sheet.contact_sheet(rows, titles, times.tolist())


def _rounded(values) -> list[float]:
  return [round(float(value), 4) for value in values]


def main() -> None:
  found = show(
    _WORKDIR.value,
    _FLAGS.shards_dir.value,
    _FLAGS.split.value,
    _FLAGS.clips.value,
    _FLAGS.out.value,
  )
  print(json.dumps(found, indent=2))


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Workdir of a pre-training of DRP.'
  )
  _FLAGS = clip_flags.define(
    'validation', 32, 'Number of clips to average over.'
  )
  flags.mark_flags_as_required(['workdir'])
  launch.run(main)
