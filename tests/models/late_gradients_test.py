"""Tests of the scan with late gradients: it is `jax.lax.scan`, to rounding."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax.models import late_gradients, layers

_T, _B, _D, _X = 6, 3, 5, 4


class _Cell(nn.Module):
  """Layers with and without bias, a norm, and a state that comes back."""

  @nn.compact
  def __call__(self, h, x):
    x = nn.elu(layers.Dense(7, use_bias=False, name='inside')(x))
    h = layers.GRU(name='gru')(h, x)
    return h, nn.Dense(2, name='out')(h) ** 2


_CELL = _Cell()


def _step(params, carry, x):
  x, keep = x
  return _CELL.apply({'params': params}, carry * keep, x)


def _inputs(dtype):
  rng = np.random.default_rng(0)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), dtype)

  shapes = jax.eval_shape(
    lambda key: _CELL.init(key, normal(_B, _D), normal(_B, _X)),
    jax.random.key(0),
  )
  params = jax.tree.map(lambda x: normal(*x.shape), shapes['params'])
  keep = jnp.asarray(rng.integers(0, 2, (_T, _B, 1)), dtype)
  return params, normal(_B, _D), (normal(_T, _B, _X), keep)


def _plain(step, params, carry, xs):
  return jax.lax.scan(functools.partial(step, params), carry, xs)


def _gradients(scan, step=_step):
  """A function of (params, carry, xs): value and all gradients."""

  def loss(params, carry, xs):
    last, ys = scan(step, params, carry, xs)
    weight = jnp.arange(_T, dtype=ys.dtype)[:, None, None]
    return jnp.sin(last).sum() + (weight * ys).sum(), (last, ys)

  return jax.value_and_grad(loss, (0, 1, 2), has_aux=True)


def _assert_close(a, b, tolerance):
  def close(x, y):
    x, y = np.float64(x), np.float64(y)
    np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())

  jax.tree.map(close, a, b)


@pytest.mark.parametrize('wrap', [lambda f: f, jax.jit, jax.checkpoint])
def test_values_and_gradients_are_those_of_a_plain_scan(wrap):
  with jax.enable_x64(True):
    inputs = _inputs(jnp.float64)
    late = wrap(functools.partial(late_gradients.scan, _step))
    got = _gradients(lambda _, *args: late(*args))(*inputs)
    _assert_close(got, _gradients(_plain)(*inputs), 1e-12)


def test_gradients_over_devices_are_those_of_a_plain_scan():
  with jax.enable_x64(True):
    params, carry, xs = _inputs(jnp.float64)
    devices = 2
    carry = jnp.stack([carry, 2.0 * carry])
    xs = jax.tree.map(lambda x: jnp.stack([x, -x]), xs)

    def mean_gradients(scan):
      return jax.pmap(
        lambda *args: jax.lax.pmean(_gradients(scan)(*args), 'batch'),
        'batch',
        in_axes=(None, 0, 0),
        devices=jax.devices()[:devices],
      )(params, carry, xs)

    _assert_close(
      mean_gradients(late_gradients.scan), mean_gradients(_plain), 1e-12
    )


def test_layers_with_parameters_from_elsewhere_are_left_alone():
  with jax.enable_x64(True):
    params, carry, xs = _inputs(jnp.float64)

    def step(own, carry, x):
      return _step({**params, **own}, carry, x)

    own = {'out': params['out']}
    _assert_close(
      _gradients(late_gradients.scan, step)(own, carry, xs),
      _gradients(_plain, step)(own, carry, xs),
      1e-12,
    )


def test_in_bfloat16_gradients_of_kernels_add_up_in_float32():
  params, carry, xs = _inputs(jnp.bfloat16)
  params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
  got = jax.jit(_gradients(late_gradients.scan))(params, carry, xs)
  want = jax.jit(_gradients(_plain))(params, carry, xs)
  assert jax.tree.map(jnp.dtype, got) == jax.tree.map(jnp.dtype, want)
  _assert_close(got, want, 0.05)


def test_no_loop_adds_to_the_gradient_of_a_kernel():
  """What is gained; the plain scan shows that the test would see it."""

  def carried(scan):
    jaxpr = jax.make_jaxpr(_gradients(scan))(*_inputs(jnp.float32)).jaxpr
    return {
      var.aval.shape
      for equation in jaxpr.eqns
      if equation.primitive.name == 'scan'
      for var in equation.outvars[: equation.params['num_carry']]
    }

  kernels = {x.shape for x in jax.tree.leaves(_inputs(jnp.float32)[0])}
  kernels = {shape for shape in kernels if len(shape) == 2}
  assert kernels <= carried(_plain)
  assert not kernels & carried(late_gradients.scan)


def test_a_layer_that_is_called_twice_in_a_step_is_refused():
  class Twice(nn.Module):
    @nn.compact
    def __call__(self, x):
      layer = layers.Dense(_D, name='layer')
      return layer(layer(x))

  model = Twice()
  params = model.init(jax.random.key(0), jnp.ones((_B, _D)))['params']

  def loss(params):
    carry, _ = late_gradients.scan(
      lambda params, h, _: (model.apply({'params': params}, h), h),
      params,
      jnp.ones((_B, _D)),
      jnp.ones((_T, 1)),
    )
    return carry.sum()

  with pytest.raises(AssertionError, match='called twice in a step'):
    jax.grad(loss)(params)
