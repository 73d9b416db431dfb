"""The mask of the moving square, in both forms, and its fallback."""

import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.preprocess import segment


def _iou(a, b):
  return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize('num_frames', [25, 2])
def test_the_square_is_found(square_clip, backends, num_frames):
  for t in (0, 10):
    mask = backends.mask(square_clip.footage[t : t + num_frames])
    assert mask.shape == (64, 64) and mask.dtype == bool
    assert _iou(mask, square_clip.masks[t]) > 0.6


def test_the_square_is_found_by_a_moving_camera(square_clip, backends):
  """The camera's motion is taken out: frames cut from a sliding window."""
  frames = np.stack(
    [square_clip.frames[t, t : t + 56, t : t + 56] for t in range(3)]
  )
  mask = backends.mask(schema.Footage(frames))
  assert _iou(mask, square_clip.masks[0, :56, :56]) > 0.6


def test_nothing_moves_gives_the_whole_frame(square_clip, backends):
  still = np.stack([square_clip.frames[0]] * 3)
  assert backends.mask(schema.Footage(still)).all()


def test_the_mask_depends_on_its_frames_only(square_clip, backends):
  """OpenCV's clustering draws from a generator that others advance."""
  first = backends.mask(square_clip.footage[:5])
  for t in range(3, 9):
    backends.mask(square_clip.footage[t : t + 2])
  np.testing.assert_array_equal(backends.mask(square_clip.footage[:5]), first)


def test_the_camera_is_the_motion_that_most_agree_with(scene):
  """An affine field with a fifth of outliers; flow given, not estimated."""
  y, x = np.mgrid[:64, :64] / 64
  camera = np.stack([1 + 0.5 * x - 0.2 * y, -0.5 + 0.3 * y], -1)
  outside = camera.copy()
  outside[20:49, 20:49] += [4, -3]
  frames = schema.Footage(np.stack([scene[:, :64], scene[:, :64]]))
  found = segment.make_motion_color(lambda *_: outside[None].astype(np.float32))
  rest = segment.make_motion_color(lambda *_: camera[None].astype(np.float32))
  assert rest(frames).all()
  mask = found(frames)
  assert mask[20:49, 20:49].sum() > 0.95 * mask.sum()


def test_where_a_model_finds_nothing_the_fastest_are_taken(square_clip):
  """A10: a fifth of the pixels; the whole frame if nothing moves."""
  footage = square_clip.footage[:2]
  speed = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) / 1000
  motion = np.stack([np.zeros_like(speed), speed], -1)[None]
  nothing, little = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
  little[0, :5] = True
  for found in (nothing, little):
    mask = segment.found_or_fastest(found, footage, lambda *_: motion)
    assert mask.sum() == round(0.2 * 64 * 64)
    assert speed[mask].min() > speed[~mask].max()
  slow = segment.found_or_fastest(nothing, footage, lambda *_: motion / 100)
  assert slow.all()
  found = square_clip.masks[0]
  kept = segment.found_or_fastest(found, footage, lambda *_: motion)
  np.testing.assert_array_equal(kept, found)


def test_what_stands_apart_with_little_score_is_dropped():
  """Half of the best part's score is kept, a little less is not."""
  found = np.zeros((16, 16), bool)
  found[1:5, 1:5] = found[8:10, 1:5] = found[12:15, 12:15] = True
  found[5, 5] = True  # by a corner, part of the first
  score = np.where(found, 0.5, 1.0)
  score[8:10, 1:5] = 8.5 / 2 / 8  # of 8.5 in the first
  score[12:15, 12:15] = 8.4 / 2 / 9
  kept = segment._main_parts(found, score)
  expected = found.copy()
  expected[12:15, 12:15] = False
  np.testing.assert_array_equal(kept, expected)
