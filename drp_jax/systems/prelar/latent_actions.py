"""Latent actions of whole frames, which drive PreLAR's dynamics."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from drp_jax.models import layers, transition_encoder


@flax.struct.dataclass
class LatentAction:
  """Normal distribution of latent actions, with a sample.

  Attributes:
    mean: [..., Z] float32.
    std: [..., Z] float32, in (0, 2).
    sample: [..., Z], reparameterized, of the type of the images.
  """

  mean: jax.Array
  std: jax.Array
  sample: jax.Array


class InverseDynamics(nn.Module):
  """Infers the latent action between two frames  [PreLAR, VANet].

  Attributes:
    encoder: of pairs of frames, 2 Z wide.
  """

  encoder: transition_encoder.TransitionEncoder

  def __call__(
    self, image: jax.Array, normal: jax.Array | None, train: bool
  ) -> LatentAction:
    """Infers the latent actions that led to frames 1..T-1.

    Args:
      image: [B, T, H, W, C] in [-0.5, 0.5].
      normal: [B, T-1, Z] standard normal noise, or None for means.
      train: batch statistics (True) or running ones.

    Returns:
      [B, T-1, Z]; entry t led to frame t + 1.
    """
    pairs = jnp.concatenate([image[:, :-1], image[:, 1:]], -1)
    raw = self.encoder(pairs, train).astype(jnp.float32)
    mean, raw_std = jnp.split(raw, 2, -1)
    std = latent_std(raw_std)
    sample = mean if normal is None else mean + std * normal
    return LatentAction(mean, std, sample.astype(image.dtype))


def latent_std(raw: jax.Array) -> jax.Array:
  """Computes 2 sigmoid(x / 2), without a floor  [PreLAR]: [...] in (0, 2)."""
  return 2.0 * jax.nn.sigmoid(raw / 2.0)


def at_frames(latent: jax.Array) -> jax.Array:
  """Pads [B, T-1, Z] to [B, T, Z]: entry t for frame t, zeros at entry 0."""
  return jnp.pad(latent, ((0, 0), (1, 0), (0, 0)))


class ActionEncoder(nn.Module):
  """Maps a robot's action to a latent action  [PreLAR].

  Attributes:
    hidden: width of the one hidden layer.
    features: Z.
  """

  hidden: int
  features: int

  @nn.compact
  def __call__(self, action: jax.Array) -> jax.Array:
    """Maps [..., A] to [..., Z]."""
    return layers.MLP(self.features, self.hidden, 1, name='mlp')(action)
