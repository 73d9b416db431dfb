"""Batch normalization with a custom backward pass."""

import functools

import jax
import jax.numpy as jnp

from drp_jax.ops import convolution

_EPSILON = 1e-5


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalize(
  x: jax.Array, scale: jax.Array, bias: jax.Array, axis_name: str | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalizes by statistics of the batch.

  Only x is kept for the backward pass.

  Args:
    x: [..., C].
    scale: [C], float32.
    bias: [C], float32.
    axis_name: device axis over which statistics are averaged, or None.

  Returns:
    x normalized, in its type, and the mean and the biased variance [C], float32
    (or float64), which pass no gradients.
  """
  out, _ = _forward(x, scale, bias, axis_name)
  return out


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def normalize_and_convolve(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  kernel: jax.Array,
  axis_name: str | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalizes, applies ReLU, then convolves and keeps the sides.

  On CPUs, where memory limits the backward pass, the input of the convolution
  is not kept but recomputed from x. Accelerators keep it, because recomputing
  would move more bytes.

  Args:
    x: [N, H, W, C].
    scale: [C], float32.
    bias: [C], float32.
    kernel: [n, n, C, F], in the type of x, n odd.
    axis_name: device axis over which statistics are averaged, or None.

  Returns:
    [N, H, W, F], and mean and variance as `normalize` returns them.
  """
  out, _ = _convolve_forward(x, scale, bias, kernel, axis_name)
  return out


def apply(
  x: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
) -> jax.Array:
  """Normalizes x [..., C] by given statistics [C]; returns its type."""
  return _apply(x, mean, jax.lax.rsqrt(var + _EPSILON), scale, bias)


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
  """Applies ReLU and keeps only its output for the backward pass."""
  return jnp.maximum(x, 0)


def _relu_forward(x):
  y = jnp.maximum(x, 0)
  return y, y


def _relu_backward(y, dy):
  return (jnp.where(y > 0, dy, jnp.zeros_like(dy)),)


relu.defvjp(_relu_forward, _relu_backward)


def _apply(x, mean, inverse, scale, bias):
  row = (1,) * (x.ndim - 1) + (-1,)
  y = (x - mean.reshape(row)) * (inverse * scale).reshape(row)
  return (y + bias.reshape(row)).astype(x.dtype)


def _forward(x, scale, bias, axis_name):
  axes = tuple(range(x.ndim - 1))
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  mean, square = _average(
    jnp.stack([wide.mean(axes), jnp.square(wide).mean(axes)]), axis_name
  )
  var = jnp.maximum(0.0, square - jnp.square(mean))
  inverse = jax.lax.rsqrt(var + _EPSILON)
  y = _apply(x, mean, inverse, scale, bias)
  return (y, mean, var), (x, mean, inverse, scale, bias)


def _backward(axis_name, residuals, cotangents):
  x, mean, inverse, scale, bias = residuals
  x, dy = _on_cpus_apart((x, cotangents[0]))
  axes = tuple(range(x.ndim - 1))
  row = (1,) * len(axes) + (-1,)
  wide = jnp.promote_types(x.dtype, jnp.float32)
  dy = dy.astype(wide)
  centered = (x.astype(wide) - mean.reshape(row)) * inverse.reshape(row)
  d_scale, d_bias = (dy * centered).sum(axes), dy.sum(axes)
  count = x.size // x.shape[-1]
  by_scale, by_bias = _average(jnp.stack([d_scale, d_bias]) / count, axis_name)
  dx = dy - by_bias.reshape(row) - centered * by_scale.reshape(row)
  dx = (dx * (inverse * scale).reshape(row)).astype(x.dtype)
  # Otherwise it is computed again in what transposes it for the gradient of
  # the kernel.
  dx = _on_cpus_apart(dx)
  return dx, d_scale.astype(scale.dtype), d_bias.astype(bias.dtype)


normalize.defvjp(_forward, _backward)


def _convolve(x, kernel):
  return convolution.convolve(x, kernel, (1, 1), 'SAME')


def _convolve_forward(x, scale, bias, kernel, axis_name):
  (y, mean, var), residuals = _forward(x, scale, bias, axis_name)
  y = relu(y)
  return (_convolve(y, kernel), mean, var), (residuals, kernel, y)


def _convolve_backward(axis_name, residuals, cotangents):
  (x, *moments), kernel, y = residuals
  x, dz = _on_cpus_apart((x, cotangents[0]))
  y = jax.lax.platform_dependent(
    y,
    x,
    *moments,
    cpu=lambda _, *residuals: relu(_apply(*residuals)),
    default=lambda y, *_: y,
  )
  _, vjp = jax.vjp(_convolve, y, kernel)
  dy, d_kernel = vjp(dz)
  (dy,) = _relu_backward(y, dy)
  dx, d_scale, d_bias = _backward(axis_name, (x, *moments), (dy, None, None))
  return dx, d_scale, d_bias, d_kernel


normalize_and_convolve.defvjp(_convolve_forward, _convolve_backward)


def _on_cpus_apart(tree):
  """Returns the arrays behind a barrier, so that XLA:CPU treats them as new.

  XLA:CPU then recomputes values that depend on them instead of keeping them
  from the forward pass. TPUs would move more bytes.
  """
  return jax.lax.platform_dependent(
    tree, cpu=jax.lax.optimization_barrier, default=lambda tree: tree
  )


def _average(x, axis_name):
  return x if axis_name is None else jax.lax.pmean(x, axis_name)
