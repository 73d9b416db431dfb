"""DreamerV3 (Hafner et al.), as its official code at e3f0224 has it.

World model, actor and critic learn at once from one loss, `joint_loss`, by
`update.AtOnce`. `contract.System` says what the other calls mean.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections

from drp_jax import types
from drp_jax.ops import distributions, images, noise, seams, two_hot
from drp_jax.runs import ranges
from drp_jax.systems import acting, contract, definition, parts
from drp_jax.systems.dreamerv3 import laprop, networks, returns, update

_RANGES = {
  'dreamerv3.lr': ranges.RATE,
  'dreamerv3.warmup': ranges.COUNT,
  'dreamerv3.adaptive_clip': ranges.POSITIVE,
  'dreamerv3.discount': ranges.CHANCE,
  'dreamerv3.entropy_scale': ranges.WEIGHT,
  'dreamerv3.dyn_scale': ranges.WEIGHT,
  'dreamerv3.rep_scale': ranges.WEIGHT,
  'dreamerv3.replay_value_scale': ranges.WEIGHT,
  'dreamerv3.free_nats': ranges.WEIGHT,
  'dreamerv3.slow_scale': ranges.WEIGHT,
  'dreamerv3.slow_rate': ranges.RATE,
  'dreamerv3.return_rate': ranges.RATE,
  'dreamerv3.return_limit': ranges.POSITIVE,
}


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of the losses; see configs/base.py `dreamerv3` and `behavior`.

  Attributes:
    horizon: imagined steps.
    lam: lambda of both returns.
    discount: gamma; the continue head predicts it.
    entropy_scale: eta.
    dyn_scale: of the prior's KL to the stopped posterior.
    rep_scale: of the posterior's KL to the stopped prior.
    replay_value_scale: of the critic's loss on replayed steps.
    free_nats: below which each step's KL has no gradient.
    slow_scale: of the pull of values towards the slow critic's.
    return_rate: of the moving average of the returns' range.
    return_limit: smallest range that advantages are divided by.
  """

  horizon: int
  lam: float
  discount: float
  entropy_scale: float
  dyn_scale: float
  rep_scale: float
  replay_value_scale: float
  free_nats: float
  slow_scale: float
  return_rate: float
  return_limit: float


@dataclasses.dataclass(frozen=True)
class DreamerV3(acting.ActsFromOneState):
  """One dynamics model, learned from scratch together with the policy.

  Attributes:
    model: all networks.
    settings: of the losses.
    axis_name: device axis of the training step, or None.
  """

  pretrained: ClassVar[tuple[str, ...]] = ()

  model: networks.DreamerV3Model
  settings: Settings
  axis_name: str | None = None

  def init(self, key: jax.Array, batch: types.ReplayBatch) -> dict[str, Any]:
    """See `System.init`. The range of returns is one of the collections."""
    keys = noise.example_keys(key, 0, batch.image.shape[0])
    model = self.model
    variables = model.init(key, batch, keys, method=model.init_finetune)
    return {**variables, 'return_range': returns.initial_range()}

  def joint_loss(
    self,
    params: Any,
    slow_critic: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, contract.Metrics]]:
    """The loss of all parameters.

    The world model learns from its own terms and from the replayed values,
    actor and critic from stopped states that the policy imagines, the critic
    also from the replayed ones.

    Args:
      params: of the world model, 'actor' and 'critic'.
      slow_critic: critic parameters that values are pulled towards.
      collections: 'return_range'.
      batch: leaves [b, T, ...].
      keys: [b] typed keys.

    Returns:
      The loss [], and (collections after the step, metrics).
    """
    c = self.settings
    state_keys, action_keys, image_keys = noise.split(keys, 3)
    out = self.model.apply(
      {'params': params}, batch, state_keys, method=self.model.finetune
    )
    terms, metrics = _world_model_terms(out, batch, c)

    feats, actions = self._imagine(
      jax.lax.stop_gradient(params),
      jax.lax.stop_gradient(out.s),
      action_keys,
      image_keys,
    )
    imagined = self._read(params, slow_critic, feats)
    ret = returns.lambda_return(
      imagined['reward'], imagined['value'], imagined['live'], c.lam
    )
    return_range = returns.follow(
      collections['return_range'], ret, c.return_rate, self.axis_name
    )
    more_terms, more_metrics = _behavior_terms(
      imagined, actions, ret, return_range, c
    )
    terms |= more_terms

    # The return of an imagined rollout is the value of the state it began at.
    feat = jnp.swapaxes(out.s.feat, 0, 1)  # [T, b, F]
    start_ret = jnp.swapaxes(ret[0].reshape(batch.reward.shape), 0, 1)
    terms['replay_value'] = _replay_value(
      self._apply('critic', params['critic'], feat),
      self._apply('critic', slow_critic, jax.lax.stop_gradient(feat)),
      start_ret,
      batch,
      c,
    )
    scales = {
      'dyn': c.dyn_scale,
      'rep': c.rep_scale,
      'replay_value': c.replay_value_scale,
    }
    loss: Any = sum(
      scales.get(name, 1.0) * term for name, term in terms.items()
    )
    metrics |= more_metrics | {f'loss/{k}': term for k, term in terms.items()}
    metrics['loss/total'] = loss
    return loss, ({**collections, 'return_range': return_range}, metrics)

  def choose_action(
    self, mean: jax.Array, std: jax.Array, keys: jax.Array, explore: bool
  ) -> jax.Array:
    """Samples the normal, or takes its mean; [B, A] clipped to [-1, 1]."""
    action = mean
    if explore:
      action += std * noise.draw(keys, jax.random.normal, mean.shape[1:])
    return jnp.clip(action, -1.0, 1.0)

  def _imagine(self, params, s, action_keys, image_keys):
    """Follows the policy from every state: s has leaves [b, T, ...].

    Returns features [H+1, N, F] and the actions [H, N, A] between them, not
    clipped.
    """
    H, (b, T) = self.settings.horizon, s.deter.shape[:2]
    start = jax.tree.map(lambda x: x.reshape(b * T, *x.shape[2:]), s)

    def draw(keys, sampler, shape):
      x = noise.draw(keys, sampler, (H, T, *shape))  # [b, H, T, ...]
      return jnp.swapaxes(x, 0, 1).reshape(H, b * T, *shape)

    def step(state, inputs):
      normal_noise, gumbel = inputs
      mean, std = self._apply('actor', params['actor'], state.feat)
      action = mean + std * normal_noise
      after = self.model.apply(
        {'params': params},
        method=lambda m: m.action_dynamics.img_step(state, action, gumbel),
      )
      return after, (state.feat, action)

    last, (feats, actions) = jax.lax.scan(
      step,
      start,
      (
        draw(action_keys, jax.random.normal, (self.model.actor.action_size,)),
        draw(image_keys, jax.random.gumbel, s.stoch.shape[2:]),
      ),
    )
    return jnp.concatenate([feats, last.feat[None]], 0), actions

  def _read(self, params, slow_critic, feats) -> dict[str, Any]:
    """What heads say of stopped features [H+1, N, F]; only some learn here."""

    def frozen(name, own):
      return self._apply(name, jax.lax.stop_gradient(own), feats)

    value_logits = self._apply('critic', params['critic'], feats)
    return {
      'reward': two_hot.mean(frozen('reward', params['reward'])),
      'live': jax.nn.sigmoid(frozen('cont', params['cont'])),
      'policy': self._apply('actor', params['actor'], feats[:-1]),
      'value_logits': value_logits,
      'value': two_hot.mean(jax.lax.stop_gradient(value_logits)),
      'slow_value': two_hot.mean(frozen('critic', slow_critic)),
    }

  def _apply(self, name, params, feat):
    return self.model.apply(
      {'params': {name: params}}, method=lambda m: getattr(m, name)(feat)
    )


def _world_model_terms(out, batch, c):
  """Image, reward, going on, and both KLs: means over batch and time."""
  image = images.to_float(batch.image) + 0.5
  target = c.discount * (1.0 - batch.is_terminal.astype(jnp.float32))
  post, prior = out.s.logits, out.s_prior.logits

  def kl(post, prior):
    nats = distributions.categorical_kl(post, prior)  # [b, T]
    return jnp.maximum(nats, c.free_nats).mean()

  terms = {
    'image': jnp.square(out.recon - image).sum((-1, -2, -3)).mean(),
    'reward': two_hot.cross_entropy(out.reward, batch.reward).mean(),
    'cont': -(
      target * jax.nn.log_sigmoid(out.cont)
      + (1.0 - target) * jax.nn.log_sigmoid(-out.cont)
    ).mean(),
    'dyn': kl(jax.lax.stop_gradient(post), prior),
    'rep': kl(post, jax.lax.stop_gradient(prior)),
  }
  entropy = distributions.categorical_entropy
  return terms, {
    'kl/s': distributions.categorical_kl(post, prior).mean(),
    'entropy/s_post': entropy(post).mean(),
    'entropy/s_prior': entropy(prior).mean(),
    'reward/batch': batch.reward.mean(),
  }


def _behavior_terms(imagined, actions, ret, return_range, c):
  """REINFORCE with scaled advantages, and values as two-hot classes.

  All have a step in front, [H, N]; `imagined` was read at one state more.
  """
  # Rollouts count for as much as the episode still goes on, its first state
  # included.
  weight = jnp.cumprod(imagined['live'], 0)[:-1]
  size = return_range['high'] - return_range['low']
  scale = jnp.maximum(c.return_limit, size)
  advantage = jax.lax.stop_gradient(ret - imagined['value'][:-1]) / scale
  mean, std = imagined['policy']
  log_prob = distributions.normal_log_prob(mean, std, actions)
  entropy = distributions.normal_entropy(std)
  actor = -weight * (log_prob * advantage + c.entropy_scale * entropy)
  value_loss = _value_loss(
    imagined['value_logits'][:-1], ret, imagined['slow_value'][:-1], c
  )
  return {'actor': actor.mean(), 'critic': (weight * value_loss).mean()}, {
    'behavior/advantage': jnp.abs(advantage).mean(),
    'behavior/entropy': entropy.mean(),
    'behavior/return': ret.mean(),
    'behavior/return_scale': scale,
    'behavior/reward': imagined['reward'].mean(),
    'behavior/value': imagined['value'].mean(),
  }


def _replay_value(logits, slow_logits, start_ret, batch, c) -> jax.Array:
  """Values on replayed steps, whose returns end in imagination.

  Args:
    logits: [T, b, bins] of the critic, not stopped.
    slow_logits: [T, b, bins] of the slow critic.
    start_ret: [T, b], imagined returns from each state.
    batch: leaves [b, T, ...].
    c: settings.

  Returns:
    [].
  """
  reward, terminal = batch.reward.T, batch.is_terminal.T
  live = c.discount * (1.0 - terminal.astype(jnp.float32))
  last = seams.ends(batch.is_last).T
  ret = returns.lambda_return(reward, start_ret, live, c.lam, last)
  slow = two_hot.mean(slow_logits)
  loss = _value_loss(logits[:-1], ret, slow[:-1], c)
  return jnp.where(last[:-1], 0.0, loss).mean()


def _value_loss(logits, ret, slow_value, c) -> jax.Array:
  """Towards returns and, gently, the slow critic: all [...]."""
  cross_entropy = functools.partial(two_hot.cross_entropy, logits)
  return cross_entropy(ret) + c.slow_scale * cross_entropy(slow_value)


def _build(
  config: ml_collections.ConfigDict, action_size: int, axis_name: str | None
) -> definition.Built:
  c, b = config.dreamerv3, config.behavior
  size = networks.SIZES[c.size]
  settings = Settings(
    horizon=b.horizon,
    lam=b.lam,
    discount=c.discount,
    entropy_scale=c.entropy_scale,
    dyn_scale=c.dyn_scale,
    rep_scale=c.rep_scale,
    replay_value_scale=c.replay_value_scale,
    free_nats=c.free_nats,
    slow_scale=c.slow_scale,
    return_rate=c.return_rate,
    return_limit=c.return_limit,
  )
  model = networks.make(c.size, action_size, parts.dtype(config))
  system = DreamerV3(model, settings, axis_name)
  tx = laprop.optimizer(config)
  return definition.Built(
    system=system,
    pretraining=None,
    finetuning=update.AtOnce(
      system=system,
      model_tx=tx,
      behavior_tx=tx,
      start=definition.start(config, system, action_size),
      axis_name=axis_name,
      slow_critic_rate=c.slow_rate,
    ),
    num_keypoints=None,
    max_entropy=size.groups * math.log(size.classes),
    learns_terminations=True,
  )


DEFINITION = definition.Definition(
  _build, _RANGES, {'dreamerv3.size': tuple(networks.SIZES)}
)
