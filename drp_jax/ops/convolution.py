"""Convolutions in forms that suit narrow and doubled maps.

All are equal to `jax.lax.conv_general_dilated` up to rounding, on maps
[N, H, W, C] with kernels [rows, columns, C, F].
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Channels that fill a vector register of CPUs. XLA:CPU takes as long for fewer
# channels.
_LANES = 16
_MAPS = ('NHWC', 'HWIO', 'NHWC')

Padding = tuple[tuple[int, int], tuple[int, int]]


def convolve(
  x: jax.Array,
  kernel: jax.Array,
  strides: tuple[int, int],
  padding: str | Padding,
) -> jax.Array:
  """Convolves, with columns folded into channels if there are few channels.

  Folding f columns multiplies channels by f, and the products by the number of
  zeros in the wider kernel. Only the gradient of the kernel is computed on maps
  that are not folded, where it is faster.

  Args:
    x: [N, H, W, C].
    kernel: [rows, columns, C, F].
    strides: rows and columns from one output pixel to the next.
    padding: rows of zeros above and below, columns left and right; or 'SAME' or
      'VALID'.

  Returns:
    [N, h, w, F].
  """
  if isinstance(padding, str):
    sides = x.shape[1:3], kernel.shape[:2]
    rows, columns = jax.lax.padtype_to_pads(*sides, strides, padding)
  else:
    rows, columns = padding
  pads = (rows[0], rows[1]), (columns[0], columns[1])
  if min(kernel.shape[2:]) > _LANES // 2:
    return _plain(x, kernel, strides, pads)
  return _narrow(x, kernel, strides, pads)


def _plain(x, kernel, strides, padding):
  return jax.lax.conv_general_dilated(
    x, kernel, strides, padding, dimension_numbers=_MAPS
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _narrow(x, kernel, strides, padding):
  """Computes `_plain`, with each of its parts in the faster form."""
  return _folded(x, kernel, strides, padding)


def _narrow_forward(x, kernel, strides, padding):
  return _folded(x, kernel, strides, padding), (x, kernel)


def _narrow_backward(strides, padding, residuals, dy):
  x, kernel = residuals
  _, vjp = jax.vjp(lambda k: _plain(x, k, strides, padding), kernel)
  (d_kernel,) = vjp(dy)
  if strides == (1, 1):
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    beside = tuple(
      (size - 1 - before, size - 1 - after)
      for size, (before, after) in zip(kernel.shape, padding, strict=False)
    )
    dx = _folded(dy, turned, strides, beside)
  else:
    _, vjp = jax.vjp(lambda x: _plain(x, kernel, strides, padding), x)
    (dx,) = vjp(dy)
  return dx, d_kernel


_narrow.defvjp(_narrow_forward, _narrow_backward)


def _folded(x, kernel, strides, padding):
  """Convolves with as many columns in a channel as fill a register."""
  (N, H, W, C), F, s = x.shape, kernel.shape[-1], strides[1]
  before, after = padding[1]
  w = (W + before + after - kernel.shape[1]) // s + 1
  f = 1
  while 2 * f * F <= _LANES and w % (2 * f) == 0:
    f *= 2
  if f == 1 or W != s * w:
    return _plain(x, kernel, strides, padding)
  folded, beside = _fold(kernel, f, s, before)
  y = _plain(
    x.reshape(N, H, w // f, f * s * C),
    folded,
    (strides[0], 1),
    (padding[0], beside),
  )
  return y.reshape(N, y.shape[1], w, F)


def _fold(kernel, f, stride, before):
  """Makes a kernel that computes f columns of the output at once.

  Args:
    kernel: [rows, n, C, F].
    f: output columns in a channel; of the input it is f * stride.
    stride: of the columns.
    before: columns of zeros left of the input.

  Returns:
    [rows, m, f * stride * C, f * F], and the padding of its columns.
  """
  rows, n, C, F = kernel.shape
  step = f * stride
  left = -(-before // step)
  right = max(0, (step - stride - before + n - 1) // step)
  m = left + 1 + right
  starts = [left * step - before + stride * i for i in range(f)]
  columns = [
    jnp.pad(kernel, ((0, 0), (i, m * step - n - i), (0, 0), (0, 0)))
    for i in starts
  ]
  folded = jnp.stack(columns, 3)  # [rows, m step, C, f, F]
  return folded.reshape(rows, m, step * C, f * F), (left, right)


def convolve_to_cells(
  x: jax.Array, taps: jax.Array, padding: tuple[int, int]
) -> jax.Array:
  """Upsamples 2x, with one kernel per output sub-pixel.

  Args:
    x: [N, h, w, C].
    taps: [n, n, C, 2, 2, F], kernels by row and column of their sub-pixel.
    padding: rows of zeros above and below, columns left and right.

  Returns:
    [N, 2h, 2w, F].
  """
  (N, h, w, C), F = x.shape, taps.shape[-1]
  kernel = taps.reshape(*taps.shape[:2], C, -1)
  y = convolve(x, kernel, (1, 1), (padding, padding))
  y = y.reshape(N, h, w, 2, 2, F).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(N, 2 * h, 2 * w, F)


def double(x: jax.Array) -> jax.Array:
  """Doubles a map by nearest neighbor: [N, h, w, C] -> [N, 2h, 2w, C]."""
  return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def convolve_doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves `double(x)` and keeps its sides, without making it.

  Taps that fall on the same pixel of x are added up first. If there are many
  channels, and each sub-pixel has another window, only CPUs do so, because TPUs
  would move more bytes.

  Args:
    x: [N, h, w, C].
    kernel: [n, n, C, F], float32, n odd.

  Returns:
    [N, 2h, 2w, F], in the type of x.
  """
  first, second = _windows(len(kernel))
  if kernel.shape[-1] > _LANES // 2 and first != second:
    return _wide_doubled(x, kernel)
  taps = _sub_pixels(x, kernel)
  half = len(taps) // 2
  return convolve_to_cells(x, taps, (half, half))


@jax.custom_vjp
def _wide_doubled(x, kernel):
  return jax.lax.platform_dependent(
    x, kernel, cpu=_by_sub_pixel, default=_of_doubled
  )


def _wide_doubled_forward(x, kernel):
  return _wide_doubled(x, kernel), (x, kernel)


def _wide_doubled_backward(residuals, dy):
  def backward(function):
    return lambda dy, *inputs: jax.vjp(function, *inputs)[1](dy)

  return jax.lax.platform_dependent(
    dy, *residuals, cpu=backward(_by_sub_pixel), default=backward(_of_doubled)
  )


_wide_doubled.defvjp(_wide_doubled_forward, _wide_doubled_backward)


def _of_doubled(x, kernel):
  half = len(kernel) // 2
  padding = ((half, half), (half, half))
  return _plain(double(x), kernel.astype(x.dtype), (1, 1), padding)


def _by_sub_pixel(x, kernel):
  """Convolves for each sub-pixel with the taps that it uses."""
  (N, h, w, _), taps = x.shape, _sub_pixels(x, kernel)
  windows, half = _windows(len(kernel)), len(taps) // 2
  rows = []
  for i, (top, bottom) in enumerate(windows):
    pixels = []
    for j, (left, right) in enumerate(windows):
      part = taps[top : bottom + 1, left : right + 1, :, i, j]
      padding = ((half - top, bottom - half), (half - left, right - half))
      pixels.append(_plain(x, part, (1, 1), padding))
    rows.append(jnp.stack(pixels, 3))  # [N, h, w, 2, F]
  return jnp.stack(rows, 2).reshape(N, 2 * h, 2 * w, -1)


def _sub_pixels(x, kernel):
  """Computes kernels [m, m, C, 2, 2, F] of sub-pixels, in the type of x."""
  falls_on = _falls_on(len(kernel))
  taps = jnp.einsum(
    'imk,jnl,klcf->mncijf',
    falls_on,
    falls_on,
    kernel,
    precision=jax.lax.Precision.HIGHEST,  # they are sums of parameters
  )
  return taps.astype(x.dtype)


def _windows(n):
  """Returns first and last pixel that taps fall on, for both sub-pixels."""
  used = (np.flatnonzero(part.any(-1)) for part in _falls_on(n))
  return [(int(pixels[0]), int(pixels[-1])) for pixels in used]


def _falls_on(n: int) -> np.ndarray:
  """Computes where taps of an n x n convolution of a doubled map fall.

  Returns:
    [2, m, n], float32: whether, for pixels 2i and 2i + 1, tap l falls on pixel
    i - m // 2 + k of the map before doubling.
  """
  half = (n // 2 + 1) // 2
  table = np.zeros((2, 2 * half + 1, n), np.float32)
  for place in range(2):
    for tap in range(n):
      table[place, half + (place + tap - n // 2) // 2, tap] = 1.0
  return table
