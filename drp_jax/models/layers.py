"""Small layers that several models share.

All compute in the type of their input, float32 or bfloat16; parameters, and
what norms average, are float32. So the type of the images that enter a model is
the type it computes in.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp


def uniform_init(limit: float) -> Callable:
  """Initialiser U(-limit, limit)."""

  def init(key, shape, dtype=jnp.float32):
    # Drawn in a row, the same numbers: XLA:CPU compiles draws of several axes
    # five times as long, a minute for a whole model.
    row = jax.random.uniform(key, (math.prod(shape),), dtype, -limit, limit)
    return row.reshape(shape)

  return init


def glorot(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
  """Initialiser of kernels [..., in, out], Glorot and Bengio's uniform one."""
  window = math.prod(shape[:-2])
  limit = math.sqrt(6.0 / (window * (shape[-2] + shape[-1])))
  return uniform_init(limit)(key, shape, dtype)


def torch_default_init(fan_in: int) -> Callable:
  """PyTorch's default for dense and conv kernels: U(+-1/sqrt(fan_in)) [IPV]."""
  return uniform_init(1.0 / math.sqrt(fan_in))


def shared_glorot(fan_in: int, fan_out: int) -> Callable:
  """Glorot-uniform for one part of a dense layer with several inputs."""
  return uniform_init(math.sqrt(6.0 / (fan_in + fan_out)))


def in_type_of_first(x, *params, dtype=None):
  """Casts parameters (or None) to the type of x; a layer's `promote_dtype`."""
  del dtype
  return [x, *(p if p is None else p.astype(x.dtype) for p in params)]


class Dense(nn.Dense):
  """`nn.Dense` on a matrix, whatever the number of leading axes.

  XLA:CPU computes the gradient of the kernel three times slower when it has to
  contract several axes.
  """

  kernel_init: Callable = glorot
  promote_dtype: Callable = in_type_of_first

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., F] -> [..., features]."""
    y = super().__call__(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], self.features)


class Conv(nn.Conv):
  """`nn.Conv` in the type of its input."""

  kernel_init: Callable = glorot
  promote_dtype: Callable = in_type_of_first


class ConvTranspose(nn.ConvTranspose):
  """`nn.ConvTranspose` in the type of its input."""

  kernel_init: Callable = glorot
  promote_dtype: Callable = in_type_of_first


def conv_to_cells(
  x: jax.Array, taps: jax.Array, padding: tuple[int, int]
) -> jax.Array:
  """A convolution that makes 2x2 pixels of each: one for every place in them.

  Args:
    x: [N, h, w, C].
    taps: [n, n, C, 2, 2, F], kernels by row and column of their place.
    padding: rows of zeros above and below, columns left and right.

  Returns:
    [N, 2h, 2w, F].
  """
  N, h, w, C = x.shape
  n, F = len(taps), taps.shape[-1]
  y = jax.lax.conv_general_dilated(
    x,
    taps.reshape(n, n, C, -1),
    (1, 1),
    (padding, padding),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  y = y.reshape(N, h, w, 2, 2, F).transpose(0, 1, 3, 2, 4, 5)
  return y.reshape(N, 2 * h, 2 * w, F)


class LayerNorm(nn.LayerNorm):
  """`nn.LayerNorm` that returns the type of its input."""

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., F] -> [..., F]."""
    return super().__call__(x).astype(x.dtype)


class MLP(nn.Module):
  """Dense + ELU layers, then a linear output.

  Attributes:
    features: output width.
    width: hidden width.
    depth: number of hidden layers.
    out_init: of the output's kernel.
  """

  features: int
  width: int
  depth: int
  out_init: Callable = glorot

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., F] -> [..., features]."""
    for i in range(self.depth):
      x = nn.elu(Dense(self.width, name=f'dense{i}')(x))
    return Dense(self.features, kernel_init=self.out_init, name='out')(x)


class BatchNorm(nn.Module):
  """Batch normalisation as in PyTorch: eps 1e-5, momentum 0.9 in Flax's sense.

  The running variance averages unbiased estimates.

  Attributes:
    axis_name: device axis over which statistics are averaged, or None.
  """

  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    norm = nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      axis_name=self.axis_name if train else None,
      dtype=x.dtype,
      name='norm',
    )
    if not train or self.is_initializing():
      return norm(x)
    old = norm.get_variable('batch_stats', 'var')
    y = norm(x)
    new = norm.get_variable('batch_stats', 'var')  # of the biased variance
    count = x.size // x.shape[-1]
    if self.axis_name is not None:
      count *= jax.lax.axis_size(self.axis_name)
    norm.put_variable(
      'batch_stats', 'var', new + (new - 0.9 * old) / (count - 1)
    )
    return y


class Residual(nn.Module):
  """Residual layer of the image towers  [IPV].

  main: conv3x3 - norm - ReLU - conv3x3 - norm; skip: identity, or conv1x1 -
  norm where the width changes; ReLU of their sum. No biases.

  Attributes:
    features: output channels.
    axis_name: device axis for batch norm.
  """

  features: int
  axis_name: str | None = None

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, skip: jax.Array | None = None
  ) -> jax.Array:
    """Applies the layer.

    Args:
      x: [N, H, W, C], what the main path acts on.
      train: batch statistics (True) or running ones.
      skip: [N, H, W, C], what the skip path acts on; x where None.

    Returns:
      [N, H, W, features].
    """
    skip = x if skip is None else skip
    C = x.shape[-1]

    def conv(x, size, name):
      return Conv(
        self.features,
        (size, size),
        padding='SAME',
        use_bias=False,
        kernel_init=torch_default_init(x.shape[-1] * size * size),
        name=name,
      )(x)

    def norm(x, name):
      return BatchNorm(self.axis_name, name=name)(x, train)

    h = nn.relu(norm(conv(x, 3, 'conv1'), 'norm1'))
    h = norm(conv(h, 3, 'conv2'), 'norm2')
    if C != self.features:
      skip = norm(conv(skip, 1, 'conv_skip'), 'norm_skip')
    return nn.relu(h + skip)


# Computed once more in the backward pass instead of kept for it.
RecomputedResidual = nn.remat(Residual, static_argnums=(2,))


class GRU(nn.Module):
  """GRU cell with one LayerNorm over all gates  [IPV].

  The reset gate multiplies the candidate's pre-activation, and the update gate
  has a bias of -1.

  Attributes:
    epsilon: what the norm adds to variances.
  """

  epsilon: float = 1e-3

  @nn.compact
  def __call__(self, h: jax.Array, x: jax.Array) -> jax.Array:
    """h [..., D], x [..., X] -> the next h [..., D]."""
    D = h.shape[-1]
    fan_in = D + x.shape[-1]
    parts = Dense(
      3 * D,
      kernel_init=torch_default_init(fan_in),
      bias_init=torch_default_init(fan_in),
      name='dense',
    )(jnp.concatenate([x, h], -1))
    parts = LayerNorm(epsilon=self.epsilon, name='norm')(parts)
    reset, cand, update = jnp.split(parts, 3, -1)
    cand = jnp.tanh(jax.nn.sigmoid(reset) * cand)
    update = jax.nn.sigmoid(update - 1.0)
    return update * cand + (1.0 - update) * h
