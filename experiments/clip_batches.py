"""Clips of shards in order, for commands that examine a model."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from drp_jax import types
from drp_jax.train import batches

_BATCH = 8  # clips


def spaced(source: Sequence[Any], count: int) -> list[dict[str, Any]]:
  """Reads up to `count` clips of a split, evenly spaced over it."""
  count = min(count, len(source))
  places = np.linspace(0, len(source) - 1, count).round().astype(int)
  return [source[int(place)] for place in places]


def in_batches(
  clips: Sequence[dict[str, Any]], num_keypoints: int | None
) -> Iterator[tuple[int, types.VideoBatch]]:
  """Yields clips in batches of one size; the last clip pads the last batch.

  Args:
    clips: examples of shards.
    num_keypoints: K, None for systems that see no motion.

  Yields:
    Number of its first clip, and a batch.
  """
  names = ['image']
  if num_keypoints is not None:
    names += ['flow', 'points', 'visible']
  size = min(_BATCH, len(clips))
  for first in range(0, len(clips), size):
    part = list(clips[first : first + size])
    part += part[-1:] * (size - len(part))
    arrays = {name: np.stack([clip[name] for clip in part]) for name in names}
    for name in {'points', 'visible'} & arrays.keys():
      arrays[name] = arrays[name][:, :, :num_keypoints]
    yield first, batches.video_batch(arrays)
