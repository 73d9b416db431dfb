"""Groups are drawn apart, or not at all."""

import numpy as np
import pytest

from drp_jax.viz import plot_style, scatter


def test_every_group_is_in_the_picture():
  points = np.arange(12.0).reshape(6, 2)
  groups = np.array([0, 0, 1, 1, 1, 2])
  names = ['to the left', 'to the right', 'put down']
  figure = scatter.draw_groups(points, groups, names, 'an embedding')
  drawn = [c.get_offsets().data for c in figure.axes[0].collections]
  for number, found in enumerate(drawn):
    np.testing.assert_array_equal(found, points[groups == number])
  assert b'<svg' in plot_style.svg(figure)


def test_too_many_groups():
  with pytest.raises(ValueError, match='8 groups'):
    scatter.draw_groups(np.zeros([8, 2]), np.arange(8), list('abcdefgh'), '')
