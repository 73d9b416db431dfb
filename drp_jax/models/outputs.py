"""Holds what forward passes hand to the losses."""

import flax.struct
import jax

from drp_jax import types
from drp_jax.models import image_decoder


@flax.struct.dataclass
class Motion:
  """A pass over motion (Sec. 4.2).

  Attributes:
    tokens: [B, T, K+1, D], whose slot 0 is a_agg; [B, T, 1, D] where the whole
      flow is seen at once (E4), and nothing below.
    recon: [B, T, K, 2 P^2] float32, of the masked pass.
    patches: [B, T, K, 2 P^2] float32, what is to be reconstructed.
    hidden: [B, T, K] bool, which were masked.
  """

  tokens: jax.Array
  recon: jax.Array | None = None
  patches: jax.Array | None = None
  hidden: jax.Array | None = None


@flax.struct.dataclass
class Latent:
  """A pass of the latent dynamics model z.

  Attributes:
    image: [B, T, H, W, 3] float32 in [-0.5, 0.5], what is to be decoded.
    z: posterior, leaves [B, T, ...].
    z_prior: prior, leaves [B, T, ...].
    z_decoded: [B, T, H, W, 3], None where images of z are not wanted.
    embed: [B, T, E], encoded images; None where nothing reads them.
    context: of the context frames; None without contexts.
    context_index: [B], numbers of the context frames; None without contexts.
    image_weight: [B, T]: frames of another episode than the context's are not
      to be decoded with it (N40). None where all count alike.
  """

  image: jax.Array
  z: types.RSSMState
  z_prior: types.RSSMState
  z_decoded: jax.Array | None = None
  embed: jax.Array | None = None
  context: image_decoder.Context | None = None
  context_index: jax.Array | None = None
  image_weight: jax.Array | None = None


@flax.struct.dataclass
class Action:
  """A pass of the dynamics model that the robot's actions drive, s.

  Attributes:
    image: [B, T, H, W, 3] float32 in [-0.5, 0.5], what is to be decoded.
    s: posterior, leaves [B, T, ...].
    s_prior: prior, leaves [B, T, ...].
    s_decoded: [B, T, H, W, 3].
    reward: [B, T], of the head that imagination reads.
    aux_reward: [B, T], of the representative head; None without one.
    continuation: [B, T] logits; None without such a head.
    image_weight: as in `Latent`.
  """

  image: jax.Array
  s: types.RSSMState
  s_prior: types.RSSMState
  s_decoded: jax.Array
  reward: jax.Array
  aux_reward: jax.Array | None = None
  continuation: jax.Array | None = None
  image_weight: jax.Array | None = None
