"""Tests of the block-diagonal GRU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from drp_jax.systems.dreamerv3 import block_gru


def test_a_block_sees_its_own_slice():
  layer = block_gru.BlockDense(6, 2)
  x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
  shapes = jax.eval_shape(layer.init, jax.random.key(0), x)
  assert shapes['params']['kernel'].shape == (2, 4, 3)
  variables = random_inputs.fill(shapes)
  kernel, bias = (variables['params'][name] for name in ('kernel', 'bias'))
  expected = np.concatenate([x[:, :4] @ kernel[0], x[:, 4:] @ kernel[1]], 1)
  found = layer.apply(variables, x)
  np.testing.assert_allclose(found, expected + bias, rtol=1e-5, atol=1e-6)


def test_blocks_have_to_fit():
  with pytest.raises(ValueError, match='blocks=3 must divide the widths 8 and'):
    block_gru.BlockDense(6, 3).init(jax.random.key(0), jnp.zeros([1, 8]))


@pytest.fixture(scope='module')
def gru():
  """A function of state, sample and action, with random weights."""
  model = block_gru.BlockGRU(hidden=5, blocks=4)
  inputs = jnp.zeros([2, 8]), jnp.zeros([2, 6]), jnp.zeros([2, 3])
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  variables = random_inputs.fill(shapes)
  return jax.jit(lambda *args: model.apply(variables, *args))


def _inputs():
  rng = np.random.default_rng(1)
  return [rng.normal(size=(2, n)).astype(np.float32) for n in (8, 6, 3)]


def test_the_state_stays_between_its_old_value_and_the_candidate(gru):
  deter, stoch, action = _inputs()
  new = gru(np.clip(deter, -1, 1), stoch, action)
  assert new.shape == (2, 8) and np.abs(new).max() < 1


def test_every_input_counts_in_every_block(gru):
  for i in range(3):
    inputs = _inputs()
    base = gru(*inputs)
    inputs[i] = inputs[i] + np.linspace(0.1, 0.4, inputs[i].shape[1])
    changed = np.abs(gru(*inputs) - base).reshape(2, 4, 2).max(-1)
    assert np.all(changed > 1e-5)


def test_of_an_action_beyond_its_bounds_the_sign_counts(gru):
  deter, stoch, _ = _inputs()
  action = np.array([[1.0, -1.0, 0.3]] * 2, np.float32)
  wide = np.array([[9.0, -1.5, 0.3]] * 2, np.float32)
  np.testing.assert_array_equal(
    gru(deter, stoch, wide), gru(deter, stoch, action)
  )
