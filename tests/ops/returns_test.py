"""Tests of returns: Eq. 10 by hand; by loops: equations_test.py."""

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.signal

from drp_jax.ops import returns


def test_by_hand():
  ret = returns.lambda_return(
    jnp.array([1.0, 2.0]), jnp.array([9.0, 3.0]), jnp.array(4.0), 0.5, 0.5
  )
  np.testing.assert_allclose(ret, [2.75, 4.0])


def test_as_a_recursive_filter():
  """Backwards in time, V = x + a V with x of the rewards and next values."""
  rng = np.random.default_rng(0)
  reward, value, last = rng.normal(size=(3, 7, 5))
  discount, lam = 0.97, 0.9
  a = discount * lam
  following = np.concatenate([value[1:], last[:1]])
  x = reward + discount * (1 - lam) * following
  expected, _ = scipy.signal.lfilter(
    [1.0], [1.0, -a], x[::-1], axis=0, zi=a * last[:1]
  )
  ret = returns.lambda_return(
    jnp.asarray(reward, jnp.float32),
    jnp.asarray(value, jnp.float32),
    jnp.asarray(last[0], jnp.float32),
    discount,
    lam,
  )
  np.testing.assert_allclose(ret, expected[::-1], rtol=1e-4, atol=1e-5)


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
