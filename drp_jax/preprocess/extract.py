"""Extraction of a clip's atomic actions: flow and tracked keypoints.

The pipeline of Sec. 4.2.1 with exchangeable back-ends. Index and unit rules are
those of `drp_jax/types.py`; patches are cropped later, from flow at points.
"""

import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import flow as flow_lib
from drp_jax.preprocess import keypoints as keypoints_lib

_MIN_SPEED = 0.1  # pixels per frame; less is noise of the estimator
_MIN_PIXELS = 16  # pixels of one frame that must move, a 4x4 patch


class NoMotion(ValueError):
  """A clip in which almost nothing moves; a build lists it and continues.

  Attributes:
    reason: 'no_motion', for counting, like those of `video.UnusableVideo`.
  """

  reason = 'no_motion'


def extract_clip(
  footage: schema.Footage,
  backends: backends_lib.Backends,
  rng: np.random.Generator,
  num_keypoints: int = schema.MAX_KEYPOINTS,
) -> dict[str, np.ndarray]:
  """Extracts the arrays of one clip of the shards.

  The clip is one tracking window: keypoints keep their identity throughout.

  Args:
    footage: image [T, 64, 64, 3] uint8 RGB, T >= 2.
    backends: from `backends.make_backends`.
    rng: consumed.
    num_keypoints: K.

  Returns:
    The arrays of `schema.clip_fields(T)` (points and visible with this K).
    visible[t, k] is true if keypoint k was not lost up to frame t-1.

  Raises:
    NoMotion: if flow is almost zero in all frames.
    ValueError: if the frames have another shape or dtype, or the flow is not
      finite.
  """
  size, frames = schema.IMAGE_SIZE, footage.image
  shaped = frames.ndim == 4 and frames.shape[1:] == (size, size, 3)
  if frames.dtype != np.uint8 or not shaped or len(frames) < 2:
    raise ValueError(
      f'frames is {frames.dtype}{list(frames.shape)}, expected '
      f'uint8[T, {size}, {size}, 3] with T >= 2.'
    )
  flow = flow_lib.over_clip(backends.flow, footage)
  _check_motion(flow)
  mask = backends.mask(footage)
  track = backends.tracker.over_clip(footage)
  tracks, visible = keypoints_lib.select(track, mask, num_keypoints, rng)
  return {
    'image': frames,
    'flow': flow,
    'points': _shifted(tracks),
    'visible': _shifted(visible),
    'mask': mask,
  }


def _check_motion(flow: np.ndarray) -> None:
  """Raises NoMotion if too few pixels of flow [T, H, W, 2] ever move."""
  bad = np.count_nonzero(~np.isfinite(flow))
  if bad:  # one such number would spoil the flow scale of the whole data set
    raise ValueError(
      f'{bad} of {flow.size} numbers of the flow are not finite.'
    )
  speed = np.linalg.norm(flow.astype(np.float32), axis=-1)
  moving = (speed > _MIN_SPEED).sum(axis=(1, 2)).max()
  if moving < _MIN_PIXELS:
    raise NoMotion(
      f'no more than {moving} pixels move faster than {_MIN_SPEED} '
      f'pixels/frame in any of {len(flow)} frames; {_MIN_PIXELS} are needed.'
    )


def _shifted(over_frames: np.ndarray) -> np.ndarray:
  """Moves entry t-1 to t; entry 0 becomes zeros. [T, ...]."""
  out = np.zeros_like(over_frames)
  out[1:] = over_frames[:-1]
  return out
