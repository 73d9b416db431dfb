"""DreamerV3's convolutional encoder and decoder of 64 x 64 images.

Sides halve by taking maxima and double by repeating, four times; convolutions
keep them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from drp_jax.models import block_gru, dreamerv3_layers, layers

_MULTIPLES = 2, 3, 4, 4  # of the depth: widths at sides 32, 16, 8, 4
_SIDE = 4  # of the smallest feature maps
# Which pixel of a map every tap of a 5x5 convolution falls on when the map is
# doubled: of the pixels 2i and 2i + 1, [2, i - 1 to i + 1, 5].
_FALLS_ON = np.array(
  [
    [[1, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]],
    [[1, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]],
  ],
  np.float32,
)


class DoublingConv(nn.Module):
  """Doubles maps by repeating, then a 5x5 convolution that keeps their sides.

  Computed on the map before it is doubled: taps that fall on the same pixel are
  added up first, which leaves 36 products of the 100.

  Attributes:
    features: output channels.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """[N, h, w, C] -> [N, 2h, 2w, features]."""
    shape = (5, 5, x.shape[-1], self.features)
    kernel = self.param('kernel', dreamerv3_layers.kernel_init(), shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    taps = jnp.einsum(
      'imk,jnl,klcf->mncijf',
      _FALLS_ON,
      _FALLS_ON,
      kernel,
      precision=jax.lax.Precision.HIGHEST,  # they are sums of parameters
    )
    y = layers.conv_to_cells(x, taps.astype(x.dtype), (1, 1))
    return y + bias[None, None, None].astype(x.dtype)


class CNNEncoder(nn.Module):
  """Four times: convolution 5x5, maxima of 2x2, RMS norm, SiLU.

  Attributes:
    depth: a half of the first width.
  """

  depth: int

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """[N, 64, 64, 3] in [-0.5, 0.5] -> [N, 64 depth]."""
    x = image
    for i, multiple in enumerate(_MULTIPLES):
      x = dreamerv3_layers.Conv(
        multiple * self.depth, (5, 5), padding='SAME', name=f'conv{i}'
      )(x)
      N, H, W, C = x.shape
      x = x.reshape(N, H // 2, 2, W // 2, 2, C).max((2, 4))
      x = nn.silu(dreamerv3_layers.RMSNorm(name=f'norm{i}')(x))
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
    y = dreamerv3_layers.Hidden(2 * self.width, name='stoch_in')(
      stoch.reshape(x.shape[0], -1)
    )
    y = dreamerv3_layers.Dense(size, name='stoch_out')(y)
    x = x + y.reshape(x.shape)
    x = nn.silu(dreamerv3_layers.RMSNorm(name='norm_in')(x))
    for i in reversed(range(len(_MULTIPLES) - 1)):
      x = DoublingConv(_MULTIPLES[i] * self.depth, name=f'conv{i}')(x)
      x = nn.silu(dreamerv3_layers.RMSNorm(name=f'norm{i}')(x))
    x = DoublingConv(3, name='out')(x)
    return nn.sigmoid(x).astype(jnp.float32).reshape(*lead, *x.shape[1:])
