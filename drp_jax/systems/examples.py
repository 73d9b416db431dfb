"""Makes batches of zeros in the shapes and types of real ones."""

from typing import Any

import numpy as np

from drp_jax import types
from drp_jax.data import schema


def video_batch(
  num_keypoints: int | None, shape: tuple[int, int] = (1, 2)
) -> types.VideoBatch:
  """Makes zeros in the shapes of `shape` = (B, T) frames of video.

  Args:
    num_keypoints: K, or None for systems that see no motion.
    shape: B and T.
  """
  B, T = shape
  S, K = schema.IMAGE_SIZE, num_keypoints
  zeros: Any = np.zeros  # on the host, where types.py says jax.Array
  is_first: Any = np.broadcast_to(np.arange(T) == 0, (B, T))
  motion = None
  if K is not None:
    motion = types.Motion(
      flow=zeros((B, T, S, S, 2), np.float16),
      points=zeros((B, T, K, 2), np.float32),
      visible=~zeros((B, T, K), bool),
      window_step=zeros((B, T), np.int32),
    )
  return types.VideoBatch(
    image=zeros((B, T, S, S, 3), np.uint8),
    motion=motion,
    is_first=is_first,
  )


def replay_batch(
  num_keypoints: int | None,
  action_size: int,
  shape: tuple[int, int] = (1, 2),
) -> types.ReplayBatch:
  """Makes zeros in the shapes of `shape` = (B, T) steps of replay.

  Args:
    num_keypoints: as in `video_batch`.
    action_size: A.
    shape: B and T.
  """
  video = video_batch(num_keypoints, shape)
  zeros: Any = np.zeros
  return types.ReplayBatch(
    image=video.image,
    motion=video.motion,
    action=zeros((*shape, action_size), np.float32),
    reward=zeros(shape, np.float32),
    is_first=video.is_first,
    is_last=zeros(shape, bool),
    is_terminal=zeros(shape, bool),
  )
