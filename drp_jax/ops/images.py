"""Images at the border (uint8, 0..255) and inside (float32, -0.5..0.5)."""

import jax
import jax.numpy as jnp

from drp_jax.ops import noise

# Random erasing of context frames  [IPV].
_ERASE_CHANCE = 0.5
_ERASE_AREA = (0.02, 0.33)  # of the image
_ERASE_ASPECT = (0.3, 3.3)  # height to width


def to_float(image: jax.Array) -> jax.Array:
  """Scales uint8 [...] linearly from [0, 255] to [-0.5, 0.5]  [Table 5]."""
  return image.astype(jnp.float32) / 255.0 - 0.5


def to_uint8(image: jax.Array) -> jax.Array:
  """Inverts `to_float`; values outside [-0.5, 0.5] are clipped."""
  return jnp.clip((image + 0.5) * 255.0 + 0.5, 0, 255).astype(jnp.uint8)


def random_erasing(image: jax.Array, keys: jax.Array) -> jax.Array:
  """Makes a random rectangle gray, in about half of the images  [IPV].

  The aspect ratio is drawn below or above 1 with equal chances, then uniformly.

  Args:
    image: [B, H, W, C] in [-0.5, 0.5]; 0 is mid-gray.
    keys: [B] typed keys, one for each image.

  Returns:
    [B, H, W, C].
  """
  H, W = image.shape[1:3]
  draws = noise.draw(keys, jax.random.uniform, (6,))
  chance, area, wide, aspect, top, left = jnp.moveaxis(draws, 1, 0)
  low, high = _ERASE_AREA
  area = (low + (high - low) * area) * H * W
  low, high = _ERASE_ASPECT
  aspect = jnp.where(
    wide < 0.5, low + (1.0 - low) * aspect, 1.0 + (high - 1.0) * aspect
  )
  height = jnp.clip(jnp.round(jnp.sqrt(area * aspect)), 1, H)
  width = jnp.clip(jnp.round(jnp.sqrt(area / aspect)), 1, W)
  top = jnp.floor(top * (H - height + 1))
  left = jnp.floor(left * (W - width + 1))

  def within(start, length, size):
    place = jnp.arange(size)[None] - start[:, None]
    return (place >= 0) & (place < length[:, None])

  hit = within(top, height, H)[:, :, None] & within(left, width, W)[:, None]
  hit &= (chance < _ERASE_CHANCE)[:, None, None]
  return jnp.where(hit[..., None], 0.0, image)
