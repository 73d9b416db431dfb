"""Tests of DreamerV3's convolution of doubled maps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax.systems.dreamerv3 import layers


@pytest.mark.parametrize(
  ('h', 'w', 'C', 'features'), [(4, 4, 3, 2), (1, 6, 1, 5)]
)
def test_a_doubling_convolution_is_that_of_the_doubled_map(h, w, C, features):
  """With the same parameters, in value and in gradient, at borders too."""
  x = jax.random.normal(jax.random.key(0), (2, h, w, C))
  short = layers.DoublingConv(features, (5, 5))
  long = layers.Conv(features, (5, 5), padding='SAME')
  doubled = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
  params = short.init(jax.random.key(1), x)
  like = long.init(jax.random.key(1), doubled)
  assert jax.tree.all(jax.tree.map(np.array_equal, params, like))
  params = jax.tree.map(lambda p: p + 0.5, params)  # a bias that is not zero

  def plain(params, x):
    return long.apply(params, jnp.repeat(jnp.repeat(x, 2, 1), 2, 2))

  found, found_vjp = jax.vjp(short.apply, params, x)
  expected, expected_vjp = jax.vjp(plain, params, x)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  weights = jax.random.normal(jax.random.key(2), expected.shape)
  for one, other in zip(
    jax.tree.leaves(found_vjp(weights)),
    jax.tree.leaves(expected_vjp(weights)),
    strict=True,
  ):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_it_computes_in_the_type_of_its_input():
  x = jnp.ones((1, 2, 2, 3), jnp.bfloat16)
  y, params = layers.DoublingConv(4, (5, 5)).init_with_output(
    jax.random.key(0), x
  )
  assert y.dtype == jnp.bfloat16
  assert params['params']['kernel'].dtype == jnp.float32
