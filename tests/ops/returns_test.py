"""Tests of returns: Eq. 10 by hand; by loops: equations_test.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax.ops import returns


def test_by_hand():
  ret = returns.lambda_return(
    jnp.array([1.0, 2.0]), jnp.array([9.0, 3.0]), jnp.array(4.0), 0.5, 0.5
  )
  np.testing.assert_allclose(ret, [2.75, 4.0])


def test_a_discount_of_each_state_by_hand():
  """V_1 = 2 + 0.25 * 4 = 3; V_0 = 1 + 0.5 (0.5 * 3 + 0.5 * 3) = 2.5."""
  ret = returns.lambda_return(
    jnp.array([1.0, 2.0]),
    jnp.array([9.0, 3.0]),
    jnp.array(4.0),
    jnp.array([0.5, 0.25]),
    0.5,
  )
  np.testing.assert_allclose(ret, [2.5, 3.0])


def test_nothing_is_returned_from_beyond_a_terminal_state():
  """Its own reward counts; what comes after does not."""
  discount = jnp.array([0.9, 0.0, 0.9])
  before = returns.lambda_return(
    jnp.array([1.0, -5.0, 7.0]), jnp.ones(3), jnp.array(3.0), discount, 0.7
  )
  after = returns.lambda_return(
    jnp.array([1.0, -5.0, 99.0]),
    jnp.array([1.0, 1.0, 50.0]),
    jnp.array(70.0),
    discount,
    0.7,
  )
  np.testing.assert_array_equal(before[:2], after[:2])
  np.testing.assert_allclose(before[1], -5.0)


def test_last_value_of_another_shape_raises():
  with pytest.raises(AssertionError):
    returns.lambda_return(
      jnp.ones([3, 2]), jnp.ones([3, 2]), jnp.ones([3]), 0.9, 0.9
    )
