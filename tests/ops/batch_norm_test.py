"""The norm's backward pass of its own against automatic differentiation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax.ops import batch_norm

_D = 4  # devices, see conftest.py


def _plain(x, scale, bias, axis_name):
  """Flax's form, by automatic differentiation."""
  axes = tuple(range(x.ndim - 1))
  mean, square = x.mean(axes), jnp.square(x).mean(axes)
  if axis_name is not None:
    mean, square = jax.lax.pmean((mean, square), axis_name)
  var = jnp.maximum(0.0, square - jnp.square(mean))
  row = (1,) * len(axes) + (-1,)
  y = (x - mean.reshape(row)) * jax.lax.rsqrt(var.reshape(row) + 1e-5)
  return y * scale.reshape(row) + bias.reshape(row), mean, var


def _inputs(*shape):
  rng = np.random.default_rng(list(shape))
  x = rng.normal(1.0, 2.0, shape)
  scale, bias = rng.normal(size=(2, shape[-1]))
  dy = rng.normal(size=shape)
  return x, scale, bias, dy


def _gradients(function, axis_name, x, scale, bias, dy):
  """Outputs, and gradients of x, scale and bias; two norms, one on another."""

  def twice(x, scale, bias):
    y, mean, var = function(x, scale, bias, axis_name)
    y, *_ = function(jnp.tanh(y), scale, bias, axis_name)
    return y, (mean, var)

  y, vjp, moments = jax.vjp(twice, x, scale, bias, has_aux=True)
  return y, vjp(dy), moments


def _check(found, expected, atol):
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol),
    found,
    expected,
  )


_SHAPES = [(6, 4, 4, 2), (3, 5, 7, 3), (9, 1), (2, 3)]


@pytest.mark.parametrize('shape', _SHAPES)
def test_gradients_are_those_of_automatic_differentiation(shape):
  with jax.enable_x64(True):
    inputs = [jnp.asarray(x) for x in _inputs(*shape)]
    found = _gradients(batch_norm.normalize, None, *inputs)
    assert found[0].dtype == jnp.float64
    _check(found, _gradients(_plain, None, *inputs), 1e-12)


@pytest.mark.parametrize('shape', _SHAPES)
def test_devices_share_statistics_and_their_gradients(shape):
  """As one device with all rows, and as automatic differentiation there."""
  x, scale, bias, dy = _inputs(_D, *shape)

  def on_devices(function):
    mapped = functools.partial(_gradients, function, 'i')
    return jax.pmap(mapped, 'i', in_axes=(0, None, None, 0))(x, scale, bias, dy)

  with jax.enable_x64(True):
    found = on_devices(batch_norm.normalize)
    _check(found, on_devices(_plain), 1e-12)
    rows = (-1, *shape[1:])
    together = _gradients(
      _plain, None, x.reshape(rows), scale, bias, dy.reshape(rows)
    )
    y, (dx, d_scale, d_bias), moments = found
    np.testing.assert_allclose(y.reshape(rows), together[0], atol=1e-12)
    np.testing.assert_allclose(dx.reshape(rows), together[1][0], atol=1e-12)
    np.testing.assert_allclose(d_scale.sum(0), together[1][1], atol=1e-12)
    np.testing.assert_allclose(d_bias.sum(0), together[1][2], atol=1e-12)
    _check([m[0] for m in moments], list(together[2]), 1e-12)


def test_a_constant_channel_stays_finite():
  x = jnp.broadcast_to(jnp.array([0.1, -3.0]), (4, 3, 2))
  y, vjp = jax.vjp(
    lambda x: batch_norm.normalize(x, jnp.ones(2), jnp.zeros(2), None)[0], x
  )
  assert np.abs(y).max() < 1e-2
  assert np.isfinite(vjp(jnp.ones_like(x))[0]).all()


def test_bfloat16_is_normalized_in_float32():
  x, scale, bias, dy = (jnp.float32(x) for x in _inputs(64, 4, 2))
  x, dy = x.astype(jnp.bfloat16), dy.astype(jnp.bfloat16)
  y, vjp = jax.vjp(
    lambda *args: batch_norm.normalize(*args, None)[0], x, scale, bias
  )
  wide, wide_vjp = jax.vjp(
    lambda *args: _plain(*args, None)[0], jnp.float32(x), scale, bias
  )
  assert y.dtype == jnp.bfloat16
  np.testing.assert_array_equal(y, wide.astype(jnp.bfloat16))
  found, expected = vjp(dy), wide_vjp(jnp.float32(dy))
  assert [g.dtype for g in found] == [jnp.bfloat16, jnp.float32, jnp.float32]
  np.testing.assert_allclose(
    np.float32(found[0]), expected[0], rtol=2**-8, atol=1e-3
  )
  np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)


def test_only_the_input_is_kept():
  """No second map of the size of x is handed to the backward pass."""
  x, scale, bias, _ = (jnp.float32(x) for x in _inputs(64, 4, 8))
  _, vjp = jax.vjp(
    lambda *args: batch_norm.normalize(*args, None)[0], x, scale, bias
  )
  kept = [leaf for leaf in jax.tree.leaves(vjp) if leaf.size >= x.size]
  assert len(kept) == 1


def _lowered(platform):
  def both(x, scale, kernel):
    y, vjp = jax.vjp(
      lambda *args: batch_norm.normalize_and_convolve(*args, None)[0],
      x,
      scale,
      scale,
      kernel,
    )
    return vjp(y)

  shapes = (jnp.zeros(s) for s in ((2, 4, 4, 16), (16,), (3, 3, 16, 16)))
  export = jax.export.export(jax.jit(both), platforms=[platform])
  return export(*shapes).mlir_module()


def test_only_cpus_compute_activations_again():
  """On TPUs it would move a fifth more bytes."""
  assert 'optimization_barrier' in _lowered('cpu')
  assert 'optimization_barrier' not in _lowered('tpu')
  assert 'optimization_barrier' not in _lowered('cuda')
