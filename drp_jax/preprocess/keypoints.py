"""Motion-salient keypoints, the places of atomic actions (Sec. 4.2.1, A11).

Candidates are drawn in the mask and tracked. Candidates that hardly move are
replaced by points near those that move.
"""

import numpy as np

from drp_jax.preprocess import track as track_lib

CANDIDATES_PER_KEYPOINT = 4  # A11
JITTER = 2.0  # pixels, standard deviation around a survivor (A11)
MIN_VARIANCE = 0.25  # tau of A11: square pixels, for a clip of 25 frames
_CLIP_FRAMES = 25  # T of Table 5, to which tau refers


def select(
  track: track_lib.TrackFn,
  mask: np.ndarray,
  num_keypoints: int,
  rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the keypoints of a clip and tracks them.

  With the track function of two frames this is the causal form for acting
  (A15).

  Args:
    track: from `track.over_clip`, for a clip of T frames.
    mask: [H, W] bool, where to draw candidates in frame 0; not empty.
    num_keypoints: K.
    rng: consumed.

  Returns:
    tracks: [T, K, 2] float32 and visible: [T, K] bool. Keypoints are in random
      order, so the first of them are a fair sample.
  """
  count = CANDIDATES_PER_KEYPOINT * num_keypoints
  tracks, visible = track(sample_in_mask(mask, count, rng))
  threshold = min_variance(len(tracks))
  survivors = tracks[0, variance(tracks) >= threshold]
  if 0 < len(survivors) < num_keypoints:
    refill = jitter(survivors, num_keypoints, mask, rng)
    more_tracks, more_visible = track(refill)
    tracks = np.concatenate([tracks, more_tracks], axis=1)
    visible = np.concatenate([visible, more_visible], axis=1)
  # Any candidates that pass, as in the paper, not those with the highest
  # scores. The highest crowd on the fastest limb and cover half the area
  # (MuJoCo, 18 clips), and are on the body about as often. If too few pass, the
  # best of the others fill up.
  scores = variance(tracks)
  passed = np.flatnonzero(scores >= threshold)
  others = np.flatnonzero(scores < threshold)
  others = others[np.argsort(-scores[others], kind='stable')]
  chosen = np.concatenate([passed, others])[:num_keypoints]
  chosen = rng.permutation(chosen)
  return tracks[:, chosen], visible[:, chosen]


def variance(tracks: np.ndarray) -> np.ndarray:
  """Computes the variance over time of [T, K, 2], summed over axes: [K]."""
  return tracks.var(axis=0).sum(axis=-1)


def min_variance(num_frames: int) -> float:
  """Computes tau of A11 for a clip of another length.

  A point at constant speed v has variance v^2 (T^2 - 1) / 12, so this requires
  the same speed for every T.
  """
  return MIN_VARIANCE * (num_frames**2 - 1) / (_CLIP_FRAMES**2 - 1)


def sample_in_mask(
  mask: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
  """Draws points evenly over the area of a mask.

  Args:
    mask: [H, W] bool, not empty.
    count: number of points.
    rng: consumed.

  Returns:
    [count, 2] float32, pixels, (x, y), inside the image.
  """
  y, x = np.nonzero(mask)
  pick = rng.integers(len(x), size=count)
  points = np.stack([x, y], -1)[pick] + rng.uniform(-0.5, 0.5, (count, 2))
  height, width = mask.shape
  return np.clip(points, 0, [width - 1, height - 1]).astype(np.float32)


def jitter(
  points: np.ndarray, count: int, mask: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
  """Draws points near given ones, or keeps those that would leave the mask.

  Args:
    points: [N, 2] float32, pixels, (x, y), N >= 1.
    count: number of points to draw.
    mask: [H, W] bool.
    rng: consumed.

  Returns:
    [count, 2] float32.
  """
  centers = points[rng.integers(len(points), size=count)]
  moved = centers + rng.normal(0.0, JITTER, centers.shape)
  height, width = mask.shape
  inside = np.all((moved >= 0) & (moved <= [width - 1, height - 1]), axis=-1)
  x, y = np.where(inside[:, None], moved, 0).round().astype(int).T
  kept = inside & mask[y, x]
  return np.where(kept[:, None], moved, centers).astype(np.float32)
