"""The world model of DisWM: a beta-VAE under one dynamics model.

What is trained on what comes out stands in `drp_jax/agents/diswm.py`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import diswm_vae, heads, rssm
from drp_jax.ops import images, noise


class DisWMModel(nn.Module):
  """The networks, one submodule per parameter set.

  Attributes:
    teacher: the encoder that pre-training teaches, frozen in fine-tuning.
    image_encoder: the encoder of fine-tuning.
    image_decoder: from features.
    action_dynamics: the one dynamics model, with normal latents. Pre-training
      has its own, without actions, which is not kept.
    reward: read in imagination.
    continuation: predicts the discount, read in imagination as its logit; None
      where episodes do not terminate.
    actor: the policy.
    critic: values.
    dtype: what the networks compute in.
  """

  teacher: diswm_vae.VAEEncoder
  image_encoder: diswm_vae.VAEEncoder
  image_decoder: diswm_vae.VAEDecoder
  action_dynamics: rssm.RSSM
  reward: heads.ScalarHead
  continuation: heads.ScalarHead | None
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  dtype: jnp.dtype

  def pretrain(
    self, batch: types.VideoBatch, keys: jax.Array | None
  ) -> dict[str, Any]:
    """Runs the forward pass of pre-training; states are modes  [DisWM].

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys of the images' codes, or None for their means.

    Returns:
      `image`; posterior `z` and prior `z_prior`, `z_decoded`; `mean` and `std`
      of the images' codes [B, T, Z].
    """
    image = images.to_float(batch.image)
    mean, std = self.teacher(image.astype(self.dtype))
    z, prior = self.action_dynamics.observe(
      self._code(mean, std, keys), self._no_action(image), batch.is_first, None
    )
    return dict(
      image=image,
      z=z,
      z_prior=prior,
      z_decoded=self.image_decoder(z.feat),
      mean=mean,
      std=std,
    )

  def finetune(
    self, batch: types.ReplayBatch, keys: jax.Array
  ) -> dict[str, Any]:
    """Filters segments and reads all heads.

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys, of the samples.

    Returns:
      `image`; posterior `s` and prior `s_prior`; `s_decoded`, `reward`; `mean`
      and `std` of the codes; `code` and `teacher_code`, samples [B, T, Z];
      `continuation` if there is such a head.
    """
    code_keys, teacher_keys, state_keys = noise.split(keys, 3)
    image = images.to_float(batch.image)
    x = image.astype(self.dtype)
    mean, std = self.image_encoder(x)
    code = self._code(mean, std, code_keys)
    s, prior = self.action_dynamics.observe(
      code, batch.action, batch.is_first, self._normal(state_keys, code)
    )
    out = dict(
      image=image,
      s=s,
      s_prior=prior,
      s_decoded=self.image_decoder(s.feat),
      reward=self.reward(s.feat),
      mean=mean,
      std=std,
      code=code,
      teacher_code=self._code(*self.teacher(x), teacher_keys),
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
    normal: jax.Array | None,
  ) -> types.RSSMState:
    """Imagines one step of s; see `RSSM.img_step`."""
    return self.action_dynamics.img_step(state, action, normal)

  def initial_state(self, batch: int) -> types.RSSMState:
    """Returns the state before any observation."""
    return self.action_dynamics.initial(batch, self.dtype)

  def act(
    self, carry: types.PolicyCarry, obs: types.Observation, keys: jax.Array
  ) -> tuple[types.RSSMState, jax.Array, jax.Array]:
    """Acts one step: s, and mean and std of the action, [B, A]."""
    code_keys, state_keys = noise.split(keys, 2)
    image = images.to_float(obs.image).astype(self.dtype)
    code = self._code(*self.image_encoder(image), code_keys)
    normal = self._normal(state_keys, code)
    s = self.action_dynamics.obs_step(
      carry.s, code, carry.action, obs.is_first, normal
    )
    return s, *self.actor(s.feat)

  def open_loop(
    self, batch: types.VideoBatch, context_steps: int
  ) -> tuple[jax.Array, jax.Array]:
    """Reconstructs and predicts clips; see `System.open_loop`."""
    n, out = context_steps, self.pretrain(batch, None)
    start = jax.tree.map(lambda x: x[:, n - 1], out['z'])
    future = self.action_dynamics.imagine(
      start, self._no_action(out['image'][:, n:]), None
    )
    predicted = self.image_decoder(future.feat)
    recon = out['z_decoded']
    return recon, jnp.concatenate([recon[:, :n], predicted], 1)

  def _code(self, mean, std, keys):
    """Samples codes of the images, or returns their means."""
    if keys is not None:
      mean += std * noise.draw(keys, jax.random.normal, mean.shape[1:])
    return mean.astype(self.dtype)

  def _normal(self, keys, code):
    shape = (*code.shape[1:-1], self.action_dynamics.groups, 1)
    return noise.draw(keys, jax.random.normal, shape)

  def _no_action(self, image):
    return jnp.zeros([*image.shape[:2], self.action_dynamics.action_size])
