"""Tests of images: the ends of the scale and the way back."""

import jax
import numpy as np
import random_inputs

from drp_jax.ops import images


def test_every_value_returns():
  image = np.arange(256, dtype=np.uint8)
  inside = images.to_float(image)
  assert inside[0] == -0.5
  assert inside[-1] == 0.5
  back = images.to_uint8(inside)
  assert back.dtype == np.uint8
  np.testing.assert_array_equal(back, image)


def test_values_outside_are_clipped():
  outside = images.to_uint8(np.array([-3.0, 0.7], np.float32))
  np.testing.assert_array_equal(outside, [0, 255])


def _erased(count, side=64):
  """Boxes (top, left, height, width) of what was erased; None of nothing."""
  image = np.ones((count, side, side, 3), np.float32)
  out = np.asarray(
    jax.jit(images.random_erasing)(image, random_inputs.keys(0, count))
  )
  boxes = []
  for frame in out:
    hit = (frame == 0).all(-1)
    assert (frame[~hit] == 1).all()
    if not hit.any():
      boxes.append(None)
      continue
    rows, columns = np.nonzero(hit.any(1))[0], np.nonzero(hit.any(0))[0]
    top, left = rows[0], columns[0]
    height, width = rows[-1] + 1 - top, columns[-1] + 1 - left
    assert hit.sum() == height * width  # a whole rectangle
    boxes.append((top, left, height, width))
  return boxes


def test_erasing_draws_rectangles_as_the_lineage_does():
  boxes = _erased(1000)
  some = np.array([box for box in boxes if box is not None])
  assert 0.45 < len(some) / len(boxes) < 0.55
  top, left, height, width = some.T
  area, aspect = height * width / 64**2, height / width
  # Sides are rounded to pixels.
  assert 0.015 < area.min() < 0.03 and 0.3 < area.max() < 0.34
  assert abs(area.mean() - (0.02 + 0.33) / 2) < 0.015
  assert 0.25 < aspect.min() < 0.4 and 2.9 < aspect.max() < 3.7
  assert 0.4 < (aspect < 1).mean() < 0.6  # tall as often as wide
  assert (top + height).max() == (left + width).max() == 64
  assert top.min() == left.min() == 0
  # Anywhere, and rows and columns have nothing to do with each other.
  assert abs((top / (64 - height + 1)).mean() - 0.5) < 0.06
  places = top / (64 - height + 1), left / (64 - width + 1)
  assert abs(np.corrcoef(*places)[0, 1]) < 0.15


def test_erasing_depends_on_the_key_of_the_image_alone():
  image = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype(np.float32)
  together = images.random_erasing(image, random_inputs.keys(0, 6))
  for i in range(6):
    alone = images.random_erasing(
      image[i : i + 1], random_inputs.keys(0, 6)[i : i + 1]
    )
    np.testing.assert_array_equal(alone[0], together[i])
