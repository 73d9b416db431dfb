"""Layers of DreamerV3: RMS norm and SiLU follow each dense layer.

Like `models/layers.py`, they compute in the type of their input.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.models import layers

_WIDER = 1.1368  # what truncation takes from the deviation  [DreamerV3]


def kernel_init(scale: float = 1.0) -> Callable:
  """Normal truncated at two deviations, of variance scale^2 / fan-in.

  The fan-in of a block-diagonal layer is that of all its blocks together.
  """

  def init(key, shape, dtype=jnp.float32):
    fan_in = math.prod(shape[:-1])
    # In a row, which compiles in a tenth of the time.
    x = jax.random.truncated_normal(key, -2.0, 2.0, (math.prod(shape),), dtype)
    return scale * _WIDER / math.sqrt(fan_in) * x.reshape(shape)

  return nn.initializers.zeros if scale == 0.0 else init


class Dense(layers.Dense):
  """Dense layer."""

  kernel_init: Callable = kernel_init()


class Conv(layers.Conv):
  """Convolution."""

  kernel_init: Callable = kernel_init()


class DoublingConv(layers.DoublingConv):
  """Convolution of maps that are doubled first."""

  kernel_init: Callable = kernel_init()


class RMSNorm(nn.RMSNorm):
  """Divides by the root of the mean square, then scales; in float32."""

  epsilon: float = 1e-4

  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalizes [..., F]."""
    return super().__call__(x).astype(x.dtype)


class Hidden(nn.Module):
  """A hidden layer: dense, RMS norm, SiLU.

  Attributes:
    width: of its output.
  """

  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., F] to [..., width]."""
    x = Dense(self.width, name='dense')(x)
    return nn.silu(RMSNorm(name='norm')(x))


class MLP(nn.Module):
  """Hidden layers.

  Attributes:
    width: of each.
    depth: how many.
  """

  width: int
  depth: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., F] to [..., width]."""
    for i in range(self.depth):
      x = Hidden(self.width, name=f'hidden{i}')(x)
    return x
