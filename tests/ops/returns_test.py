"""Tests of returns: Eq. 10 by hand and by loops."""

import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax.ops import returns


def test_by_hand():
  ret = returns.lambda_return(
    jnp.array([1.0, 2.0]), jnp.array([9.0, 3.0]), jnp.array(4.0), 0.5, 0.5
  )
  np.testing.assert_allclose(ret, [2.75, 4.0])


def test_equals_a_loop_from_the_end():
  rng = np.random.default_rng(0)
  H, N, discount, lam = 5, 3, 0.9, 0.7
  reward, value = rng.normal(size=(2, H, N)).astype(np.float32)
  last = rng.normal(size=N).astype(np.float32)
  expected = np.zeros((H, N))
  for n in range(N):
    for t in reversed(range(H)):
      if t == H - 1:
        expected[t, n] = reward[t, n] + discount * last[n]
      else:
        mixed = (1 - lam) * value[t + 1, n] + lam * expected[t + 1, n]
        expected[t, n] = reward[t, n] + discount * mixed
  ret = returns.lambda_return(reward, value, last, discount, lam)
  np.testing.assert_allclose(ret, expected, rtol=1e-5)


def test_last_value_of_another_shape_raises():
  with pytest.raises(AssertionError):
    returns.lambda_return(
      jnp.ones([3, 2]), jnp.ones([3, 2]), jnp.ones([3]), 0.9, 0.9
    )
