"""Decoder of the masked autoencoder over atomic actions (Fig. 3b, B13)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.models import dae, layers, tokens
from drp_jax.ops import masking


class MAEDecoder(nn.Module):
  """Reconstructs patches from the visible tokens and [MAT].

  Attributes:
    num_blocks: dual-attention blocks, not causal.
    width: token width of the decoder.
    num_heads: heads.
    mlp_ratio: hidden width of the MLPs, in multiples of the width.
    image_size: side of the image, pixels.
    patch_values: 2 P^2.
    coordinate: whether places are embedded (E3).
    temporal: whether time is embedded (E3).
    remat: whether blocks are computed again in the backward pass.
  """

  num_blocks: int
  width: int
  num_heads: int
  mlp_ratio: int
  image_size: int
  patch_values: int
  coordinate: bool = True
  temporal: bool = True
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    encoded: jax.Array,
    points: jax.Array,
    window_step: jax.Array,
    is_first: jax.Array,
    hidden: jax.Array,
  ) -> jax.Array:
    """Fills hidden places with a mask token and decodes all of them.

    Args:
      encoded: [B, T, K+1, D], output of the DAE with the same `hidden`.
      points: [B, T, K, 2], pixels; known for hidden places too.
      window_step: [B, T] int32.
      is_first: [B, T] bool.
      hidden: [B, T, K] bool.

    Returns:
      [B, T, K, 2 P^2] float32, normalized flow.
    """
    D = self.width
    x = layers.Dense(D, name='embed')(encoded)
    mask_token = self.param('mask_token', nn.initializers.normal(0.02), (D,))
    mask_token = jnp.broadcast_to(mask_token.astype(x.dtype), x[:, :, 1:].shape)
    local = jnp.where(hidden[..., None], mask_token, x[:, :, 1:])
    if self.coordinate:
      local += layers.Dense(D, name='coordinate')(
        tokens.coordinate_features(points, self.image_size).astype(x.dtype)
      )
    x = jnp.concatenate([x[:, :, :1], local], 2)  # [B, T, K+1, D]
    if self.temporal:
      time = tokens.time_features(window_step, D).astype(x.dtype)
      x += time[..., None, :]
    seen = jnp.ones(x.shape[:3], bool)
    time_mask = masking.same_window(window_step, is_first)
    block = dae.RecomputedBlock if self.remat else dae.DualAttentionBlock
    for i in range(self.num_blocks):
      x = block(D, self.num_heads, self.mlp_ratio, name=f'block{i}')(
        x, seen, time_mask
      )
    x = layers.LayerNorm(name='norm')(x[:, :, 1:])
    x = layers.Dense(self.patch_values, name='out')(x)
    return x.astype(jnp.float32)
