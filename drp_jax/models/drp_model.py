"""The networks of DRP, put together: one forward pass for each stage.

What is trained on what comes out stands in `drp_jax/agents/drp.py`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import (
  adapter,
  dae,
  heads,
  image_decoder,
  image_encoder,
  mae_decoder,
  rssm,
)
from drp_jax.ops import distributions, images, masking, noise, patches


class DRPModel(nn.Module):
  """The networks, one submodule per parameter set of Algorithm 2.

  Attributes:
    submodules are built by `train/build.py`; `patch_size` is P, `mask_ratio`
    rho, `embed_in_adapter` whether s also sees the image embedding (D7).
  """

  dae: dae.DAE
  mae_decoder: mae_decoder.MAEDecoder
  image_encoder: image_encoder.ImageEncoder
  context_encoder: image_encoder.ImageEncoder
  image_decoder: image_decoder.ImageDecoder
  latent_dynamics: rssm.RSSM
  adapter: adapter.Adapter
  action_dynamics: rssm.RSSM
  reward: heads.ScalarHead
  aux_reward: heads.ScalarHead
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  patch_size: int
  mask_ratio: float
  embed_in_adapter: bool

  def setup(self):
    # sigma of A3: measured on the pre-training set, kept with the weights.
    self.flow_scale = self.variable('constants', 'flow_scale', jnp.ones, ())

  def atomic_actions(self, motion: types.Motion) -> jax.Array:
    """Crops and normalises: leaves [..., T, ...] -> [..., T, K, 2 P^2]."""
    cropped = patches.crop(motion.flow, motion.points, self.patch_size)
    cropped = patches.normalise(cropped, self.flow_scale.value)
    return cropped.reshape(*cropped.shape[:-3], -1)

  def deconstruct(
    self, motion: types.Motion, is_first: jax.Array, keys: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """A masked pass for L_MAE and a full one for a_agg (B15), as one batch.

    Returns:
      recon, patches [B, T, K, 2 P^2]; hidden [B, T, K]; tokens [B, T, K+1, D]
      of the full pass.
    """
    u = self.atomic_actions(motion)
    hidden = masking.random_hidden(keys, ~is_first, u.shape[2], self.mask_ratio)
    both = jax.tree.map(
      lambda x: jnp.concatenate([x, x], 0),
      (u, motion.points, motion.window_step, is_first),
    )
    encoded = self.dae(*both, jnp.concatenate([hidden, hidden & False], 0))
    masked, full = jnp.split(encoded, 2, 0)
    recon = self.mae_decoder(
      masked, motion.points, motion.window_step, is_first, hidden
    )
    return recon, u, hidden, full

  def encode(self, image: jax.Array, train: bool) -> jax.Array:
    """[B, T, H, W, 3] in [-0.5, 0.5] -> embeddings [B, T, E]."""
    embed, _ = self.image_encoder(image.reshape(-1, *image.shape[2:]), train)
    return embed.reshape(*image.shape[:2], -1)

  def context(self, image: jax.Array, train: bool) -> image_decoder.Context:
    """Encodes one frame of every sequence, [B, H, W, 3]."""
    _, (_, fine, coarse) = self.context_encoder(image, train)
    return image_decoder.Context(coarse=coarse, fine=fine)

  def observe_z(self, embed, a_agg, is_first, gumbel):
    """Eq. 1 over sequences; see `RSSM.observe`."""
    return self.latent_dynamics.observe(embed, a_agg, is_first, gumbel)

  def observe_s(self, z_feat, embed, action, is_first, gumbel):
    """Eq. 3 over sequences: adapter, then the action-specific model."""
    return self.action_dynamics.observe(
      self.adapt(z_feat, embed), action, is_first, gumbel
    )

  def adapt(self, z_feat: jax.Array, embed: jax.Array) -> jax.Array:
    """What s observes: Adapter(z), on DMCR joined to the embedding (D7)."""
    adapted = self.adapter(z_feat)
    if self.embed_in_adapter:
      adapted = jnp.concatenate([embed, adapted], -1)
    return adapted

  def decode(self, feat, context, keys, train):
    """Features [B, T, F] -> image means [B, T, H, W, 3]."""
    return self.image_decoder(feat, context, keys, train)

  def predict_reward(self, feat: jax.Array) -> jax.Array:
    """Behavioural reward head: [..., F] -> [...]."""
    return self.reward(feat)

  def policy(self, feat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and std of the truncated normal, [..., A] each."""
    return self.actor(feat)

  def value(self, feat: jax.Array) -> jax.Array:
    """Critic: [..., F] -> [...]."""
    return self.critic(feat)

  def img_step_s(self, state, action, gumbel) -> types.RSSMState:
    """One imagined step of s, which needs no a_agg (D10)."""
    return self.action_dynamics.img_step(state, action, gumbel)

  def init_pretrain(self, batch: types.VideoBatch, keys: jax.Array):
    """Touches every module that pre-training uses, to create its parameters."""
    hide, decode = noise.split(keys, 2)
    image = images.to_float(batch.image)
    recon, _, _, tokens = self.deconstruct(batch.motion, batch.is_first, hide)
    embed = self.encode(image, False)
    post, _ = self.observe_z(embed, tokens[:, :, 0], batch.is_first, None)
    context = self.context(image[:, 0], False)
    return recon, self.decode(post.feat, context, decode, False), post, embed

  def init_finetune(self, batch: types.ReplayBatch, keys: jax.Array):
    """Touches every module."""
    *_, z, embed = self.init_pretrain(batch, keys)
    s, _ = self.observe_s(z.feat, embed, batch.action, batch.is_first, None)
    return (
      self.reward(s.feat),
      self.aux_reward(s.feat),
      self.actor(s.feat),
      self.critic(s.feat),
    )

  def pretrain(self, batch: types.VideoBatch, keys: jax.Array):
    """The forward pass of Algorithm 1, lines 9-13.

    Returns:
      A dict of losses [] and metrics [], and z's posterior and `a_agg`.
    """
    hide, context, sample, decode = noise.split(keys, 4)
    image = images.to_float(batch.image)
    recon, u, hidden, tokens = self.deconstruct(
      batch.motion, batch.is_first, hide
    )
    a_agg = tokens[:, :, 0]  # L_dyn's gradient flows on into [MAT], DAE (C2)
    embed = self.encode(image, True)
    z, prior = self.observe_z(
      embed, a_agg, batch.is_first, self._gumbel(sample, embed)
    )
    context = self.context(_random_frame(image, context), True)
    decoded = self.decode(z.feat, context, decode, True)
    return dict(
      recon=recon,
      patches=u,
      hidden=hidden,
      a_agg=a_agg,
      image=image,
      embed=embed,
      z=z,
      prior=prior,
      context=context,
      decoded=decoded,
    )

  def finetune(self, batch: types.ReplayBatch, keys: jax.Array):
    """The forward pass of Algorithm 2, lines 11-18; adds s to `pretrain`."""
    pretrain_keys, sample, decode = noise.split(keys, 3)
    out = self.pretrain(batch, pretrain_keys)
    s, prior = self.observe_s(
      out['z'].feat,
      out['embed'],
      batch.action,
      batch.is_first,
      self._gumbel(sample, out['embed'], self.action_dynamics),
    )
    return dict(
      out,
      s=s,
      s_prior=prior,
      s_decoded=self.decode(s.feat, out['context'], decode, True),
      aux_reward=self.aux_reward(s.feat),
      reward=self.reward(s.feat),
    )

  def open_loop(
    self, batch: types.VideoBatch, keys: jax.Array, context_steps: int
  ) -> tuple[jax.Array, jax.Array]:
    """Reconstructs and predicts clips; see `DRP.open_loop`."""
    decode_keys, more_keys = noise.split(keys, 2)
    image = images.to_float(batch.image)
    u = self.atomic_actions(batch.motion)
    tokens = self.dae(
      u,
      batch.motion.points,
      batch.motion.window_step,
      batch.is_first,
      jnp.zeros(u.shape[:3], bool),
    )
    a_agg, n = tokens[:, :, 0], context_steps
    embed = self.encode(image, False)
    context = self.context(image[:, n - 1], False)
    z, _ = self.observe_z(embed, a_agg, batch.is_first, None)
    recon = self.decode(z.feat, context, decode_keys, False)
    start = jax.tree.map(lambda x: x[:, n - 1], z)
    future = self.latent_dynamics.imagine(start, a_agg[:, n:], None)
    predicted = self.decode(future.feat, context, more_keys, False)
    return recon, jnp.concatenate([recon[:, :n], predicted], 1)

  def act(
    self,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """One step of Algorithm 2, lines 7-8; see `DRP.policy_step`."""
    z_key, s_key, action_key = noise.split(keys, 3)
    motion, first = obs.motion, obs.is_first
    u = self.atomic_actions(motion)
    tokens, cache = self.dae.step(
      u, motion.points, motion.window_step, first, carry.cache
    )
    embed, _ = self.image_encoder(images.to_float(obs.image), False)
    z = self.latent_dynamics.obs_step(
      carry.z,
      embed,
      tokens[:, 0],
      first,
      self._gumbel(z_key, embed),  # sampled, as in IPV (D17)
    )
    s = self.action_dynamics.obs_step(
      carry.s,
      self.adapt(z.feat, embed),
      carry.action,
      first,
      self._gumbel(s_key, embed, self.action_dynamics),
    )
    mean, std = self.actor(s.feat)
    if explore:
      uniform = noise.draw(action_key, jax.random.uniform, mean.shape[1:])
      action = distributions.truncated_normal_sample(mean, std, uniform)
    else:
      action = mean
    return types.PolicyCarry(z=z, s=s, action=action, cache=cache), action

  def _gumbel(self, keys, embed, dynamics=None):
    model = dynamics or self.latent_dynamics
    shape = (*embed.shape[1:-1], model.groups, model.classes)
    return noise.draw(keys, jax.random.gumbel, shape)


def _random_frame(image: jax.Array, keys: jax.Array) -> jax.Array:
  """One uniformly random frame of every sequence: [B, T, ...] -> [B, ...]."""
  T = image.shape[1]
  draw = lambda key: jax.random.randint(key, (), 0, T)  # noqa: E731
  index = jax.vmap(draw)(keys)
  return jnp.take_along_axis(image, index[:, None, None, None, None], 1)[:, 0]
