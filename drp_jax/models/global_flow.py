"""One embedding of the whole flow field, in place of atomic actions (E4).

The ablation of Fig. 5(b). It has the calls of `deconstruction.Deconstruction`;
what drives the latent dynamics model is seen by a convolutional encoder, and
nothing is masked.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import network, outputs, transition_encoder
from drp_jax.ops import patches


class GlobalFlow(network.Network):
  """Encodes the flow of each frame separately.

  Attributes:
    flow_encoder: of two channels.
    dtype: what the encoder computes in.
  """

  parameter_sets: ClassVar[tuple[str, ...]] = ('flow_encoder',)

  flow_encoder: transition_encoder.TransitionEncoder
  dtype: jnp.dtype

  def setup(self):
    # sigma of A3: measured on the pre-training set, kept with the weights.
    self.flow_scale = self.variable('constants', 'flow_scale', jnp.ones, ())

  def __call__(
    self, motion: types.Motion, is_first: jax.Array, keys: jax.Array
  ) -> outputs.Motion:
    """Encodes sequences, with batch statistics.

    Args:
      motion: leaves [B, T, ...], of which the flow is seen.
      is_first: [B, T] bool.
      keys: not used, since nothing is drawn.

    Returns:
      Tokens alone, the one of a frame being a_agg.
    """
    del keys
    return outputs.Motion(self._encode(motion, is_first, True)[:, :, None])

  def encode(self, motion: types.Motion, is_first: jax.Array) -> jax.Array:
    """Encodes with running statistics: leaves [B, T, ...] -> [B, T, 1, D]."""
    return self._encode(motion, is_first, False)[:, :, None]

  def aggregate(self, motion: types.Motion, is_first: jax.Array) -> jax.Array:
    """Aggregates with running statistics: leaves [B, T, ...] -> [B, T, D]."""
    return self._encode(motion, is_first, False)

  def step(
    self, motion: types.Motion, is_first: jax.Array, cache: None
  ) -> tuple[jax.Array, None]:
    """Aggregates one frame: leaves [B, ...] -> a_agg [B, D]; no cache."""
    return self._encode(motion, is_first, False), cache

  def initial_cache(self, batch: int, num_keypoints: int, window: int) -> None:
    """Returns an empty cache: flow has no past here."""
    del batch, num_keypoints, window

  def _encode(self, motion, is_first, train):
    flow = patches.normalize(motion.flow, self.flow_scale.value)
    a_agg = self.flow_encoder(flow.astype(self.dtype), train)
    return jnp.where(is_first[..., None], 0.0, a_agg)
