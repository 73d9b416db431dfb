"""Point tracking: the place of a frame's point in the next frame (p_t^k).

Every tracker follows points through a clip. A tracker without look-ahead also
goes frame by frame, to the same places, so points followed while acting equal
those of a data set.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import flow

# `track(points [K, 2]) -> (tracks [T, K, 2], visible [T, K])` over one clip.
TrackFn = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

_FACTOR = 2  # by which frames are enlarged
_MAX_RETURN_ERROR = 0.5  # pixels of the enlarged frame, forward-backward check


class Tracker(Protocol):
  """Interface of a tracker, which follows points through a clip."""

  def over_clip(self, footage: schema.Footage) -> TrackFn:
    """Prepares a clip, so that several sets of points can be tracked in it.

    Args:
      footage: T frames.

    Returns:
      `track(points)`, which follows points [K, 2] float32 of frame 0 and
      returns their positions [T, K, 2] float32 in every frame and visible
      [T, K] bool, which is false from the first frame in which a point is lost.
    """


@runtime_checkable
class OnlineTracker(Tracker, Protocol):
  """Interface of a tracker that goes from frame to frame, without look-ahead.

  It follows N sets of points at once, each in a different video. The result for
  a set does not depend on the others.
  """

  def begin(self, footage: schema.Footage, points: np.ndarray) -> list[Any]:
    """Begins to follow points of single frames.

    Args:
      footage: N frames.
      points: [N, K, 2] float32, pixels, (x, y).

    Returns:
      N states, which may be stepped together with states of other calls.
    """

  def step(
    self, states: Sequence[Any], footage: schema.Footage
  ) -> tuple[list[Any], np.ndarray, np.ndarray]:
    """Moves the points to the next frames.

    Args:
      states: N, of the same K.
      footage: N frames.

    Returns:
      The next states; points [N, K, 2] float32 in the frames, where a point
      that would leave the image keeps its place (A12); found [N, K] bool,
      whether points are seen there.
    """


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two neighboring frames, prepared once for any number of points.

  Attributes:
    gray0: [2H, 2W] uint8, the earlier frame, enlarged.
    gray1: [2H, 2W] uint8, the later frame, enlarged.
    motion: [2H, 2W, 2] float32, from gray0 to gray1 in enlarged pixels.
  """

  gray0: np.ndarray
  gray1: np.ndarray
  motion: np.ndarray


class Farneback:
  """Tracker that advects points by Farneback's flow, the best without weights.

  DIS has a lower error over all pixels but smooths thin limbs, so points that
  follow it lag behind and fall off the body. A state consists of the enlarged
  frame and the points.
  """

  def over_clip(self, footage: schema.Footage) -> TrackFn:
    """See `Tracker.over_clip`."""
    grays = [flow.enlarged_gray(frame, _FACTOR) for frame in footage.image]
    pairs = [prepare(*grays) for grays in itertools.pairwise(grays)]

    def track(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      points = points.astype(np.float32)
      tracks, visible = [points], [np.ones(len(points), bool)]
      for pair in pairs:
        moved, found = advect(pair, tracks[-1])
        tracks.append(moved)
        visible.append(visible[-1] & found)
      return np.stack(tracks), np.stack(visible)  # [T, K, 2], [T, K]

    return track

  def begin(
    self, footage: schema.Footage, points: np.ndarray
  ) -> list[tuple[np.ndarray, np.ndarray]]:
    """See `OnlineTracker.begin`."""
    grays = [flow.enlarged_gray(frame, _FACTOR) for frame in footage.image]
    return list(zip(grays, points, strict=True))

  def step(
    self,
    states: Sequence[tuple[np.ndarray, np.ndarray]],
    footage: schema.Footage,
  ) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray, np.ndarray]:
    """See `OnlineTracker.step`."""
    following, found = [], []
    for (last, points), frame in zip(states, footage.image, strict=True):
      gray = flow.enlarged_gray(frame, _FACTOR)
      moved, inside = advect(prepare(last, gray), points)
      following.append((gray, moved))
      found.append(inside)
    return following, np.stack([p for _, p in following]), np.stack(found)


def prepare(gray0: np.ndarray, gray1: np.ndarray) -> Pair:
  """Estimates the motion between two enlarged frames [2H, 2W] uint8."""
  return Pair(gray0, gray1, flow.farneback(gray0, gray1))


def advect(pair: Pair, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Moves points from the earlier to the later frame of a pair.

  Args:
    pair: from `prepare`.
    points: [K, 2] float32, pixels of the frame, (x, y), in the earlier frame.

  Returns:
    points: [K, 2] float32 in the later frame. A point that would leave the
      image keeps its place (A12).
    found: [K] bool, whether the point is inside and a second method
      (Lucas-Kanade) leads there and back.
  """
  enlarged = _FACTOR * (points + 0.5) - 0.5
  moved = points + _bilinear(pair.motion, enlarged) / _FACTOR
  height, width = (side // _FACTOR for side in pair.gray0.shape)
  moved, inside = hold(points, moved, height, width)
  return moved, inside & _returns(pair, enlarged)


def hold(
  last: np.ndarray, points: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
  """Keeps points that leave the image at their last place in it (A12).

  Args:
    last: [..., K, 2] float32, pixels, (x, y), in the frame before.
    points: [..., K, 2] in this frame, perhaps outside.
    height: of the image, pixels.
    width: of the image, pixels.

  Returns:
    points: [..., K, 2] float32, inside.
    inside: [..., K] bool, whether `points` was inside.
  """
  inside = np.all((points >= 0) & (points <= [width - 1, height - 1]), axis=-1)
  return np.where(inside[..., None], points, last).astype(np.float32), inside


def _bilinear(field: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Interpolates a field [H, W, C] at points [K, 2], (x, y): [K, C]."""
  height, width = field.shape[:2]
  points = np.clip(points, 0, [width - 1, height - 1])
  x0, y0 = np.minimum(points.astype(int), [width - 2, height - 2]).T
  x, y = (points - np.stack([x0, y0], -1)).astype(np.float32).T[..., None]
  upper = (1 - x) * field[y0, x0] + x * field[y0, x0 + 1]
  lower = (1 - x) * field[y0 + 1, x0] + x * field[y0 + 1, x0 + 1]
  return (1 - y) * upper + y * lower


def _returns(pair: Pair, enlarged: np.ndarray) -> np.ndarray:
  """Checks that Lucas-Kanade leads forward and back again, [K] bool."""
  start = np.ascontiguousarray(enlarged, np.float32)[:, None]
  settings = dict(winSize=(13, 13), maxLevel=3)
  there, found0, _ = cv2.calcOpticalFlowPyrLK(
    pair.gray0, pair.gray1, start, None, **settings
  )
  back, found1, _ = cv2.calcOpticalFlowPyrLK(
    pair.gray1, pair.gray0, there, None, **settings
  )
  error = np.linalg.norm(back - start, axis=-1)
  return ((found0 & found1) == 1)[:, 0] & (error < _MAX_RETURN_ERROR)[:, 0]
