"""Implements the calls of models with one dynamics model."""

import jax

from drp_jax import types
from drp_jax.models import network
from drp_jax.ops import images, noise


class OneDynamics(network.Network):
  """A model whose `action_dynamics` takes the place of s elsewhere.

  A subclass has the fields `image_encoder`, `action_dynamics`, `actor`,
  `critic` and `dtype`, and the method `finetune`.
  """

  def encode(self, image: jax.Array) -> jax.Array:
    """Encodes [..., 64, 64, 3] in [-0.5, 0.5] into embeddings [..., E]."""
    flat = image.reshape(-1, *image.shape[-3:]).astype(self.dtype)
    return self.image_encoder(flat).reshape(*image.shape[:-3], -1)

  def init_finetune(self, batch: types.ReplayBatch, keys: jax.Array):
    """Calls every module, to create its parameters."""
    s = self.finetune(batch, keys).s
    return self.actor(s.feat), self.critic(s.feat)

  def initial_state(self, batch: int) -> types.RSSMState:
    """Returns the state before any observation."""
    return self.action_dynamics.initial(batch, self.dtype)

  def img_step(
    self,
    state: types.RSSMState,
    action: jax.Array,
    gumbel: jax.Array | None,
  ) -> types.RSSMState:
    """Imagines one step of s; see `RSSM.img_step`."""
    return self.action_dynamics.img_step(state, action, gumbel)

  def act(
    self, carry: types.PolicyCarry, obs: types.Observation, keys: jax.Array
  ) -> tuple[types.RSSMState, jax.Array, jax.Array]:
    """Acts one step: s, and mean and std of the action, [B, A]."""
    embed = self.encode(images.to_float(obs.image))
    s = self.action_dynamics.obs_step(
      carry.s, embed, carry.action, obs.is_first, self.gumbel(keys, embed)
    )
    return s, *self.actor(s.feat)

  def gumbel(self, keys: jax.Array, embed: jax.Array) -> jax.Array:
    """Draws the noise of states for embeddings [B, ..., E]."""
    model = self.action_dynamics
    shape = (*embed.shape[1:-1], model.groups, model.classes)
    return noise.draw(keys, jax.random.gumbel, shape)
