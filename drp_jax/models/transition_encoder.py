"""Encoder of what changed between frames."""

import flax.linen as nn
import jax

from drp_jax.models import image_encoder, layers


class TransitionEncoder(nn.Module):
  """Residual tower and two dense layers over the change of frames  [PreLAR].

  What changed is a pair of frames in PreLAR, their flow in the ablation "Global
  Flow" (E4).

  Attributes:
    tower: its own, of any number of channels.
    hidden: width between the dense layers.
    features: output width.
  """

  tower: image_encoder.ImageEncoder
  hidden: int
  features: int

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Encodes [..., H, W, C] into [..., features]; batch norm by `train`."""
    embed, _ = self.tower(x.reshape(-1, *x.shape[-3:]), train)
    h = nn.elu(layers.Dense(self.hidden, name='dense')(embed))
    out = layers.Dense(self.features, name='out')(h)
    return out.reshape(*x.shape[:-3], -1)
