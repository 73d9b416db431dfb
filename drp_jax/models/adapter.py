"""Adapters from the latent dynamics model to the action-specific one (D6)."""

import flax.linen as nn
import jax

from drp_jax.models import layers


class Adapter(nn.Module):
  """Residual MLP blocks on z's features, initialized as a plain projection.

  Dense, then blocks x + Dense(GELU(Dense(LN x))) whose last layer starts at
  zero, then LayerNorm. The paper only says that it is more than an MLP
  projection (Fig. 13).

  Attributes:
    width: output width.
    num_blocks: residual blocks.
  """

  width: int
  num_blocks: int

  @nn.compact
  def __call__(self, z_feat: jax.Array) -> jax.Array:
    """Maps [..., F] to [..., width]."""
    x = layers.Dense(self.width, name='in')(z_feat)
    for i in range(self.num_blocks):
      h = layers.LayerNorm(name=f'norm{i}')(x)
      h = layers.Dense(2 * self.width, name=f'block{i}_in')(h)
      zeros = nn.initializers.zeros_init()
      x += layers.Dense(self.width, kernel_init=zeros, name=f'block{i}_out')(
        nn.gelu(h, approximate=False)
      )
    return layers.LayerNorm(name='norm_out')(x)


class MLPProjection(nn.Module):
  """One dense layer with ELU: what Fig. 13 compares the adapter with (D6).

  Attributes:
    width: output width.
  """

  width: int

  @nn.compact
  def __call__(self, z_feat: jax.Array) -> jax.Array:
    """Maps [..., F] to [..., width]."""
    return nn.elu(layers.Dense(self.width, name='dense')(z_feat))
