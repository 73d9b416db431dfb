"""Encoder and decoder of DisWM's beta-VAE for 64 x 64 images  [DisWM]."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.models import layers


def _kaiming(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32):
  """Initializer N(0, 2 / fan-in) of kernels [..., in, out]."""
  # Drawn in a row, see `layers.uniform_init`.
  row = jax.random.normal(key, (math.prod(shape),), dtype)
  return math.sqrt(2.0 / math.prod(shape[:-1])) * row.reshape(shape)


class VAEEncoder(nn.Module):
  """Five convolutions 4x4: sides 64 -> 32 -> 16 -> 8 -> 4 -> 1.

  Attributes:
    depth: channels of the first; the last has eight times as many.
    latent_size: Z.
  """

  depth: int
  latent_size: int

  @nn.compact
  def __call__(self, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Encodes [..., 64, 64, 3] in [-0.5, 0.5] into mean, std [..., Z]."""
    x = image.reshape(-1, *image.shape[-3:])
    for i, width in enumerate((1, 1, 2, 2, 8)):
      last = i == 4
      x = layers.Conv(
        width * self.depth,
        (4, 4),
        strides=(1, 1) if last else (2, 2),
        padding='VALID' if last else 'SAME',
        kernel_init=_kaiming,
        name=f'conv{i}',
      )(x)
      x = nn.elu(x)
    x = x.reshape(*image.shape[:-3], -1)
    x = layers.Dense(2 * self.latent_size, kernel_init=_kaiming, name='out')(x)
    mean, log_var = jnp.split(x.astype(jnp.float32), 2, -1)
    return mean, jnp.exp(0.5 * log_var)


class VAEDecoder(nn.Module):
  """Mirror of the encoder: from features through Z numbers to the image.

  Attributes:
    depth: as in the encoder.
    latent_size: Z.
  """

  depth: int
  latent_size: int

  @nn.compact
  def __call__(self, feat: jax.Array) -> jax.Array:
    """Decodes [..., F] into means [..., 64, 64, 3] in [-0.5, 0.5], float32."""
    x = feat
    for name, width in (
      ('latent', self.latent_size),
      ('dense', 8 * self.depth),
    ):
      x = nn.elu(layers.Dense(width, kernel_init=_kaiming, name=name)(x))
    x = x.reshape(-1, 1, 1, x.shape[-1])
    d = self.depth
    for i, width in enumerate((2 * d, 2 * d, d, d, 3)):
      init = layers.torch_default_init(16 * width)  # as PyTorch counts its fan
      x = layers.ConvTranspose(
        width,
        (4, 4),
        strides=(1, 1) if i == 0 else (2, 2),
        padding='VALID' if i == 0 else 'SAME',
        kernel_init=init,
        bias_init=init,
        name=f'conv{i}',
      )(x if i == 0 else nn.elu(x))
    return x.reshape(*feat.shape[:-1], *x.shape[1:]).astype(jnp.float32)
