"""Images at the border (uint8, 0..255) and inside (float32, -0.5..0.5)."""

import jax
import jax.numpy as jnp


def to_float(image: jax.Array) -> jax.Array:
  """Scales uint8 [...] linearly from [0, 255] to [-0.5, 0.5]  [Table 5]."""
  return image.astype(jnp.float32) / 255.0 - 0.5


def to_uint8(image: jax.Array) -> jax.Array:
  """Inverse of `to_float`; values outside [-0.5, 0.5] are clipped."""
  return jnp.clip((image + 0.5) * 255.0 + 0.5, 0, 255).astype(jnp.uint8)
