"""Extraction of a clip's atomic actions: flow and tracked keypoints.

The pipeline of Sec. 4.2.1 with exchangeable back-ends. Index and unit rules are
those of `drp_jax/types.py`; patches are cropped later, from flow at points.
"""

import dataclasses

import cv2
import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import flow as flow_lib
from drp_jax.preprocess import keypoints as keypoints_lib
from drp_jax.preprocess import segment as segment_lib
from drp_jax.preprocess import track as track_lib

_MIN_SPEED = 0.1  # pixels per frame; less is noise of the estimator
_MIN_PIXELS = 16  # of one frame must move, a 4x4 patch


class NoMotion(ValueError):
  """A clip in which next to nothing moves; a build lists it and goes on.

  Attributes:
    reason: 'no_motion', for counting beside those of `video.UnusableVideo`.
  """

  reason = 'no_motion'


@dataclasses.dataclass(frozen=True)
class Backends:
  """The three estimators that extraction uses.

  Not to be shared between threads: `flow` owns buffers.

  Attributes:
    flow: see preprocess/flow.py.
    mask: see preprocess/segment.py.
    tracker: see preprocess/track.py.
    description: their names and the library's version, to be stored with data;
      values of `dis` differ between versions of OpenCV.
  """

  flow: flow_lib.FlowFn
  mask: segment_lib.MaskFn
  tracker: track_lib.Tracker
  description: str


def make_backends(
  flow: str = 'dis',
  mask: str = 'motion_colour',
  tracker: str = 'farneback',
) -> Backends:
  """Makes back-ends by name.

  Args:
    flow: 'dis'.
    mask: 'motion_colour', computed with the chosen flow.
    tracker: 'farneback'.

  Raises:
    ValueError: for an unknown name.
  """
  _check_name('flow', flow, ['dis'])
  _check_name('mask', mask, ['motion_colour'])
  _check_name('tracker', tracker, ['farneback'])
  # Builds run one process per core, actors beside XLA's threads: OpenCV's own
  # would only compete with them, and 64-pixel frames are too small to split.
  cv2.setNumThreads(1)
  flow_fn = flow_lib.make_dis()
  return Backends(
    flow=flow_fn,
    mask=segment_lib.make_motion_colour(flow_fn),
    tracker=track_lib.Farneback(),
    description=(
      f'flow={flow} mask={mask} tracker={tracker} opencv={cv2.__version__}'
    ),
  )


def extract_clip(
  footage: schema.Footage,
  backends: Backends,
  rng: np.random.Generator,
  num_keypoints: int = schema.MAX_KEYPOINTS,
) -> dict[str, np.ndarray]:
  """Extracts what one clip of the shards holds.

  The clip is one tracking window: keypoints keep their identity throughout.

  Args:
    footage: image [T, 64, 64, 3] uint8 RGB, T >= 2.
    backends: from `make_backends`.
    rng: consumed.
    num_keypoints: K.

  Returns:
    The arrays of `schema.clip_fields(T)` (points and visible with this K).
    visible[t, k] says that keypoint k was not lost up to frame t-1.

  Raises:
    NoMotion: if flow is next to zero in all frames.
    ValueError: if the frames have another shape or dtype.
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


def _check_name(key: str, name: str, allowed: list[str]) -> None:
  """Raises ValueError for a name of a back-end that there is not."""
  if name not in allowed:
    raise ValueError(f'config.extract.{key}={name!r} must be one of {allowed}.')


def _check_motion(flow: np.ndarray) -> None:
  """Raises NoMotion if too few pixels of flow [T, H, W, 2] ever move."""
  speed = np.linalg.norm(flow.astype(np.float32), axis=-1)
  moving = (speed > _MIN_SPEED).sum(axis=(1, 2)).max()
  if moving < _MIN_PIXELS:
    raise NoMotion(
      f'no more than {moving} pixels move faster than {_MIN_SPEED} '
      f'pixels/frame in any of {len(flow)} frames; {_MIN_PIXELS} are needed.'
    )


def _shifted(over_frames: np.ndarray) -> np.ndarray:
  """Entry t is what belongs to frame t-1; entry 0 zeros. [T, ...]."""
  out = np.zeros_like(over_frames)
  out[1:] = over_frames[:-1]
  return out
