"""Makes batches of zeros in the shapes and types of real ones."""

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
  motion = None
  if K is not None:
    motion = types.Motion(
      flow=np.zeros((B, T, S, S, 2), np.float16),
      points=np.zeros((B, T, K, 2), np.float32),
      visible=np.ones((B, T, K), bool),
      window_step=np.zeros((B, T), np.int32),
    )
  return types.VideoBatch(
    image=np.zeros((B, T, S, S, 3), np.uint8),
    motion=motion,
    is_first=np.broadcast_to(np.arange(T) == 0, (B, T)),
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
  return types.ReplayBatch(
    image=video.image,
    motion=video.motion,
    action=np.zeros((*shape, action_size), np.float32),
    reward=np.zeros(shape, np.float32),
    is_first=video.is_first,
    is_last=np.zeros(shape, bool),
    is_terminal=np.zeros(shape, bool),
  )
