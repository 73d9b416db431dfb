"""The Deconstruct phase: from motion to tokens (Sec. 4.2).

The half of DRP that sees motion. It hands one aggregated action a step to the
latent dynamics model of `stacked_model`.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import dae, mae_decoder, network, outputs
from drp_jax.ops import masking, patches


class Deconstruction(network.Network):
  """Atomic actions, Dual-Attention Encoder and masked autoencoder.

  Attributes:
    dae: the encoder.
    mae_decoder: its decoder, for L_MAE.
    patch_size: P.
    mask_ratio: rho.
    dtype: what the encoder computes in.
  """

  parameter_sets: ClassVar[tuple[str, ...]] = ('dae', 'mae_decoder')

  dae: dae.DAE
  mae_decoder: mae_decoder.MAEDecoder
  patch_size: int
  mask_ratio: float
  dtype: jnp.dtype

  def setup(self):
    # sigma of A3: measured on the pre-training set, kept with the weights.
    self.flow_scale = self.variable('constants', 'flow_scale', jnp.ones, ())

  def atomic_actions(self, motion: types.Motion) -> jax.Array:
    """Crops and normalizes: leaves [..., T, ...] -> [..., T, K, 2 P^2]."""
    cropped = patches.crop(motion.flow, motion.points, self.patch_size)
    cropped = patches.normalize(cropped, self.flow_scale.value)
    return cropped.reshape(*cropped.shape[:-3], -1)

  def __call__(
    self, motion: types.Motion, is_first: jax.Array, keys: jax.Array
  ) -> outputs.Motion:
    """Runs a masked pass for L_MAE and a full one for a_agg as one batch (B15).

    Args:
      motion: leaves [B, T, ...].
      is_first: [B, T] bool.
      keys: [B] typed keys, for the mask.

    Returns:
      Reconstructions of the masked pass, and tokens of the full one.
    """
    u = self.atomic_actions(motion)
    hidden = masking.random_hidden(keys, ~is_first, u.shape[2], self.mask_ratio)
    both: Any = jax.tree.map(
      lambda x: jnp.concatenate([x, x], 0),
      (u.astype(self.dtype), motion.points, motion.window_step, is_first),
    )
    twice = jnp.concatenate([hidden, hidden & False], 0)
    encoded = self.dae(both[0], both[1], both[2], both[3], twice)
    masked, full = jnp.split(encoded, 2, 0)
    recon = self.mae_decoder(
      masked, motion.points, motion.window_step, is_first, hidden
    )
    return outputs.Motion(full, recon, patches=u, hidden=hidden)

  def encode(self, motion: types.Motion, is_first: jax.Array) -> jax.Array:
    """Runs the full pass: leaves [B, T, ...] -> tokens as in `__call__`."""
    u = self.atomic_actions(motion).astype(self.dtype)
    return self.dae(
      u,
      motion.points,
      motion.window_step,
      is_first,
      jnp.zeros(u.shape[:3], bool),
    )

  def aggregate(self, motion: types.Motion, is_first: jax.Array) -> jax.Array:
    """Returns slot 0 of `encode`: leaves [B, T, ...] -> a_agg [B, T, D]."""
    return self.encode(motion, is_first)[:, :, 0]

  def step(
    self, motion: types.Motion, is_first: jax.Array, cache: dae.Cache
  ) -> tuple[jax.Array, dae.Cache]:
    """Aggregates one frame: leaves [B, ...] -> a_agg [B, D], next cache."""
    u = self.atomic_actions(motion).astype(self.dtype)
    tokens, cache = self.dae.step(
      u, motion.points, motion.window_step, is_first, cache
    )
    return tokens[:, 0], cache

  def initial_cache(
    self, batch: int, num_keypoints: int, window: int
  ) -> dae.Cache:
    """See `DAE.initial_cache`."""
    return self.dae.initial_cache(batch, num_keypoints, window, self.dtype)
