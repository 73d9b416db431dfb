"""Discs show who is looked at."""

import numpy as np

from drp_jax.viz import attention


def test_discs_are_as_large_as_shares_and_lie_on_their_points():
  image = np.zeros((2, 64, 64, 3), np.uint8)
  points = np.zeros((2, 2, 2), np.float32)
  points[1] = (16, 16), (48, 32)
  weights = np.zeros((2, 2, 2))
  weights[1] = (0.8, 0.2), (0.5, 0.5)
  panels = attention.attention_panels(image, points, weights, 4)
  assert panels.shape == (2, 256, 512, 3) and panels.dtype == np.uint8
  assert (panels[0] == 48).all()  # entry 0 has no points

  def pixels(block, x, y):
    part = panels[1, :, block * 256 : (block + 1) * 256]
    around = part[y - 20 : y + 20, x - 20 : x + 20]
    return (around != 48).any(-1).sum()

  first, second = pixels(0, 66, 66), pixels(0, 194, 130)
  assert 2.0 < first / second < 5.0  # shares are 4 to 1, outlines the same
  assert pixels(1, 66, 66) == pixels(1, 194, 130)


def test_points_are_drawn_into_the_frame_in_which_they_lie():
  image = np.zeros((3, 64, 64, 3), np.uint8)
  image[1] = 200
  panels = attention.attention_panels(
    image, np.full((3, 1, 2), 9.0), np.ones((3, 1, 1)), 2
  )
  corners = panels[:, -1, -1, 0]
  assert corners.tolist() == [48, 48, 148]
