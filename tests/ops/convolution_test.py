"""Convolutions in other forms against the plain one, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax.ops import convolution

_SAME = ((1, 1), (1, 1))


def _normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape)


def _plain(x, kernel, strides, padding):
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def _agree(found, expected, *inputs):
  """In value, and in the gradients of all inputs, to rounding in float64.

  In one program: operation by operation, dozens would be compiled.
  """

  @jax.jit
  def both(inputs, dy):
    results = []
    for form in (found, expected):
      y, vjp = jax.vjp(form, *inputs)
      results.append((y, *vjp(dy)))
    return results

  with jax.enable_x64(True):
    inputs = [jnp.asarray(x, jnp.float64) for x in inputs]
    dy = jnp.asarray(_normal(9, *jax.eval_shape(expected, *inputs).shape))
    one, other = both(inputs, dy)
    assert one[0].dtype == jnp.float64
    for a, b in zip(one, other, strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize('C', [1, 3, 4, 8, 16])
@pytest.mark.parametrize('F', [1, 3, 4, 8, 16])
@pytest.mark.parametrize(('h', 'w'), [(8, 8), (5, 12), (4, 7), (3, 6)])
def test_folded_columns_change_nothing(C, F, h, w):
  _agree(
    lambda x, k: convolution.convolve(x, k, (1, 1), _SAME),
    lambda x, k: _plain(x, k, (1, 1), _SAME),
    _normal(0, 2, h, w, C),
    _normal(1, 3, 3, C, F),
  )


@pytest.mark.parametrize(
  ('size', 'strides', 'padding', 'w'),
  [
    ((3, 3), (2, 2), _SAME, 16),
    ((3, 3), (2, 2), _SAME, 6),
    ((3, 3), (2, 2), _SAME, 7),
    ((4, 4), (2, 2), 'SAME', 16),
    ((4, 4), (2, 2), 'VALID', 16),
    ((4, 4), (1, 1), 'VALID', 8),
    ((3, 5), (1, 2), 'SAME', 8),
    ((5, 5), (1, 1), 'SAME', 8),
    ((1, 1), (1, 1), 'SAME', 8),
    ((2, 2), (1, 1), ((0, 1), (0, 1)), 8),
    ((2, 7), (1, 1), ((0, 0), (6, 0)), 8),
    ((1, 7), (1, 1), ((0, 0), (0, 6)), 8),
  ],
)
def test_folding_knows_strides_and_padding(size, strides, padding, w):
  C, F = 3, 4
  _agree(
    lambda x, k: convolution.convolve(x, k, strides, padding),
    lambda x, k: _plain(x, k, strides, padding),
    _normal(0, 2, 6, w, C),
    _normal(1, *size, C, F),
  )


def _shapes_of_convolutions(function, *shapes):
  jaxpr = jax.make_jaxpr(function)(*(jnp.zeros(s) for s in shapes))
  return [
    eqn.invars[1].aval.shape
    for eqn in jax.tree.leaves(
      [_equations(jaxpr.jaxpr)], is_leaf=lambda x: hasattr(x, 'primitive')
    )
    if eqn.primitive.name == 'conv_general_dilated'
  ]


def _equations(jaxpr):
  found = list(jaxpr.eqns)
  for eqn in jaxpr.eqns:
    for value in eqn.params.values():
      inner = getattr(value, 'jaxpr', value)
      found += _equations(inner) if hasattr(inner, 'eqns') else []
  return found


def test_narrow_maps_are_folded_and_wide_ones_are_not():
  def kernels(C, F, w):
    return _shapes_of_convolutions(
      lambda x, k: convolution.convolve(x, k, (1, 1), _SAME),
      (1, 8, w, C),
      (3, 3, C, F),
    )

  assert kernels(8, 8, 8) == [(3, 3, 16, 16)]
  assert kernels(4, 4, 8) == [(3, 3, 16, 16)]
  assert kernels(4, 4, 6) == [(3, 3, 8, 8)]
  assert kernels(4, 4, 7) == [(3, 3, 4, 4)]
  assert kernels(4, 16, 8) == [(3, 3, 4, 16)]
  assert kernels(48, 48, 8) == [(3, 3, 48, 48)]


@pytest.mark.parametrize('n', [3, 5, 7])
@pytest.mark.parametrize('F', [1, 4, 9, 16])
@pytest.mark.parametrize(('h', 'w'), [(1, 1), (1, 6), (4, 4), (5, 3)])
def test_a_convolution_of_a_doubled_map_is_one_of_the_map(n, F, h, w):
  half = n // 2
  _agree(
    convolution.convolve_doubled,
    lambda x, k: _plain(
      convolution.double(x), k, (1, 1), ((half, half), (half, half))
    ),
    _normal(0, 2, h, w, 3),
    _normal(1, n, n, 3, F),
  )


def test_a_doubled_map_is_not_made():
  """Wide: a kernel per sub-pixel, 16 products of 36. Narrow: one for all."""
  x, kernel = jnp.zeros((1, 8, 8, 48)), jnp.zeros((3, 3, 48, 48))
  lowered = jax.jit(convolution.convolve_doubled).lower(x, kernel).as_text()
  assert lowered.count('stablehlo.convolution') == 4
  assert '18x18' not in lowered
  narrow = _shapes_of_convolutions(
    convolution.convolve_doubled, (1, 8, 8, 16), (3, 3, 16, 4)
  )
  assert narrow == [(3, 3, 16, 16)]


def test_accelerators_convolve_the_doubled_map_if_it_is_wide():
  """Where that moves fewer bytes; the gradients too."""

  def both(x, kernel):
    y, vjp = jax.vjp(convolution.convolve_doubled, x, kernel)
    return y, vjp(y)

  x, kernel = jnp.zeros((1, 8, 8, 48)), jnp.zeros((3, 3, 48, 48))
  for platform, count in (('tpu', 3), ('cuda', 3), ('cpu', 12)):
    exported = jax.export.export(jax.jit(both), platforms=[platform])(x, kernel)
    found = exported.mlir_module().count('stablehlo.convolution')
    assert found == count, platform


def test_doubling_repeats_the_nearest_pixel():
  x = np.arange(4.0).reshape(1, 2, 2, 1)
  np.testing.assert_array_equal(
    convolution.double(x)[0, :, :, 0],
    [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]],
  )


def test_they_compute_in_the_type_of_the_map():
  x = jnp.ones((1, 4, 4, 3), jnp.bfloat16)
  kernel = jnp.ones((3, 3, 3, 4), jnp.bfloat16)
  assert convolution.convolve(x, kernel, (1, 1), _SAME).dtype == jnp.bfloat16
  doubled = convolution.convolve_doubled(x, kernel.astype(jnp.float32))
  assert doubled.dtype == jnp.bfloat16
