"""Small layers that several models share."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

glorot = nn.initializers.glorot_uniform()


def uniform_init(limit: float) -> Callable:
  """Initialiser U(-limit, limit)."""

  def init(key, shape, dtype=jnp.float32):
    return jax.random.uniform(key, shape, dtype, -limit, limit)

  return init


def torch_default_init(fan_in: int) -> Callable:
  """PyTorch's default for dense and conv kernels: U(+-1/sqrt(fan_in)) [IPV]."""
  return uniform_init(1.0 / math.sqrt(fan_in))


def shared_glorot(fan_in: int, fan_out: int) -> Callable:
  """Glorot-uniform for one part of a dense layer with several inputs."""
  return uniform_init(math.sqrt(6.0 / (fan_in + fan_out)))


class Dense(nn.Dense):
  """`nn.Dense` on a matrix, whatever the number of leading axes.

  XLA:CPU computes the gradient of the kernel three times slower when it has to
  contract several axes.
  """

  kernel_init: Callable = glorot

  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., F] -> [..., features]."""
    y = super().__call__(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], self.features)


class MLP(nn.Module):
  """Dense + ELU layers, then a linear output.

  Attributes:
    features: output width.
    width: hidden width.
    depth: number of hidden layers.
  """

  features: int
  width: int
  depth: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[..., F] -> [..., features]."""
    for i in range(self.depth):
      x = nn.elu(Dense(self.width, name=f'dense{i}')(x))
    return Dense(self.features, name='out')(x)


class BatchNorm(nn.Module):
  """Batch normalisation as in PyTorch: eps 1e-5, momentum 0.9 in Flax's sense.

  Attributes:
    axis_name: device axis over which statistics are averaged, or None.
  """

  axis_name: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    return nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      axis_name=self.axis_name if train else None,
      name='norm',
    )(x)


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
      return nn.Conv(
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


class GRU(nn.Module):
  """GRU cell with one LayerNorm over all gates  [IPV].

  The reset gate multiplies the candidate's pre-activation, and the update gate
  has a bias of -1.
  """

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
    parts = nn.LayerNorm(epsilon=1e-3, name='norm')(parts)
    reset, cand, update = jnp.split(parts, 3, -1)
    cand = jnp.tanh(jax.nn.sigmoid(reset) * cand)
    update = jax.nn.sigmoid(update - 1.0)
    return update * cand + (1.0 - update) * h
