"""Points on a moving square and at the image's border."""

import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import track


def _points_in(mask, count, margin=3):
  y, x = np.nonzero(mask)
  inner = (
      (x > x.min() + margin) & (x < x.max() - margin)
      & (y > y.min() + margin) & (y < y.max() - margin)
  )  # fmt: skip
  pick = np.random.default_rng(0).integers(inner.sum(), size=count)
  return np.stack([x[inner], y[inner]], -1)[pick].astype(np.float32)


def test_points_follow_the_square(square_clip):
  points = _points_in(square_clip.masks[0], 20)
  tracks, visible = track.Farneback().over_clip(square_clip.footage)(points)
  assert tracks.shape == (25, 20, 2) and tracks.dtype == np.float32
  time = np.arange(25)[:, None, None]
  error = np.linalg.norm(tracks - (points + time * square_clip.step), axis=-1)
  assert error[8].max() < 1
  assert np.median(error[24]) < 2
  assert visible[:, error[24] < 1].mean() > 0.9


def test_points_on_the_scene_stay(square_clip):
  points = np.array([[3, 60], [60, 3], [40, 4]], np.float32)
  tracks, _ = track.Farneback().over_clip(square_clip.footage)(points)
  np.testing.assert_allclose(tracks - points, 0, atol=0.5)


def test_a_point_that_leaves_keeps_its_place_and_is_lost(scene):
  """A12; the scene runs to the left by 4 pixels per frame."""
  frames = np.stack([scene[:, 4 * t : 4 * t + 64] for t in range(6)])
  points = np.array([[10, 30], [50, 30]], np.float32)
  tracks, visible = track.Farneback().over_clip(schema.Footage(frames))(points)
  assert np.all((tracks >= 0) & (tracks <= 63))
  np.testing.assert_allclose(tracks[2, 0], [2, 30], atol=0.5)
  np.testing.assert_array_equal(visible[:, 0], [True] * 3 + [False] * 3)
  np.testing.assert_array_equal(tracks[3, 0], tracks[2, 0])
  np.testing.assert_allclose(tracks[5, 1], [30, 30], atol=1)
  assert visible[:, 1].all()


def test_a_lost_point_stays_lost(square_clip):
  """Content changes at frame 5, then rests: found again, but not the same."""
  frames = np.stack(
    [square_clip.frames[0]] * 5 + [square_clip.frames[0, ::-1]] * 5
  )
  points = _points_in(square_clip.masks[0], 20)
  _, visible = track.Farneback().over_clip(schema.Footage(frames))(points)
  assert visible[4].all()
  assert visible[5].mean() < 0.5
  np.testing.assert_array_equal(visible[9], visible[5])


def test_a_track_does_not_depend_on_the_other_points(square_clip):
  points = _points_in(square_clip.masks[0], 20)
  tracked = track.Farneback().over_clip(square_clip.footage[:6])
  together, alone = tracked(points)[0], tracked(points[7:8])[0]
  np.testing.assert_array_equal(together[:, 7:8], alone)


def test_advection_is_bilinear_between_pixel_centers():
  """A motion that grows along x; the enlarged grid keeps pixel centers."""
  gray = np.zeros((128, 128), np.uint8)
  x = (np.arange(128, dtype=np.float32) + 0.5) / 2 - 0.5  # of the frame
  motion = np.zeros((128, 128, 2), np.float32)
  motion[..., 0] = 2 * 0.1 * x
  pair = track.Pair(gray, gray, motion)
  points = np.array([[20.0, 10.0], [20.3, 10.0], [33.7, 21.9]], np.float32)
  moved, found = track.advect(pair, points)
  expected = points + points * [0.1, 0]
  np.testing.assert_allclose(moved, expected, rtol=1e-5)
  assert not found.any()  # nothing to hold on to in a black frame
