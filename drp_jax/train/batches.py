"""Batches as pytrees: of clips, of segments, and of zeros in their shapes.

Their arrays are NumPy's, on the host, until a step takes them.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from drp_jax import types
from drp_jax.data import schema
from drp_jax.train import build


def example_video_batch(
  config: ml_collections.ConfigDict, shape: tuple[int, int] = (1, 2)
) -> types.VideoBatch:
  """Zeros in the shapes of `shape` = (B, T) frames of video."""
  B, T = shape
  S, K = schema.IMAGE_SIZE, build.keypoints(config)
  arrays: dict[str, Any] = {
    'image': np.zeros((B, T, S, S, 3), np.uint8),
    'is_first': np.broadcast_to(np.arange(T) == 0, (B, T)),
  }
  if K is not None:
    arrays |= {
      'flow': np.zeros((B, T, S, S, 2), np.float16),
      'points': np.zeros((B, T, K, 2), np.float32),
      'visible': np.ones((B, T, K), bool),
      'window_step': np.zeros((B, T), np.int32),
    }
  return types.VideoBatch(
    image=arrays['image'], motion=motion(arrays), is_first=arrays['is_first']
  )


def example_replay_batch(
  config: ml_collections.ConfigDict,
  action_size: int,
  shape: tuple[int, int] = (1, 2),
) -> types.ReplayBatch:
  """Zeros in the shapes of `shape` = (B, T) steps of replay."""
  video = example_video_batch(config, shape)
  arrays: dict[str, Any] = {
    'action': np.zeros((*shape, action_size), np.float32),
    'reward': np.zeros(shape, np.float32),
    'is_last': np.zeros(shape, bool),
    'is_terminal': np.zeros(shape, bool),
  }
  return types.ReplayBatch(
    image=video.image, motion=video.motion, is_first=video.is_first, **arrays
  )


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
