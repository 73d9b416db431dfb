"""Predictions of a pre-trained model, along its clips' motion and controls.

Models that follow the later motion of a clip also predict along two controls:
the later motion of a clip of another video, and no motion. The second is the
clip's own motion up to the last frame seen, then no flow, fixed points and
repeated frames.

Latents are modes (E9). The context tokens that the decoder keeps and the other
clips are random. They are drawn `DRAWS` times from fixed seeds.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from drp_jax.ops import images, noise
from drp_jax.train import evaluate, pretrained
from experiments import clip_batches
from experiments import prediction_scores as scores

DRAWS = 4

Clip = dict[str, Any]


class Predictions(NamedTuple):
  """Reconstructions and predictions of clips.

  Attributes:
    seen: reconstructions of the first draw, [N, T, H, W, 3] uint8.
    predicted: reconstructions of the frames seen, then predictions, of the
      first draw.
    sums: kind -> pixels -> [DRAWS, N] errors of the predicted frames, see
      `scores.squared_errors`.
  """

  seen: np.ndarray
  predicted: np.ndarray
  sums: dict[str, dict[str, np.ndarray]]


def predict(
  model: pretrained.Pretrained,
  clips: Sequence[Clip],
  masks: dict[str, np.ndarray],
) -> Predictions:
  """Reconstructs and predicts clips, and sums errors.

  Args:
    model: model of any system that pre-trains.
    clips: examples of shards.
    masks: pixels -> [N, T - n, H, W] bool, of the frames after the n seen.
  """
  run = jax.jit(
    functools.partial(
      model.system.open_loop, context_steps=evaluate.CONTEXT_STEPS
    )
  )
  first, draws = None, []
  for draw in range(DRAWS):
    found = {}
    for kind, driving in _drivers(model, clips, draw).items():
      seen, predicted = _frames(run, model, clips, driving, draw)
      if kind == scores.PREDICTION:
        found[scores.RECONSTRUCTION] = _sums(clips, seen, masks)
        first = first or (seen, predicted)
      found[kind] = _sums(clips, predicted, masks)
    draws.append(found)
  sums = {
    kind: {
      pixels: np.stack([found[kind][pixels] for found in draws])
      for pixels in masks
    }
    for kind in draws[0]
  }
  return Predictions(*first, sums)


def copies(clips: Sequence[Clip]) -> np.ndarray:
  """Repeats the last frame seen, after the true ones: [N, T, H, W, 3]."""
  n = evaluate.CONTEXT_STEPS
  return np.stack([_stay(clip['image'], n - 1) for clip in clips])


def partners(videos: Sequence[str], draw: int) -> np.ndarray | None:
  """Draws another clip for every clip, uniformly from other videos.

  Args:
    videos: [N] video of each clip.
    draw: number of the draw.

  Returns:
    [N] indices of clips; None if all clips are of one video.
  """
  videos = np.asarray(videos)
  if (videos == videos[0]).all():
    return None
  rng = np.random.default_rng(draw)
  return np.array([rng.choice(np.flatnonzero(videos != v)) for v in videos])


def without_later_motion(clip: Clip) -> Clip:
  """Stops all motion at the last frame seen."""
  n = evaluate.CONTEXT_STEPS
  flow = clip['flow'].copy()
  flow[n:] = 0
  return {
    **clip,
    'image': _stay(clip['image'], n - 1),
    'flow': flow,
    # Entry n holds the points in frame n - 1, the last frame seen.
    'points': _stay(clip['points'], n),
    'visible': _stay(clip['visible'], n),
  }


def _drivers(
  model: pretrained.Pretrained, clips: Sequence[Clip], draw: int
) -> dict[str, Sequence[Clip] | None]:
  """Returns kind -> clips whose later motion is followed."""
  if not model.system.follows_motion:
    return {scores.PREDICTION: None}
  drivers = {scores.PREDICTION: clips}
  others = partners([clip['source_id'] for clip in clips], draw)
  if others is not None:
    drivers[scores.OTHER] = [clips[other] for other in others]
  return drivers | {scores.STILL: list(map(without_later_motion, clips))}


def _frames(run, model, clips, driving, draw) -> tuple[np.ndarray, np.ndarray]:
  """Reconstructs and predicts frames of all clips, [N, T, H, W, 3] uint8."""
  K, found = model.built.num_keypoints, []
  for first, batch, driver in _both(clips, driving, K):
    keys = noise.example_keys(jax.random.key(draw), first, len(batch.image))
    frames = run(model.variables, batch, keys, driver=driver)
    found.append([np.asarray(images.to_uint8(x)) for x in frames])
  seen, predicted = map(np.concatenate, zip(*found, strict=True))
  return seen[: len(clips)], predicted[: len(clips)]


def _both(clips, driving, num_keypoints) -> Iterable[tuple[int, Any, Any]]:
  """Yields batches of clips and, if given, of the clips that drive them."""
  batches = clip_batches.in_batches(clips, num_keypoints)
  if driving is None:
    return ((first, batch, None) for first, batch in batches)
  drivers = clip_batches.in_batches(driving, num_keypoints)
  return (
    (first, batch, driver)
    for (first, batch), (_, driver) in zip(batches, drivers, strict=True)
  )


def _sums(clips, frames, masks) -> dict[str, np.ndarray]:
  n = evaluate.CONTEXT_STEPS
  true = np.stack([clip['image'][n:] for clip in clips])
  return scores.squared_errors(true, frames[:, n:], masks)


def _stay(array: np.ndarray, last: int) -> np.ndarray:
  """Replaces all later entries of [T, ...] by entry `last`."""
  return array[np.minimum(np.arange(len(array)), last)]
