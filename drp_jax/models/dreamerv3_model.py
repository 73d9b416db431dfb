"""The networks of DreamerV3, and their sizes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import dreamerv3_cnn, dreamerv3_heads, dreamerv3_rssm
from drp_jax.ops import images, noise


@dataclasses.dataclass(frozen=True)
class Size:
  """Sizes: those that official presets change, and two that none changes.

  Attributes:
    deter: width of the recurrent state.
    hidden: width of the dynamics' dense layers.
    classes: of each categorical.
    depth: a half of the first convolution's width.
    width: of heads.
    groups: categoricals.
    blocks: of the recurrent state.
  """

  deter: int
  hidden: int
  classes: int
  depth: int
  width: int
  groups: int = 32
  blocks: int = 8


SIZES = {
  'debug': Size(16, 8, 4, 2, 8, groups=4),  # of the tests  [ours]
  'size1m': Size(512, 64, 4, 4, 64),
  'size12m': Size(2048, 256, 16, 16, 256),
  'size25m': Size(3072, 384, 24, 24, 384),
  'size50m': Size(4096, 512, 32, 32, 512),
  'size100m': Size(6144, 768, 48, 48, 768),
  'size200m': Size(8192, 1024, 64, 64, 1024),
  'size400m': Size(12288, 1536, 96, 96, 1536),
}


class DreamerV3Model(nn.Module):
  """The networks. The one dynamics model takes the place of s elsewhere.

  Attributes:
    image_encoder: convolutions.
    image_decoder: convolutions.
    action_dynamics: s, which observes embeddings.
    reward: two-hot logits.
    cont: logits of going on.
    actor: the policy.
    critic: two-hot logits of values.
    dtype: what the networks compute in.
  """

  image_encoder: dreamerv3_cnn.CNNEncoder
  image_decoder: dreamerv3_cnn.CNNDecoder
  action_dynamics: dreamerv3_rssm.RSSM
  reward: dreamerv3_heads.TwoHotHead
  cont: dreamerv3_heads.ContinueHead
  actor: dreamerv3_heads.PolicyHead
  critic: dreamerv3_heads.TwoHotHead
  dtype: jnp.dtype

  def encode(self, image: jax.Array) -> jax.Array:
    """Encodes [..., 64, 64, 3] in [-0.5, 0.5] into embeddings [..., E]."""
    flat = image.reshape(-1, *image.shape[-3:]).astype(self.dtype)
    return self.image_encoder(flat).reshape(*image.shape[:-3], -1)

  def finetune(
    self, batch: types.ReplayBatch, keys: jax.Array
  ) -> dict[str, Any]:
    """Filters segments and reads all heads of the world model.

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys, of the samples.

    Returns:
      Posterior `s` and prior `s_prior`; `recon` in (0, 1); logits `reward` and
      `cont`.
    """
    embed = self.encode(images.to_float(batch.image))
    s, prior = self.action_dynamics.observe(
      embed, batch.action, batch.is_first, self._gumbel(keys, embed)
    )
    return dict(
      s=s,
      s_prior=prior,
      recon=self.image_decoder(s.deter, s.stoch),
      reward=self.reward(s.feat),
      cont=self.cont(s.feat),
    )

  def init_finetune(self, batch: types.ReplayBatch, keys: jax.Array):
    """Calls every module, to create its parameters."""
    s = self.finetune(batch, keys)['s']
    return self.actor(s.feat), self.critic(s.feat)

  def initial_state(self, batch: int) -> types.RSSMState:
    """Returns the state before any observation."""
    return self.action_dynamics.initial(batch, self.dtype)

  def act(
    self, carry: types.PolicyCarry, obs: types.Observation, keys: jax.Array
  ) -> tuple[types.RSSMState, jax.Array, jax.Array]:
    """Acts one step: s, and mean and std of the action, [B, A]."""
    embed = self.encode(images.to_float(obs.image))
    s = self.action_dynamics.obs_step(
      carry.s, embed, carry.action, obs.is_first, self._gumbel(keys, embed)
    )
    return s, *self.actor(s.feat)

  def _gumbel(self, keys, embed):
    model = self.action_dynamics
    shape = (*embed.shape[1:-1], model.groups, model.classes)
    return noise.draw(keys, jax.random.gumbel, shape)
