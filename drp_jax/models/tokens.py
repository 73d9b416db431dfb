"""Tokens of atomic actions: content + coordinate + time, and [MAT] (Fig. 9)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.models import layers

_COORDINATE_BANDS = 16


def coordinate_features(points: jax.Array, image_size: int) -> jax.Array:
  """Computes sines and cosines of (x, y) / image_size at octave bands (B5).

  Args:
    points: [..., 2], pixels.
    image_size: side of the image, pixels.

  Returns:
    [..., 4 * 16]. Wave lengths run from 4 images down to 4 pixels of a 64-pixel
    image, so neighbors differ and far points do not alias.
  """
  bands = jnp.logspace(-2.0, 4.0, _COORDINATE_BANDS, base=2.0)
  angle = jnp.multiply.outer(2.0 * jnp.pi * points / image_size, bands)
  angle = angle.reshape(*points.shape[:-1], -1)
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


def time_features(window_step: jax.Array, width: int) -> jax.Array:
  """Computes a fixed sine-cosine embedding of the step within a window (B6).

  Args:
    window_step: [...] int32.
    width: D, even.

  Returns:
    [..., D] float32.
  """
  half = width // 2
  rate = 10_000.0 ** (-jnp.arange(half) / half)
  angle = jnp.multiply.outer(window_step.astype(jnp.float32), rate)
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)


class AtomicActionTokens(nn.Module):
  """Tokenizes atomic actions and prepends [MAT] (Sec. 4.2.2, choices B4-B8).

  Attributes:
    width: D.
    image_size: side of the image, pixels.
    mat: whether [MAT] is prepended (not in the ablation of E1).
    coordinate: whether tokens know their place (E3).
    temporal: whether tokens know the time (E3).
  """

  width: int
  image_size: int
  mat: bool = True
  coordinate: bool = True
  temporal: bool = True

  @nn.compact
  def __call__(
    self, patches: jax.Array, points: jax.Array, window_step: jax.Array
  ) -> jax.Array:
    """Builds the tokens of every frame.

    Args:
      patches: [..., K, 2 P^2], normalized flow.
      points: [..., K, 2], pixels.
      window_step: [...] int32.

    Returns:
      [..., K+1, D]; slot 0 is [MAT], which knows the time and no place (B8).
      [..., K, D] without [MAT].
    """
    D = self.width
    tokens = layers.Dense(D, name='content')(patches)
    if self.coordinate:
      tokens += layers.Dense(D, name='coordinate')(
        coordinate_features(points, self.image_size).astype(patches.dtype)
      )
    if self.mat:
      mat = self.param('mat', nn.initializers.normal(0.02), (D,))
      mat = mat.astype(patches.dtype)
      mat = jnp.broadcast_to(mat, (*tokens.shape[:-2], 1, D))
      tokens = jnp.concatenate([mat, tokens], -2)  # [..., K+1, D]
    if self.temporal:
      time = time_features(window_step, D).astype(patches.dtype)
      tokens += time[..., None, :]
    return tokens
