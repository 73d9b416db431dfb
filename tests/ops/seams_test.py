"""Tests of seams: parts of segments, their weights."""

import numpy as np

from drp_jax.ops import seams

_LAST = np.array([[0, 0, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], bool)


def test_parts_by_hand():
  """The last entry may end an episode; nothing follows in the segment."""
  np.testing.assert_array_equal(
    seams.parts(_LAST), [[0, 0, 0, 1, 1], [0, 1, 2, 2, 2], [0] * 5]
  )
  np.testing.assert_array_equal(
    seams.ends(_LAST), [[0, 0, 1, 0, 0], [1, 1, 0, 0, 0], [0] * 5]
  )


def test_weights_of_a_part_by_hand():
  weight = seams.same_part_weight(_LAST, np.array([3, 4, 1]))
  third = np.float32(5) / 3
  np.testing.assert_array_equal(
    weight, [[0, 0, 0, 2.5, 2.5], [0, 0, third, third, third], [1] * 5]
  )


def test_every_step_weighs_one_on_average():
  weights = [
    seams.same_part_weight(_LAST, np.full(3, index)) for index in range(5)
  ]
  np.testing.assert_allclose(np.mean(weights, 0), 1.0, rtol=1e-6)
