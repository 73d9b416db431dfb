"""The choice of keypoints, with analytic tracks and on a real clip."""

import numpy as np

from drp_jax.preprocess import keypoints, track


def _track_fn(moves, num_frames=25):
  """Points for which `moves` holds go right by 0.5 pixels per frame."""

  def fn(points):
    steps = np.arange(num_frames)[:, None, None] * np.array([0.5, 0.0])
    tracks = points + steps * moves(points)[:, None]
    return tracks.astype(np.float32), np.ones(tracks.shape[:2], bool)

  return fn


def _on_the_left(points):
  return points[:, 0] < 6


def _box(x0, x1, y0, y1):
  mask = np.zeros((64, 64), bool)
  mask[y0:y1, x0:x1] = True
  return mask


def test_variance_by_hand():
  tracks = np.array([[[0, 0]], [[2, 0]], [[4, 3]]], np.float32)
  np.testing.assert_allclose(keypoints.variance(tracks), [8 / 3 + 2])


def test_the_threshold_asks_for_one_speed_whatever_the_length():
  assert keypoints.min_variance(25) == 0.25
  for num_frames in (2, 9):
    speed = np.sqrt(0.25 * 12 / (25**2 - 1))
    x = speed * np.arange(num_frames)
    np.testing.assert_allclose(keypoints.min_variance(num_frames), x.var())


def test_samples_lie_in_the_mask_and_cover_it():
  mask = _box(10, 20, 40, 44)
  points = keypoints.sample_in_mask(mask, 2000, np.random.default_rng(0))
  x, y = points.round().astype(int).T
  assert points.dtype == np.float32
  assert mask[y, x].mean() > 0.99  # a half rounds to the even neighbor
  np.testing.assert_allclose(points.mean(0), [14.5, 41.5], atol=0.3)
  assert points.min(0)[0] < 10 and points.max(0)[0] > 19


def test_points_that_rest_are_replaced():
  """A tenth of the mask moves: fewer survivors than keypoints, so jitter."""
  mask = _box(0, 60, 20, 40)
  rng = np.random.default_rng(0)
  tracks, visible = keypoints.select(_track_fn(_on_the_left), mask, 32, rng)
  assert tracks.shape == (25, 32, 2) and visible.shape == (25, 32)
  moving = _on_the_left(tracks[0])
  candidates = keypoints.sample_in_mask(mask, 128, np.random.default_rng(0))
  assert _on_the_left(candidates).sum() < 32
  assert moving.mean() > 0.9
  x, y = tracks[0].round().astype(int).T
  assert mask[y, x].all()
  assert len(np.unique(tracks[0], axis=0)) > 25


def test_when_nothing_moves_enough_the_best_are_taken():
  mask = _box(10, 30, 10, 30)

  def track_fn(points):
    speeds = 0.001 * points[:, :1]  # the further right the faster
    tracks = points + np.arange(25)[:, None, None] * speeds * [1, 0]
    return tracks.astype(np.float32), np.ones(tracks.shape[:2], bool)

  tracks, _ = keypoints.select(track_fn, mask, 8, np.random.default_rng(0))
  drawn = keypoints.sample_in_mask(mask, 32, np.random.default_rng(0))
  best = np.sort(drawn[:, 0])[-8:]
  np.testing.assert_array_equal(np.sort(tracks[0, :, 0]), best)


def test_the_first_points_are_a_fair_sample():
  """Survivors come before refills when chosen; their order must not show."""
  mask = _box(0, 60, 20, 40)
  track_fn = _track_fn(_on_the_left)
  first, last = [], []
  for seed in range(40):
    rng = np.random.default_rng(seed)
    tracks, _ = keypoints.select(track_fn, mask, 32, rng)
    first.append(tracks[0, :16, 0].mean())
    last.append(tracks[0, 16:, 0].mean())
  assert abs(np.mean(first) - np.mean(last)) < 1.0


def test_a_tiny_mask_is_enough(square_clip):
  mask = _box(12, 13, 16, 17)
  track_fn = track.Farneback().over_clip(square_clip.footage)
  tracks, _ = keypoints.select(track_fn, mask, 32, np.random.default_rng(0))
  assert np.abs(tracks[0] - [12, 16]).max() <= 0.5


def test_keypoints_are_on_the_square_more_often_than_chance(
  square_clip,
):
  everything = np.ones((64, 64), bool)
  track_fn = track.Farneback().over_clip(square_clip.footage)
  rng = np.random.default_rng(0)
  tracks, _ = keypoints.select(track_fn, everything, 32, rng)
  x, y = tracks[0].round().astype(int).T
  # The square covers a sixteenth of the image; it drags along points of the
  # scene that it passes over, so not all that move are on it.
  assert square_clip.masks[0][y, x].mean() > 3 / 16
