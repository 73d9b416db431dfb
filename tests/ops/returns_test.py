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


def test_last_value_of_another_shape_raises():
  with pytest.raises(AssertionError):
    returns.lambda_return(
      jnp.ones([3, 2]), jnp.ones([3, 2]), jnp.ones([3]), 0.9, 0.9
    )
