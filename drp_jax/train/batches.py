"""Batches as pytrees: of clips and of segments.

Their arrays are NumPy's, on the host, until a step takes them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from drp_jax import types


def video_batch(arrays: Mapping[str, Any]) -> types.VideoBatch:
  """Turns a batch of clips (data/input_pipeline.py) into the pytree."""
  B, T = arrays['image'].shape[:2]
  time: Any = np.broadcast_to(np.arange(T), (B, T))
  window_step = np.maximum(time - 1, 0).astype(np.int32)
  return types.VideoBatch(
    image=arrays['image'],
    motion=motion({**arrays, 'window_step': window_step}),
    is_first=time == 0,
  )


def replay_batch(arrays: Mapping[str, Any]) -> types.ReplayBatch:
  """Turns a batch of segments (data/replay.py) into the pytree."""
  return types.ReplayBatch(
    image=arrays['image'],
    motion=motion(arrays),
    action=arrays['action'],
    reward=arrays['reward'],
    is_first=arrays['is_first'],
    is_last=arrays['is_last'],
    is_terminal=arrays['is_terminal'],
  )


def motion(arrays: Mapping[str, Any]) -> types.Motion | None:
  """Picks the motion fields of a replay step or batch; None without any."""
  if 'flow' not in arrays:
    return None
  names = ('flow', 'points', 'visible', 'window_step')
  return types.Motion(**{name: arrays[name] for name in names})
