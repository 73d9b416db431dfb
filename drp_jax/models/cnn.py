"""Plain convolutional encoder and decoder of 64 x 64 images  [DreamerV2]."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.models import layers


class CNNEncoder(nn.Module):
  """Four convolutions 4x4 of stride 2: sides 64 -> 31 -> 14 -> 6 -> 2.

  Attributes:
    depth: channels of the first; each of the others has twice as many.
  """

  depth: int

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Encodes [N, 64, 64, 3] in [-0.5, 0.5] into [N, 32 depth]."""
    x = image
    for i in range(4):
      x = layers.Conv(
        self.depth * 2**i,
        (4, 4),
        strides=(2, 2),
        padding='VALID',
        name=f'conv{i}',
      )(x)
      x = nn.elu(x)
    return x.reshape(x.shape[0], -1)


class CNNDecoder(nn.Module):
  """Four transposed convolutions of stride 2: 1 -> 5 -> 13 -> 30 -> 64.

  Attributes:
    depth: as in the encoder.
  """

  depth: int

  @nn.compact
  def __call__(self, feat: jax.Array) -> jax.Array:
    """Decodes [..., F] into means [..., 64, 64, 3] in [-0.5, 0.5], float32."""
    x = layers.Dense(32 * self.depth, name='dense')(feat)
    x = x.reshape(-1, 1, 1, 32 * self.depth)
    widths = (4 * self.depth, 2 * self.depth, self.depth, 3)
    for i, (kernel, width) in enumerate(zip((5, 5, 6, 6), widths, strict=True)):
      x = layers.ConvTranspose(
        width,
        (kernel, kernel),
        strides=(2, 2),
        padding='VALID',
        name=f'conv{i}',
      )(x if i == 0 else nn.elu(x))
    return x.reshape(*feat.shape[:-1], *x.shape[1:]).astype(jnp.float32)
