"""Two dynamics models on top of each other: the world model of DRP and IPV.

The latent dynamics model z, pre-trained from videos, carries the one of the
robot's actions, s. What is trained on what comes out stands in
`drp_jax/systems/`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import (
  adapter,
  heads,
  image_decoder,
  image_encoder,
  network,
  outputs,
  rssm,
)
from drp_jax.ops import images, noise, seams


class StackedModel(network.Network):
  """The networks, one submodule per parameter set of Algorithm 2.

  Attributes:
    image_encoder: for the dynamics.
    context_encoder: for context frames; None in APV.
    image_decoder: of z and of s (D1).
    latent_dynamics: z.
    adapter: from z to s; None is the identity, as in IPV.
    action_dynamics: s.
    reward: behavioral head, read in imagination.
    aux_reward: representative head; None in APV.
    continuation: predicts the discount, read in imagination as its logit; None
      where episodes do not terminate.
    actor: the policy.
    critic: values.
    concat_embed: whether s also sees the image embedding (D7).
    context_erasing: whether training erases parts of context frames (D12).
    dtype: what the networks compute in.
  """

  image_encoder: image_encoder.ImageEncoder
  context_encoder: image_encoder.ImageEncoder | None
  image_decoder: image_decoder.ImageDecoder
  latent_dynamics: rssm.RSSM
  adapter: adapter.Adapter | adapter.MLPProjection | None
  action_dynamics: rssm.RSSM
  reward: heads.ScalarHead
  aux_reward: heads.ScalarHead | None
  continuation: heads.ScalarHead | None
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  concat_embed: bool
  context_erasing: bool
  dtype: jnp.dtype

  def encode(self, image: jax.Array, train: bool) -> jax.Array:
    """Encodes [..., H, W, 3] in [-0.5, 0.5] into embeddings [..., E]."""
    flat = image.reshape(-1, *image.shape[-3:]).astype(self.dtype)
    embed, _ = self.image_encoder(flat, train)
    return embed.reshape(*image.shape[:-3], -1)

  def context(
    self, image: jax.Array, train: bool
  ) -> image_decoder.Context | None:
    """Encodes one frame of every sequence, [B, H, W, 3]."""
    if self.context_encoder is None:
      return None
    _, (_, fine, coarse) = self.context_encoder(image.astype(self.dtype), train)
    return image_decoder.Context(coarse=coarse, fine=fine)

  def adapt(self, z_feat: jax.Array, embed: jax.Array) -> jax.Array:
    """Computes what s observes: Adapter(z), in DMCR with the embedding (D7)."""
    adapted = z_feat if self.adapter is None else self.adapter(z_feat)
    if self.concat_embed:
      adapted = jnp.concatenate([embed, adapted], -1)
    return adapted

  def observe_z(self, embed, a_agg, is_first, gumbel):
    """Filters z over sequences (Eq. 1); see `RSSM.observe`."""
    return self.latent_dynamics.observe(embed, a_agg, is_first, gumbel)

  def observe_s(self, z_feat, embed, action, is_first, gumbel):
    """Filters s over sequences (Eq. 3), adapter first."""
    return self.action_dynamics.observe(
      self.adapt(z_feat, embed), action, is_first, gumbel
    )

  def init_pretrain(
    self,
    batch: types.VideoBatch | types.ReplayBatch,
    a_agg: jax.Array,
    keys: jax.Array,
  ):
    """Calls every module that pre-training uses, to create its parameters."""
    image = images.to_float(batch.image)
    embed = self.encode(image, False)
    z, _ = self.observe_z(embed, a_agg, batch.is_first, None)
    context = self.context(image[:, 0], False)
    return z, embed, self.image_decoder(z.feat, context, keys, False)

  def init_finetune(
    self, batch: types.ReplayBatch, a_agg: jax.Array, keys: jax.Array
  ):
    """Calls every module, to create its parameters."""
    z, embed, _ = self.init_pretrain(batch, a_agg, keys)
    s, _ = self.observe_s(z.feat, embed, batch.action, batch.is_first, None)
    heads_of_s = (
      self.reward,
      self.aux_reward,
      self.continuation,
      self.actor,
      self.critic,
    )
    return [head(s.feat) for head in heads_of_s if head is not None]

  def pretrain(
    self,
    batch: types.VideoBatch | types.ReplayBatch,
    a_agg: jax.Array,
    keys: list[jax.Array],
    decode: bool = True,
  ) -> outputs.Latent:
    """Runs the forward pass of Algorithm 1 over images.

    Args:
      batch: leaves [B, T, ...].
      a_agg: [B, T, D], what drives z.
      keys: three of [B] typed keys: of the context frame, samples, decoder.
      decode: whether images are wanted too.
    """
    context_keys, sample_keys, decode_keys = keys
    image = images.to_float(batch.image)
    embed = self.encode(image, True)
    z, prior = self.observe_z(
      embed, a_agg, batch.is_first, self._gumbel(sample_keys, embed)
    )
    context, index = None, None
    if self.context_encoder is not None:
      frame, index = self._context_frame(image, context_keys)
      context = self.context(frame, True)
    decoded = None
    if decode:
      decoded = self.image_decoder(z.feat, context, decode_keys, True)
    return outputs.Latent(
      image=image,
      z=z,
      z_prior=prior,
      z_decoded=decoded,
      embed=embed,
      context=context,
      context_index=index,
    )

  def finetune(
    self,
    batch: types.ReplayBatch,
    a_agg: jax.Array,
    latent_keys: list[jax.Array],
    action_keys: list[jax.Array],
    decode_z: bool,
  ) -> tuple[outputs.Latent, outputs.Action]:
    """Runs the forward pass of Algorithm 2, lines 11-18; `pretrain` and s.

    Args:
      batch: leaves [B, T, ...].
      a_agg: [B, T, D], what drives z.
      latent_keys: of `pretrain`.
      action_keys: two of [B] typed keys: of samples of s, decoder.
      decode_z: whether images of z are wanted too (Eq. 8).

    Returns:
      The passes of z and of s.
    """
    sample_keys, decode_keys = action_keys
    latent = self.pretrain(batch, a_agg, latent_keys, decode_z)
    embed, weight = latent.embed, None
    if self.context_encoder is not None:
      assert latent.context_index is not None  # there is a context
      weight = seams.same_part_weight(batch.is_last, latent.context_index)
    s, prior = self.observe_s(
      latent.z.feat,
      embed,
      batch.action,
      batch.is_first,
      self._gumbel(sample_keys, embed, self.action_dynamics),
    )
    action = outputs.Action(
      image=latent.image,
      s=s,
      s_prior=prior,
      s_decoded=self.image_decoder(s.feat, latent.context, decode_keys, True),
      reward=self.reward(s.feat),
      aux_reward=None if self.aux_reward is None else self.aux_reward(s.feat),
      continuation=None
      if self.continuation is None
      else self.continuation(s.feat),
      image_weight=weight,
    )
    return dataclasses.replace(latent, image_weight=weight), action

  def img_step(
    self,
    state: types.RSSMState,
    action: jax.Array,
    gumbel: jax.Array | None,
  ) -> types.RSSMState:
    """Imagines one step of s; see `RSSM.img_step`."""
    return self.action_dynamics.img_step(state, action, gumbel)

  def latents(self, batch: types.VideoBatch, a_agg: jax.Array) -> jax.Array:
    """Observes clips: features of z, [B, T, F]; modes, running statistics.

    Args:
      batch: leaves [B, T, ...].
      a_agg: [B, T, D], what drives z.
    """
    embed = self.encode(images.to_float(batch.image), False)
    z, _ = self.observe_z(embed, a_agg, batch.is_first, None)
    return z.feat

  def open_loop(
    self,
    batch: types.VideoBatch,
    a_agg: jax.Array,
    later: jax.Array,
    keys: jax.Array,
    context_steps: int,
  ) -> tuple[jax.Array, jax.Array]:
    """Reconstructs and predicts clips; see `Pretrains.open_loop`.

    Args:
      batch: leaves [B, T, ...].
      a_agg: [B, T, D], what drives z while it observes.
      later: [B, T, D], what drives z from entry `context_steps` on while it
        predicts.
      keys: [B] typed keys, of the decoder.
      context_steps: frames that are seen.

    Returns:
      Reconstructions and predictions, [B, T, H, W, 3] each.
    """
    decode_keys, more_keys = noise.split(keys, 2)
    image, n = images.to_float(batch.image), context_steps
    embed = self.encode(image, False)
    context = self.context(image[:, n - 1], False)
    z, _ = self.observe_z(embed, a_agg, batch.is_first, None)
    recon = self.image_decoder(z.feat, context, decode_keys, False)
    start = jax.tree.map(lambda x: x[:, n - 1], z)
    future = self.latent_dynamics.imagine(start, later[:, n:], None)
    predicted = self.image_decoder(future.feat, context, more_keys, False)
    return recon, jnp.concatenate([recon[:, :n], predicted], 1)

  def act(
    self,
    carry: types.PolicyCarry,
    obs: types.Observation,
    a_agg: jax.Array,
    keys: list[jax.Array],
  ) -> tuple[types.RSSMState, types.RSSMState, jax.Array, jax.Array]:
    """Acts one step: both models, then the policy (Algorithm 2, lines 7-8).

    Args:
      carry: of the step before.
      obs: leaves [B, ...].
      a_agg: [B, D].
      keys: two of [B] typed keys, of samples of z and of s (D17: sampled).

    Returns:
      z and s; mean and std of the action, [B, A].
    """
    z_keys, s_keys = keys
    assert carry.z is not None  # as `initial_carry` made it
    embed = self.encode(images.to_float(obs.image), False)
    z = self.latent_dynamics.obs_step(
      carry.z, embed, a_agg, obs.is_first, self._gumbel(z_keys, embed)
    )
    s = self.action_dynamics.obs_step(
      carry.s,
      self.adapt(z.feat, embed),
      carry.action,
      obs.is_first,
      self._gumbel(s_keys, embed, self.action_dynamics),
    )
    return z, s, *self.actor(s.feat)

  def _context_frame(self, image, keys):
    """Draws a frame of every sequence: [B, T, ...] -> [B, ...], numbers [B]."""
    erase_keys = None
    if self.context_erasing:
      keys, erase_keys = noise.split(keys, 2)
    T = image.shape[1]
    draw = lambda key, shape: jax.random.randint(key, shape, 0, T)  # noqa: E731
    index = noise.draw(keys, draw, ())
    place = index[:, None, None, None, None]
    frame = jnp.take_along_axis(image, place, 1)[:, 0]
    if erase_keys is not None:
      frame = images.random_erasing(frame, erase_keys)
    return frame, index

  def _gumbel(self, keys, embed, dynamics=None):
    model = dynamics or self.latent_dynamics
    shape = (*embed.shape[1:-1], model.groups, model.classes)
    return noise.draw(keys, jax.random.gumbel, shape)
