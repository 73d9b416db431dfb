"""DRP: Deconstruct-Recompose pre-training and its fine-tuning (Algs. 1, 2)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from drp_jax import losses, types
from drp_jax.agents import behavior
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

Metrics = dict[str, jax.Array]

# What pre-training teaches and fine-tuning loads (Algorithm 2, line 1).
PRETRAINED = (
  'dae',
  'mae_decoder',
  'image_encoder',
  'context_encoder',
  'image_decoder',
  'latent_dynamics',
)


@flax.struct.dataclass
class WorldModelOutput:
  """What a world-model loss leaves for policy learning and the next step.

  Attributes:
    collections: non-trainable variables after the step (batch statistics).
    s: posterior of the action-specific model, leaves [B, T, ...].
    bonus_state: of the intrinsic bonus.
    metrics: scalars.
  """

  collections: Any
  s: types.RSSMState
  bonus_state: Any
  metrics: Metrics


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


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of Eqs. 5-9 and 1.3 of the lineage; see configs/base.py."""

  mae: float
  dyn: float
  image: float
  kl_z: float
  kl_s: float
  reward: float
  aux_reward: float
  kl_balance: float
  free_nats: float


@dataclasses.dataclass(frozen=True)
class DRP:
  """The calls through which the training loops know a system.

  Attributes:
    model: the networks.
    weights: of the losses.
    behavior: numbers of policy learning.
    window: W, flows in a tracking window.
    axis_name: device axis of the training step, or None.
  """

  model: DRPModel
  weights: LossWeights
  behavior: behavior.Settings
  window: int
  axis_name: str | None = None

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """Creates variables for pre-training or, from a ReplayBatch, fine-tuning.

    Args:
      key: typed key.
      batch: VideoBatch or ReplayBatch; only shapes matter.

    Returns:
      {'params', 'batch_stats', 'constants'}; the top keys of 'params' are the
      parameter sets of Algorithm 2.
    """
    finetune = isinstance(batch, types.ReplayBatch)
    method = self.model.init_finetune if finetune else self.model.init_pretrain
    keys = noise.example_keys(key, 0, batch.image.shape[0])
    return self.model.init(key, batch, keys, method=method)

  def pretrain_loss(
    self, params: Any, collections: Any, batch: types.VideoBatch, keys
  ) -> tuple[jax.Array, tuple[Any, Metrics]]:
    """L_MAE + L_dyn (Eqs. 5, 6; choice C1: joint).

    Args:
      params: trainable parameters.
      collections: the other variables.
      batch: leaves [b, T, ...].
      keys: [b] typed keys.

    Returns:
      The loss [], and (collections after the step, metrics).
    """
    out, updated = self._apply(
      params, collections, batch, keys, self.model.pretrain
    )
    loss, metrics = self._shared_losses(out)
    return loss, (updated, dict(metrics, **{'loss/total': loss}))

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: Callable[[jax.Array], tuple[jax.Array, Any]],
  ) -> tuple[jax.Array, WorldModelOutput]:
    """L_MAE + L_dyn + L_action (Eqs. 7-9; choices D2-D5: one sum).

    Args:
      params: trainable parameters.
      collections: the other variables.
      batch: leaves [b, T, ...].
      keys: [b] typed keys.
      bonus_fn: z's features [b, T, F] -> intrinsic bonus [b, T - n], for the
        first T - n steps, already weighted, and the bonus's next state (D8).

    Returns:
      The loss [] and what policy learning and the next step need.
    """
    w = self.weights
    out, updated = self._apply(
      params, collections, batch, keys, self.model.finetune
    )
    loss, metrics = self._shared_losses(out)
    bonus, bonus_state = bonus_fn(jax.lax.stop_gradient(out['z'].feat))
    n = bonus.shape[1]

    image = losses.image_loss(out['s_decoded'], out['image'])
    kl, kl_value = losses.kl_loss(
      out['s'].logits,
      out['s_prior'].logits,
      w.kl_balance,
      w.free_nats,
      self.axis_name,
    )
    reward = losses.reward_loss(
      out['reward'][:, :n], batch.reward[:, :n] + bonus
    )
    aux_reward = losses.reward_loss(out['aux_reward'], batch.reward)
    loss += w.image * image + w.kl_s * kl
    loss += w.reward * reward + w.aux_reward * aux_reward
    metrics |= {
      'loss/image': image,
      'loss/kl_s': kl,
      'loss/reward': reward,
      'loss/aux_reward': aux_reward,
      'loss/total': loss,
      'kl/s': kl_value,
      'entropy/s_post': _entropy(out['s']),
      'entropy/s_prior': _entropy(out['s_prior']),
      'bonus/mean': bonus.mean(),
      'reward/batch': batch.reward.mean(),
    }
    return loss, WorldModelOutput(updated, out['s'], bonus_state, metrics)

  def start_states(self, output: WorldModelOutput) -> types.RSSMState:
    """Where imagination starts: every posterior s, leaves [N = b T, ...]."""
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), output.s)
    return jax.lax.stop_gradient(flat)

  def reconstruct_motion(
    self, variables: Any, batch: types.VideoBatch, keys: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The masked pass alone: recon, patches [B, T, K, 2 P^2], hidden."""
    recon, u, hidden, _ = self.model.apply(
      variables,
      batch.motion,
      batch.is_first,
      keys,
      method=self.model.deconstruct,
    )
    return recon, u, hidden

  def open_loop(
    self,
    variables: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
    context_steps: int,
  ) -> tuple[jax.Array, jax.Array]:
    """Reconstructs clips, and predicts them from their first frames (E9).

    Predictions follow the clips' own later motion through a_agg (T6), and see
    the appearance of the last context frame only. Modes, running statistics.

    Args:
      variables: params and collections.
      batch: leaves [B, T, ...].
      keys: [B] typed keys, for the decoder's kept context tokens.
      context_steps: frames that are seen.

    Returns:
      Reconstructions from the posterior, and predictions whose first
      `context_steps` frames are reconstructions; [B, T, H, W, 3] each, in
      [-0.5, 0.5].
    """
    return self.model.apply(
      variables, batch, keys, context_steps, method=self.model.open_loop
    )

  def behavior_loss(
    self,
    trained: dict[str, Any],
    slow_critic: Any,
    params: Any,
    collections: Any,
    start: types.RSSMState,
    keys: jax.Array,
  ) -> tuple[jax.Array, Metrics]:
    """L_actor + L_critic (Eqs. 11, 12) in the imagination of s.

    Args:
      trained: {'actor', 'critic'} parameters.
      slow_critic: critic parameters that bootstrap returns.
      params: of the world model, frozen here.
      collections: the other variables.
      start: from `start_states`, leaves [N, ...].
      keys: [b] typed keys; N / b states belong to each.

    Returns:
      The loss [] and metrics.
    """
    model, H = self.model, self.behavior.horizon
    b, N = keys.shape[0], start.deter.shape[0]
    action_keys, state_keys = noise.split(keys, 2)

    def draw(keys, sampler, shape):
      x = noise.draw(keys, sampler, (H, N // b, *shape))  # [b, H, T, ...]
      return jnp.swapaxes(x, 0, 1).reshape(H, N, *shape)

    def call(method, own=None):
      own = own or {}
      variables = {'params': {**params, **own}, **collections}
      return lambda *args: model.apply(variables, *args, method=method)

    fns = behavior.Functions(
      img_step=call(model.img_step_s),
      reward=call(model.predict_reward),
      policy=lambda p, feat: call(model.policy, {'actor': p})(feat),
      value=lambda p, feat: call(model.value, {'critic': p})(feat),
    )
    return behavior.loss(
      trained,
      slow_critic,
      fns,
      start,
      draw(action_keys, jax.random.uniform, (model.actor.action_size,)),
      draw(state_keys, jax.random.gumbel, start.logits.shape[1:]),
      self.behavior,
    )

  def policy_step(
    self,
    variables: Any,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """Sees one observation of B environments, chooses actions.

    Args:
      variables: params and collections.
      carry: from `initial_carry` or the step before; `obs.is_first` resets it.
      obs: leaves [B, ...].
      keys: [B] typed keys.
      explore: sample the action (True) or take the mode; latents are sampled
        either way (D17).

    Returns:
      The next carry and actions [B, A] in (-1, 1).
    """
    return self.model.apply(
      variables, carry, obs, keys, explore, method=self.model.act
    )

  def initial_carry(self, batch: int, num_keypoints: int) -> types.PolicyCarry:
    """What to remember before the first step of `batch` environments."""
    model = self.model
    return types.PolicyCarry(
      z=model.latent_dynamics.initial(batch),
      s=model.action_dynamics.initial(batch),
      action=jnp.zeros([batch, model.actor.action_size]),
      cache=model.dae.initial_cache(batch, num_keypoints, self.window),
    )

  def _apply(self, params, collections, batch, keys, method):
    return self.model.apply(
      {'params': params, **collections},
      batch,
      keys,
      method=method,
      mutable=list(collections),
    )

  def _shared_losses(self, out) -> tuple[jax.Array, Metrics]:
    w = self.weights
    mae = losses.mae_loss(out['recon'], out['patches'], out['hidden'])
    image = losses.image_loss(out['decoded'], out['image'])
    kl, kl_value = losses.kl_loss(
      out['z'].logits,
      out['prior'].logits,
      w.kl_balance,
      w.free_nats,
      self.axis_name,
    )
    loss = w.mae * mae + w.dyn * (image + w.kl_z * kl)
    a_agg = out['a_agg'][:, 1:]
    zero = losses.mae_loss(
      jnp.zeros_like(out['patches']), out['patches'], out['hidden']
    )
    return loss, {
      'loss/mae': mae,
      'loss/image_z': image,
      'loss/kl_z': kl,
      'kl/z': kl_value,
      'mae/zero_flow': zero,
      'entropy/z_post': _entropy(out['z']),
      'entropy/z_prior': _entropy(out['prior']),
      'a_agg/std': _spread(a_agg, self.axis_name),
    }


def _entropy(state: types.RSSMState) -> jax.Array:
  return distributions.categorical_entropy(state.logits).mean()


def _spread(x: jax.Array, axis_name: str | None) -> jax.Array:
  """Standard deviation of [b, T, D] over all devices' b and T, mean over D."""
  moments = x.mean((0, 1)), jnp.square(x).mean((0, 1))
  if axis_name is not None:
    moments = jax.lax.pmean(moments, axis_name)
  mean, square = moments
  return jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0)).mean()
