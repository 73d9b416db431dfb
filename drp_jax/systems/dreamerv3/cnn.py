"""DreamerV3's convolutional encoder and decoder of 64 x 64 images.

Sides halve by taking maxima and double by repeating, four times; convolutions
keep them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.systems.dreamerv3 import block_gru, layers

_MULTIPLES = 2, 3, 4, 4  # of the depth: widths at sides 32, 16, 8, 4
_SIDE = 4  # of the smallest feature maps


class CNNEncoder(nn.Module):
  """Four times: convolution 5x5, maxima of 2x2, RMS norm, SiLU.

  Attributes:
    depth: a half of the first width.
  """

  depth: int

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Encodes [N, 64, 64, 3] in [-0.5, 0.5] into [N, 64 depth]."""
    x = image
    for i, multiple in enumerate(_MULTIPLES):
      x = layers.Conv(
        multiple * self.depth, (5, 5), padding='SAME', name=f'conv{i}'
      )(x)
      N, H, W, C = x.shape
      x = x.reshape(N, H // 2, 2, W // 2, 2, C).max((2, 4))
      x = nn.silu(layers.RMSNorm(name=f'norm{i}')(x))
    return x.reshape(x.shape[0], -1)


class CNNDecoder(nn.Module):
  """Maps of 4x4 from the state, then four times: repeat, convolution 5x5.

  The recurrent state comes in by a block-diagonal layer, whose blocks make
  channels; the sample by two dense layers.

  Attributes:
    depth: as in the encoder.
    width: a half of the width of the sample's hidden layer.
    blocks: of the recurrent state.
  """

  depth: int
  width: int
  blocks: int

  @nn.compact
  def __call__(self, deter: jax.Array, stoch: jax.Array) -> jax.Array:
    """Decodes states.

    Args:
      deter: [..., D].
      stoch: [..., groups, classes].

    Returns:
      [..., 64, 64, 3] float32 in (0, 1), the mean.
    """
    lead, g = deter.shape[:-1], self.blocks
    C = _MULTIPLES[-1] * self.depth
    size = _SIDE * _SIDE * C
    x = block_gru.BlockDense(size, g, name='deter_in')(
      deter.reshape(-1, deter.shape[-1])
    )
    x = x.reshape(-1, g, _SIDE, _SIDE, C // g)
    x = jnp.moveaxis(x, 1, 3).reshape(-1, _SIDE, _SIDE, C)
    y = layers.Hidden(2 * self.width, name='stoch_in')(
      stoch.reshape(x.shape[0], -1)
    )
    y = layers.Dense(size, name='stoch_out')(y)
    x = x + y.reshape(x.shape)
    x = nn.silu(layers.RMSNorm(name='norm_in')(x))
    for i in reversed(range(len(_MULTIPLES) - 1)):
      x = layers.DoublingConv(
        _MULTIPLES[i] * self.depth, (5, 5), name=f'conv{i}'
      )(x)
      x = nn.silu(layers.RMSNorm(name=f'norm{i}')(x))
    x = layers.DoublingConv(3, (5, 5), name='out')(x)
    return nn.sigmoid(x).astype(jnp.float32).reshape(*lead, *x.shape[1:])
