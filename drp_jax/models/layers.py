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

from drp_jax.ops import batch_norm, convolution


def uniform_init(limit: float) -> Callable:
  """Returns an initializer U(-limit, limit)."""

  def init(key, shape, dtype=jnp.float32):
    # Drawn in a row, the same numbers: XLA:CPU compiles draws of several axes
    # five times as long, a minute for a whole model.
    row = jax.random.uniform(key, (math.prod(shape),), dtype, -limit, limit)
    return row.reshape(shape)

  return init


def glorot(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
  """Initializes kernels [..., in, out] by Glorot and Bengio's uniform rule."""
  window = math.prod(shape[:-2])
  limit = math.sqrt(6.0 / (window * (shape[-2] + shape[-1])))
  return uniform_init(limit)(key, shape, dtype)


def torch_default_init(fan_in: int) -> Callable:
  """Returns PyTorch's default for kernels: U(+-1/sqrt(fan_in))  [IPV]."""
  return uniform_init(1.0 / math.sqrt(fan_in))


def shared_glorot(fan_in: int, fan_out: int) -> Callable:
  """Returns Glorot's rule for one part of a dense layer with several inputs."""
  return uniform_init(math.sqrt(6.0 / (fan_in + fan_out)))


def in_type_of_first(x, *params, dtype=None):
  """Casts parameters (or None) to the type of x; serves as `promote_dtype`."""
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
    """Maps [..., F] to [..., features]."""
    y = super().__call__(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], self.features)


class Conv(nn.Module):
  """2-D convolution in the type of its input, fast where channels are few.

  Parameters are those of `nn.Conv`.

  Attributes:
    features: output channels.
    kernel_size: rows and columns of the kernel.
    strides: rows and columns from one output pixel to the next.
    padding: 'SAME', 'VALID', or pairs of zeros by rows and by columns.
    use_bias: whether a bias is added.
    kernel_init: of the kernel.
  """

  features: int
  kernel_size: tuple[int, int]
  strides: tuple[int, int] = (1, 1)
  padding: str | convolution.Padding = 'SAME'
  use_bias: bool = True
  kernel_init: Callable = glorot

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves [N, H, W, C] to [N, h, w, features]."""
    shape = (*self.kernel_size, x.shape[-1], self.features)
    y = self.convolve(x, self.param('kernel', self.kernel_init, shape))
    if self.use_bias:
      zeros = nn.initializers.zeros_init()
      bias = self.param('bias', zeros, (self.features,)).astype(x.dtype)
      y += bias[None, None, None]
    return y

  def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves [N, H, W, C] to [N, h, w, features], in the type of x."""
    return convolution.convolve(
      x, kernel.astype(x.dtype), self.strides, self.padding
    )


class DoublingConv(Conv):
  """Doubles maps by nearest neighbor, then convolves and keeps their sides.

  Computed on the map before it is doubled. Ignores `strides` and `padding`.
  """

  def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves [N, h, w, C] to [N, 2h, 2w, features], in the type of x."""
    return convolution.convolve_doubled(x, kernel)


class ConvTranspose(nn.ConvTranspose):
  """`nn.ConvTranspose` in the type of its input."""

  kernel_init: Callable = glorot
  promote_dtype: Callable = in_type_of_first


class LayerNorm(nn.LayerNorm):
  """`nn.LayerNorm` that returns the type of its input."""

  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalizes [..., F]."""
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
    """Maps [..., F] to [..., features]."""
    for i in range(self.depth):
      x = nn.elu(Dense(self.width, name=f'dense{i}')(x))
    return Dense(self.features, kernel_init=self.out_init, name='out')(x)


class BatchNorm(nn.Module):
  """Batch normalization as in PyTorch: eps 1e-5, momentum 0.9 in Flax's sense.

  The running variance averages unbiased estimates.

  Attributes:
    axis_name: device axis over which statistics are averaged, or None.
    copies: number of pixels of the result that each pixel stands for, where the
      layer is followed by doubling instead of following it.
  """

  axis_name: str | None = None
  copies: int = 1

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, kernel: jax.Array | None = None
  ) -> jax.Array:
    """Normalizes; with a kernel, also applies ReLU and convolves.

    Args:
      x: [..., C].
      train: batch statistics (True) or running ones.
      kernel: None, or [n, n, C, F], float32, of a convolution that keeps sides.

    Returns:
      [..., C], or [N, H, W, F].
    """
    scale, bias, mean, var = Moments(name='norm')(x.shape[-1])
    if kernel is not None:
      kernel = kernel.astype(x.dtype)
    if not train or self.is_initializing():
      y = batch_norm.apply(x, mean.value, var.value, scale, bias)
      if kernel is None:
        return y
      return convolution.convolve(nn.relu(y), kernel, (1, 1), 'SAME')
    if kernel is None:
      y, batch_mean, batch_var = batch_norm.normalize(
        x, scale, bias, self.axis_name
      )
    else:
      y, batch_mean, batch_var = batch_norm.normalize_and_convolve(
        x, scale, bias, kernel, self.axis_name
      )
    count = self.copies * (x.size // x.shape[-1])
    if self.axis_name is not None:
      count *= jax.lax.axis_size(self.axis_name)
    unbiased = batch_var * count / (count - 1)
    mean.value = 0.9 * mean.value + 0.1 * batch_mean
    var.value = 0.9 * var.value + 0.1 * unbiased
    return y


class Moments(nn.Module):
  """Parameters and running statistics of a batch norm, under Flax's names."""

  @nn.compact
  def __call__(self, features: int):
    """Returns scale and bias [features], and variables of mean and variance."""
    ones, zeros = nn.initializers.ones_init(), nn.initializers.zeros_init()
    shape = (features,)
    return (
      self.param('scale', ones, shape),
      self.param('bias', zeros, shape),
      self.variable('batch_stats', 'mean', jnp.zeros, shape),
      self.variable('batch_stats', 'var', jnp.ones, shape),
    )


class Kernel(nn.Module):
  """Kernel of a 3x3 convolution that another layer computes.

  Attributes:
    features: output channels.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns [3, 3, C, features], float32; reads only the shape of x."""
    init = torch_default_init(9 * x.shape[-1])
    return self.param('kernel', init, (3, 3, x.shape[-1], self.features))


class Residual(nn.Module):
  """Residual layer of the image towers  [IPV].

  main: conv3x3 - norm - ReLU - conv3x3 - norm; skip: identity, or conv1x1 -
  norm where the width changes; ReLU of their sum. No biases.

  Attributes:
    features: output channels.
    axis_name: device axis for batch norm.
    doubles: whether maps are doubled by nearest neighbor first. Computed where
      possible before the doubling: the same at a quarter of the cost.
  """

  features: int
  axis_name: str | None = None
  doubles: bool = False

  @nn.compact
  def __call__(
    self, x: jax.Array, train: bool, skip: jax.Array | None = None
  ) -> jax.Array:
    """Applies the layer.

    Args:
      x: [N, H, W, C], what the main path acts on; if `doubles`, already doubled
        where it is larger than `skip`.
      train: batch statistics (True) or running ones.
      skip: [N, H, W, C], or [N, H/2, W/2, C] if `doubles`, what the skip path
        acts on; x where None.

    Returns:
      [N, H, W, features]; [N, 2H, 2W, features] of an x that is doubled.
    """
    skip = x if skip is None else skip
    C = x.shape[-1]
    first = DoublingConv if self.doubles and x.shape == skip.shape else Conv

    def conv(x, size, name, layer=Conv):
      return layer(
        self.features,
        (size, size),
        use_bias=False,
        kernel_init=torch_default_init(x.shape[-1] * size * size),
        name=name,
      )(x)

    def norm(x, name, copies=1):
      return BatchNorm(self.axis_name, copies, name=name)(x, train)

    h = conv(x, 3, 'conv1', first)
    kernel = Kernel(self.features, name='conv2')(h)
    h = BatchNorm(self.axis_name, name='norm1')(h, train, kernel)
    h = norm(h, 'norm2')
    if C != self.features:
      skip = conv(skip, 1, 'conv_skip')
      skip = norm(skip, 'norm_skip', 4 if self.doubles else 1)
    if self.doubles:
      skip = convolution.double(skip)
    return batch_norm.relu(h + skip)


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
    """Computes the next h [..., D] from h [..., D] and x [..., X]."""
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
