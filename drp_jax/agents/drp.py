"""DRP: Deconstruct-Recompose pre-training and its fine-tuning (Algs. 1, 2)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from drp_jax import losses, types
from drp_jax.agents import behavior
from drp_jax.models import drp_model
from drp_jax.ops import distributions, noise

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


@dataclasses.dataclass(frozen=True)
class LossWeights:
  """Weights of the terms of Eqs. 5-9; see configs/base.py `loss`."""

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

  model: drp_model.DRPModel
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
