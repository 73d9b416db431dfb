"""Tests of images: the ends of the scale and the way back."""

import numpy as np

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
