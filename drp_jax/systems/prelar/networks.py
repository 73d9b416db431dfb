"""One dynamics model driven by latent actions: the world model of PreLAR.

While pre-training they are inferred from pairs of frames, while fine-tuning
they are encoded from the robot's actions. What is trained on what comes out
stands in `prelar.py`.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import (
  heads,
  image_decoder,
  image_encoder,
  network,
  outputs,
  rssm,
)
from drp_jax.ops import images, noise
from drp_jax.systems.prelar import latent_actions


@flax.struct.dataclass
class Compared:
  """Latent actions of clips beside those of other clips.

  Attributes:
    latent: the actions that led to frames 1..T-1.
    latent_other: those of another sequence.
    z_prior_other: states of frames 1..T-1 had the others been taken.
  """

  latent: latent_actions.LatentAction
  latent_other: latent_actions.LatentAction
  z_prior_other: types.RSSMState


class LatentActionModel(network.Network):
  """The networks, one submodule per parameter set.

  Attributes:
    image_encoder: residual tower.
    image_decoder: without contexts.
    inverse_dynamics: latent actions of videos, in pre-training only.
    latent_dynamics: the one dynamics model, of both stages.
    action_encoder: latent actions of the robot's, in fine-tuning only.
    reward: behavioral head, read in imagination.
    aux_reward: representative head.
    continuation: predicts the discount, read in imagination as its logit; None
      where episodes do not terminate.
    actor: the policy.
    critic: values.
    dtype: what the networks compute in.
  """

  image_encoder: image_encoder.ImageEncoder
  image_decoder: image_decoder.ImageDecoder
  inverse_dynamics: latent_actions.InverseDynamics
  latent_dynamics: rssm.RSSM
  action_encoder: latent_actions.ActionEncoder
  reward: heads.ScalarHead
  aux_reward: heads.ScalarHead
  continuation: heads.ScalarHead | None
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  dtype: jnp.dtype

  def encode(self, image: jax.Array, train: bool) -> jax.Array:
    """Encodes [..., H, W, 3] in [-0.5, 0.5] into embeddings [..., E]."""
    flat = image.reshape(-1, *image.shape[-3:]).astype(self.dtype)
    embed, _ = self.image_encoder(flat, train)
    return embed.reshape(*image.shape[:-3], -1)

  def decode(self, feat: jax.Array, train: bool) -> jax.Array:
    """Decodes [B, T, F] into [B, T, H, W, 3]."""
    return self.image_decoder(feat, None, None, train)

  def init_pretrain(self, batch: types.VideoBatch):
    """Calls every module that pre-training uses, to create its parameters."""
    image = images.to_float(batch.image)
    latent = self._infer(image, None, False)
    z = self._observe_z(
      self.encode(image, False), latent, batch.is_first, None
    )[0]
    return self.decode(z.feat, False)

  def init_finetune(self, batch: types.ReplayBatch):
    """Calls every module that fine-tuning uses, to create its parameters."""
    embed = self.encode(images.to_float(batch.image), False)
    s, _ = self.latent_dynamics.observe(
      embed, self._latent(batch.action), batch.is_first, None
    )
    heads_of_s = (
      self.reward,
      self.aux_reward,
      self.continuation,
      self.actor,
      self.critic,
    )
    read = [head(s.feat) for head in heads_of_s if head is not None]
    return self.decode(s.feat, False), read

  def pretrain(
    self,
    batch: types.VideoBatch,
    keys: list[jax.Array],
    shuffle: Callable,
  ) -> tuple[outputs.Latent, Compared]:
    """Runs the forward pass of pre-training.

    Args:
      batch: leaves [B, T, ...].
      keys: two of [B] typed keys: of latent actions, of samples of z.
      shuffle: trees of [B, ...] -> those of the sequences that each is compared
        with.
    """
    latent_keys, sample_keys = keys
    image = images.to_float(batch.image)
    T, Z = image.shape[1], self.latent_dynamics.action_size
    normal = noise.draw(latent_keys, jax.random.normal, (T - 1, Z))
    latent = self._infer(image, normal, True)
    embed = self.encode(image, True)
    gumbel = self._gumbel(sample_keys, embed.shape[1:-1])
    z, prior = self._observe_z(embed, latent, batch.is_first, gumbel)
    other = shuffle(latent)
    z_other = self.latent_dynamics.img_step(
      jax.tree.map(lambda x: x[:, :-1], z),
      other.sample,
      None,  # its logits alone are of interest
    )
    return outputs.Latent(
      image=image, z=z, z_prior=prior, z_decoded=self.decode(z.feat, True)
    ), Compared(latent, other, z_other)

  def finetune(
    self, batch: types.ReplayBatch, keys: jax.Array
  ) -> tuple[outputs.Action, jax.Array]:
    """Filters segments and reads all heads.

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys, of the samples.

    Returns:
      The pass, and embeddings of the images [B, T, E].
    """
    image = images.to_float(batch.image)
    embed = self.encode(image, True)
    s, prior = self.latent_dynamics.observe(
      embed,
      self._latent(batch.action),
      batch.is_first,
      self._gumbel(keys, embed.shape[1:-1]),
    )
    out = outputs.Action(
      image=image,
      s=s,
      s_prior=prior,
      s_decoded=self.decode(s.feat, True),
      reward=self.reward(s.feat),
      aux_reward=self.aux_reward(s.feat),
      continuation=None
      if self.continuation is None
      else self.continuation(s.feat),
    )
    return out, embed

  def img_step(
    self,
    state: types.RSSMState,
    action: jax.Array,
    gumbel: jax.Array | None,
  ) -> types.RSSMState:
    """Imagines one step under the robot's action [..., A]."""
    return self.latent_dynamics.img_step(state, self._latent(action), gumbel)

  def initial_state(self, batch: int) -> types.RSSMState:
    """Returns the state before any observation."""
    return self.latent_dynamics.initial(batch, self.dtype)

  def act(
    self, carry: types.PolicyCarry, obs: types.Observation, keys: jax.Array
  ) -> tuple[types.RSSMState, jax.Array, jax.Array]:
    """Acts one step: s, and mean and std of the action, [B, A]."""
    embed = self.encode(images.to_float(obs.image), False)
    s = self.latent_dynamics.obs_step(
      carry.s,
      embed,
      self._latent(carry.action),
      obs.is_first,
      self._gumbel(keys, ()),
    )
    return s, *self.actor(s.feat)

  def open_loop(
    self,
    batch: types.VideoBatch,
    driver: types.VideoBatch | None,
    context_steps: int,
  ) -> tuple[jax.Array, jax.Array]:
    """Reconstructs and predicts clips; see `Pretrains.open_loop`."""
    image, n = images.to_float(batch.image), context_steps
    latent = later = self._infer(image, None, False)
    if driver is not None:
      later = self._infer(images.to_float(driver.image), None, False)
    embed = self.encode(image, False)
    z, _ = self._observe_z(embed, latent, batch.is_first, None)
    recon = self.decode(z.feat, False)
    start = jax.tree.map(lambda x: x[:, n - 1], z)
    future = self.latent_dynamics.imagine(start, later.sample[:, n - 1 :], None)
    predicted = self.decode(future.feat, False)
    return recon, jnp.concatenate([recon[:, :n], predicted], 1)

  def _infer(self, image, normal, train):
    return self.inverse_dynamics(image.astype(self.dtype), normal, train)

  def _observe_z(self, embed, latent, is_first, gumbel):
    action = latent_actions.at_frames(latent.sample)
    return self.latent_dynamics.observe(embed, action, is_first, gumbel)

  def _latent(self, action):
    return self.action_encoder(action.astype(self.dtype))

  def _gumbel(self, keys, lead):
    model = self.latent_dynamics
    shape = (*lead, model.groups, model.classes)
    return noise.draw(keys, jax.random.gumbel, shape)
