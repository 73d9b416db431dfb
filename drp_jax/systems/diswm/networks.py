"""The world model of DisWM: a beta-VAE under one dynamics model.

What is trained on what comes out stands in `diswm.py`.
"""

import flax.struct
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import heads, one_dynamics, outputs, rssm
from drp_jax.ops import images, noise
from drp_jax.systems.diswm import vae


@flax.struct.dataclass
class Codes:
  """Codes of images, normals of independent numbers.

  Attributes:
    mean: [B, T, Z].
    std: [B, T, Z].
    sample: [B, T, Z] of them; None in pre-training.
    teacher: [B, T, Z], a sample of the teacher's; None in pre-training.
  """

  mean: jax.Array
  std: jax.Array
  sample: jax.Array | None = None
  teacher: jax.Array | None = None


class DisWMModel(one_dynamics.OneDynamics):
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

  teacher: vae.VAEEncoder
  image_encoder: vae.VAEEncoder
  image_decoder: vae.VAEDecoder
  action_dynamics: rssm.RSSM
  reward: heads.ScalarHead
  continuation: heads.ScalarHead | None
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  dtype: jnp.dtype

  def pretrain(
    self, batch: types.VideoBatch, keys: jax.Array | None
  ) -> tuple[outputs.Latent, Codes]:
    """Runs the forward pass of pre-training; states are modes  [DisWM].

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys of the images' codes, or None for their means.
    """
    image = images.to_float(batch.image)
    mean, std = self.teacher(image.astype(self.dtype))
    z, prior = self.action_dynamics.observe(
      self._code(mean, std, keys), self._no_action(image), batch.is_first, None
    )
    return outputs.Latent(
      image=image, z=z, z_prior=prior, z_decoded=self.image_decoder(z.feat)
    ), Codes(mean, std)

  def finetune(
    self, batch: types.ReplayBatch, keys: jax.Array
  ) -> tuple[outputs.Action, Codes]:
    """Filters segments and reads all heads.

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys, of the samples.
    """
    code_keys, teacher_keys, state_keys = noise.split(keys, 3)
    image = images.to_float(batch.image)
    x = image.astype(self.dtype)
    mean, std = self.image_encoder(x)
    code = self._code(mean, std, code_keys)
    s, prior = self.action_dynamics.observe(
      code, batch.action, batch.is_first, self._normal(state_keys, code)
    )
    out = outputs.Action(
      image=image,
      s=s,
      s_prior=prior,
      s_decoded=self.image_decoder(s.feat),
      reward=self.reward(s.feat),
      continuation=None
      if self.continuation is None
      else self.continuation(s.feat),
    )
    teacher_code = self._code(*self.teacher(x), teacher_keys)
    return out, Codes(mean, std, code, teacher_code)

  def init_finetune(self, batch: types.ReplayBatch, keys: jax.Array):
    """Calls every module, to create its parameters."""
    out, _ = self.finetune(batch, keys)
    return self.actor(out.s.feat), self.critic(out.s.feat)

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
    """Reconstructs and predicts clips; see `Pretrains.open_loop`."""
    n, (out, _) = context_steps, self.pretrain(batch, None)
    start = jax.tree.map(lambda x: x[:, n - 1], out.z)
    future = self.action_dynamics.imagine(
      start, self._no_action(out.image[:, n:]), None
    )
    predicted = self.image_decoder(future.feat)
    recon = out.z_decoded
    assert recon is not None
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
