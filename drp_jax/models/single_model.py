"""One dynamics model, driven by the robot's actions: DreamerV2's."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import cnn, heads, rssm
from drp_jax.ops import images, noise


class SingleModel(nn.Module):
  """The networks. The one dynamics model takes the place of s elsewhere.

  Attributes:
    image_encoder: plain convolutions.
    image_decoder: plain convolutions.
    action_dynamics: s, which observes embeddings.
    reward: read in imagination.
    continuation: predicts the discount, read in imagination as its logit; None
      where episodes do not terminate.
    actor: the policy.
    critic: values.
    dtype: what the networks compute in.
  """

  image_encoder: cnn.CNNEncoder
  image_decoder: cnn.CNNDecoder
  action_dynamics: rssm.RSSM
  reward: heads.ScalarHead
  continuation: heads.ScalarHead | None
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  dtype: jnp.dtype

  def encode(self, image: jax.Array) -> jax.Array:
    """Encodes [..., 64, 64, 3] in [-0.5, 0.5] into embeddings [..., E]."""
    flat = image.reshape(-1, *image.shape[-3:]).astype(self.dtype)
    return self.image_encoder(flat).reshape(*image.shape[:-3], -1)

  def finetune(
    self, batch: types.ReplayBatch, keys: jax.Array
  ) -> dict[str, Any]:
    """Filters segments and reads all heads.

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys, of the samples.

    Returns:
      `image`; posterior `s` and prior `s_prior`; `s_decoded`, `reward`;
      `continuation` if there is such a head.
    """
    image = images.to_float(batch.image)
    embed = self.encode(image)
    s, prior = self.action_dynamics.observe(
      embed, batch.action, batch.is_first, self._gumbel(keys, embed)
    )
    out = dict(
      image=image,
      s=s,
      s_prior=prior,
      s_decoded=self.image_decoder(s.feat),
      reward=self.reward(s.feat),
    )
    if self.continuation is not None:
      out['continuation'] = self.continuation(s.feat)
    return out

  def init_finetune(self, batch: types.ReplayBatch, keys: jax.Array):
    """Calls every module, to create its parameters."""
    s = self.finetune(batch, keys)['s']
    return self.actor(s.feat), self.critic(s.feat)

  def img_step(
    self,
    state: types.RSSMState,
    action: jax.Array,
    gumbel: jax.Array | None,
  ) -> types.RSSMState:
    """Imagines one step of s; see `RSSM.img_step`."""
    return self.action_dynamics.img_step(state, action, gumbel)

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
