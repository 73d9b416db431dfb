"""Tests of layers: the GRU and residual layer against NumPy, initialisers."""

import jax
import numpy as np
import paper_in_numpy
import random_inputs

from drp_jax.models import layers


def test_gru_equals_numpy():
  D, X = 5, 3
  rng = np.random.default_rng(0)
  h, x = rng.normal(size=(2, D)), rng.normal(size=(2, X))
  gru = layers.GRU()
  shapes = jax.eval_shape(gru.init, jax.random.key(0), h, x)
  params = random_inputs.fill(shapes)
  expected = paper_in_numpy.gru(params['params'], h, x)
  np.testing.assert_allclose(gru.apply(params, h, x), expected, atol=1e-5)


def test_batch_norm_trains_on_the_batch_and_acts_on_running_statistics():
  rng = np.random.default_rng(0)
  x = rng.normal(3.0, 2.0, (6, 4, 4, 2)).astype(np.float32)
  norm = layers.BatchNorm()
  variables = norm.init(jax.random.key(0), x, False)
  y, updated = norm.apply(variables, x, True, mutable=['batch_stats'])
  mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
  np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=1e-4)
  stats = jax.tree.map(np.asarray, updated['batch_stats']['norm'])
  np.testing.assert_allclose(stats['mean'], 0.1 * mean, rtol=1e-4)
  unbiased = x.var((0, 1, 2), ddof=1)
  np.testing.assert_allclose(stats['var'], 0.9 + 0.1 * unbiased, rtol=1e-5)
  acted = norm.apply({**variables, **updated}, x, False)
  expected = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  np.testing.assert_allclose(acted, expected, atol=1e-4)


def _norm(x, params, stats):
  x = (x - stats['mean']) / np.sqrt(stats['var'] + 1e-5)
  return x * params['scale'] + params['bias']


def _conv(x, kernel):
  """3x3 or 1x1, SAME, stride 1, by shifts."""
  size = kernel.shape[0]
  pad = size // 2
  padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  H, W = x.shape[1:3]
  return sum(
    padded[:, i : i + H, j : j + W] @ kernel[i, j]
    for i in range(size)
    for j in range(size)
  )


def test_residual_skips_what_it_is_told_to():
  rng = np.random.default_rng(0)
  x, skip = rng.normal(size=(2, 2, 4, 4, 3))
  layer = layers.Residual(5)
  variables = random_inputs.fill(
    jax.eval_shape(
      lambda key: layer.init(key, x, False, skip), jax.random.key(0)
    )
  )
  p = variables['params']

  def norm(x, name):
    stats = variables['batch_stats'][name]['norm']
    return _norm(x, p[name]['norm'], stats)

  h = np.maximum(norm(_conv(x, p['conv1']['kernel']), 'norm1'), 0)
  h = norm(_conv(h, p['conv2']['kernel']), 'norm2')
  kept = norm(_conv(skip, p['conv_skip']['kernel']), 'norm_skip')
  out = layer.apply(variables, x, False, skip)
  np.testing.assert_allclose(out, np.maximum(h + kept, 0), atol=1e-4)


def test_residual_of_the_same_width_has_no_skip_convolution():
  x = np.zeros((1, 4, 4, 3), np.float32)
  shapes = jax.eval_shape(
    lambda key: layers.Residual(3).init(key, x, False), jax.random.key(0)
  )
  names = {'conv1', 'norm1', 'conv2', 'norm2'}
  assert set(shapes['params']) == names
  assert set(shapes['params']['conv1']) == {'kernel'}  # no bias


def test_initialisers_keep_their_limits():
  shape = (200, 50)
  for init, limit in (
    (layers.torch_default_init(200), 1 / np.sqrt(200)),
    (layers.shared_glorot(300, 50), np.sqrt(6 / 350)),
    (layers.glorot, np.sqrt(6 / 250)),
  ):
    values = np.abs(init(jax.random.key(0), shape))
    assert values.max() <= limit
    assert values.max() > 0.99 * limit
