"""Tests of layers: the GRU and residual layer against NumPy, initializers."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import paper_in_numpy
import pytest
import random_inputs

from drp_jax.models import layers
from drp_jax.ops import convolution


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


def test_batch_norm_counts_the_pixels_that_doubling_will_make():
  """The running variance is that of the norm behind the doubling."""
  rng = np.random.default_rng(0)
  x = rng.normal(3.0, 2.0, (1, 2, 3, 2)).astype(np.float32)
  doubled = np.asarray(convolution.double(x))
  before, behind = layers.BatchNorm(copies=4), layers.BatchNorm()
  variables = before.init(jax.random.key(0), x, False)
  y, stats = before.apply(variables, x, True, mutable=['batch_stats'])
  expected, expected_stats = behind.apply(
    variables, doubled, True, mutable=['batch_stats']
  )
  np.testing.assert_allclose(convolution.double(y), expected, atol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
    stats,
    expected_stats,
  )
  # With the pixels before it counted, it would be another.
  _, other = behind.apply(variables, x, True, mutable=['batch_stats'])
  var, wrong = (s['batch_stats']['norm']['var'] for s in (stats, other))
  assert np.abs(var / wrong - 1).min() > 1e-3


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


class _PlainResidual(nn.Module):
  """The residual layer of maps that were doubled, layer by layer, from Flax."""

  features: int
  axis_name: str | None

  @nn.compact
  def __call__(self, x, skip):
    def conv(x, size, name):
      return nn.Conv(self.features, (size, size), use_bias=False, name=name)(x)

    def norm(x, name):
      return _PlainNorm(self.axis_name, name=name)(x)

    h = nn.relu(norm(conv(x, 3, 'conv1'), 'norm1'))
    h = norm(conv(h, 3, 'conv2'), 'norm2')
    if x.shape[-1] != self.features:
      skip = norm(conv(skip, 1, 'conv_skip'), 'norm_skip')
    return nn.relu(h + skip)


class _PlainNorm(nn.Module):
  axis_name: str | None

  @nn.compact
  def __call__(self, x):
    norm = nn.BatchNorm(
      use_running_average=False,
      momentum=0.9,
      axis_name=None if self.is_initializing() else self.axis_name,
      name='norm',
    )
    y = norm(x)
    if not self.is_initializing():
      count = x.size // x.shape[-1] * (4 if self.axis_name else 1)
      old = 0.9 * jnp.ones(x.shape[-1])
      var = norm.get_variable('batch_stats', 'var')
      norm.put_variable(
        'batch_stats', 'var', old + (var - old) * count / (count - 1)
      )
    return y


_RESIDUALS = {
  'kept': layers.Residual,
  'recomputed': layers.RecomputedResidual,
}


@pytest.mark.parametrize(
  ('kept', 'devices'), [('kept', 1), ('kept', 4), ('recomputed', 1)]
)
@pytest.mark.parametrize('doubles', ['no', 'both', 'skip'])
@pytest.mark.parametrize(('features', 'side'), [(8, 3), (4, 4), (16, 3)])
def test_residual_equals_the_plain_one(kept, devices, doubles, features, side):
  """In value, gradients and statistics, in float64, on all devices."""
  axis_name = 'i' if devices > 1 else None
  rng = np.random.default_rng(0)
  C = 8
  small = rng.normal(size=(devices, 2, side, side + 1, C))
  large = rng.normal(size=(devices, 2, 2 * side, 2 * side + 2, C))
  short = _RESIDUALS[kept](features, axis_name, doubles != 'no')
  plain = _PlainResidual(features, axis_name)

  def found(variables, small, large):
    x = large if doubles == 'skip' else small
    return short.apply(variables, x, True, small, mutable=['batch_stats'])

  def expected(variables, small, large):
    skip = small if doubles == 'no' else convolution.double(small)
    x = large if doubles == 'skip' else skip
    return plain.apply(variables, x, skip, mutable=['batch_stats'])

  def gradients(function, params, stats, small, large):
    def loss(params, small, large):
      y, new = function({'params': params, **stats}, small, large)
      return jnp.square(y - 0.3).mean(), (y, new)

    grads, aux = jax.grad(loss, (0, 1, 2), has_aux=True)(params, small, large)
    return grads, aux

  with jax.enable_x64(True):
    arrays = jnp.asarray(small), jnp.asarray(large)
    variables = plain.init(jax.random.key(0), arrays[0][0], arrays[0][0])
    variables = jax.tree.map(lambda x: x.astype(jnp.float64), variables)
    params = random_inputs.fill(variables['params'])
    stats = {'batch_stats': variables['batch_stats']}

    def run(function):
      one = functools.partial(gradients, function)
      if devices == 1:
        return jax.jit(one)(params, stats, *(x[0] for x in arrays))
      return jax.pmap(one, 'i', in_axes=(None, None, 0, 0))(
        params, stats, *arrays
      )

    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12),
      run(found),
      run(expected),
    )


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
