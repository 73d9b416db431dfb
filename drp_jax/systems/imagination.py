"""Actor and critic in imagination (Secs. 8.1-8.3, Eqs. 10-12).

Knows a world model only by two functions of its state, so every system of the
V2 family shares it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax import losses, types
from drp_jax.models import late_gradients
from drp_jax.ops import distributions, noise, returns


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of policy learning; see configs/base.py `behavior`.

  `remat` tells whether steps of imagination are computed again in the backward
  pass.
  """

  horizon: int
  discount: float
  lam: float
  entropy_scale: float
  remat: bool = False


@dataclasses.dataclass(frozen=True)
class Functions:
  """A world model and its heads as pure functions.

  Attributes:
    img_step: (state, action [N, A], gumbel) -> next state.
    reward: feat [..., F] -> [...].
    policy: (actor params, feat) -> mean, std [..., A].
    value: (critic params, feat) -> [...].
    continuation: feat -> [...], the predicted discount; None where it is
      constant.
  """

  img_step: Callable
  reward: Callable
  policy: Callable
  value: Callable
  continuation: Callable | None = None


def imagine(
  fns: Functions,
  actor: Any,
  start: types.RSSMState,
  uniform: jax.Array,
  gumbel: jax.Array,
  remat: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Follows the policy through the world model (Sec. 8.1).

  Gradients flow from later states through actions into `actor`; what the policy
  reads is stopped.

  Args:
    fns: the world model.
    actor: policy parameters.
    start: leaves [N, ...].
    uniform: [H, N, A] noise of the actions.
    gumbel: [H, N, groups, classes] noise of the states.
    remat: whether steps are computed again in the backward pass.

  Returns:
    Features [H+1, N, F] and policy entropies [H, N] at the first H of them.
  """

  def step(params, state, inputs):
    uniform, gumbel = inputs
    feat = state.feat
    mean, std = fns.policy(params['actor'], jax.lax.stop_gradient(feat))
    action = distributions.truncated_normal_sample(mean, std, uniform)
    entropy = distributions.truncated_normal_entropy(mean, std)
    return fns.img_step(state, action, gumbel), (feat, entropy)

  params, xs = {'actor': actor}, (uniform, gumbel)
  if remat:  # also of what layers were given, which would be kept otherwise
    step = jax.checkpoint(functools.partial(step, params), prevent_cse=False)
    last, (feats, entropy) = jax.lax.scan(step, start, xs)  # prevents CSE
  else:
    last, (feats, entropy) = late_gradients.scan(step, params, start, xs)
  return jnp.concatenate([feats, last.feat[None]], 0), entropy


def discounts(
  fns: Functions,
  feats: jax.Array,
  is_terminal: jax.Array,
  settings: Settings,
) -> tuple[jax.Array | float, jax.Array]:
  """Says how much counts what follows each state of a rollout, and it itself.

  Where a head predicts it, the first state's is the true one: that state is
  from replay  [DreamerV2, IPV].

  Args:
    fns: the world model.
    feats: [H+1, N, F] from `imagine`.
    is_terminal: [N] bool, of the first states.
    settings: of which `discount` and `horizon` are read.

  Returns:
    Discounts [H, N] of states 0..H-1, differentiable, or gamma alone; and the
    states' weights [H, N], products of the discounts before them, stopped.
  """
  gamma, shape = settings.discount, feats.shape[:-1]
  if fns.continuation is None:
    steps = jnp.arange(settings.horizon)[:, None]
    weight = jnp.broadcast_to(gamma**steps, (settings.horizon, shape[1]))
    return gamma, weight
  first = gamma * (1.0 - is_terminal.astype(jnp.float32))
  discount = jnp.concatenate([first[None], fns.continuation(feats[1:-1])], 0)
  weight = jnp.cumprod(discount, 0)
  weight = jnp.concatenate([jnp.ones_like(first)[None], weight[:-1]], 0)
  return discount, jax.lax.stop_gradient(weight)


def loss(
  trained: dict[str, Any],
  slow_critic: Any,
  fns: Functions,
  start: types.RSSMState,
  is_terminal: jax.Array,
  uniform: jax.Array,
  gumbel: jax.Array,
  settings: Settings,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Actor loss (Eq. 12) + critic loss (Eq. 11) on one imagined rollout.

  Their gradients do not mix: the actor's returns use the slow critic, and the
  critic sees stopped features and targets.

  Args:
    trained: {'actor', 'critic'} parameters.
    slow_critic: parameters whose values bootstrap returns.
    fns: the world model, frozen.
    start: leaves [N, ...], stopped.
    is_terminal: [N] bool, whether they ended their episodes for good.
    uniform: [H, N, A].
    gumbel: [H, N, groups, classes].
    settings: horizon, discounts, entropy scale.

  Returns:
    The sum of both losses [] and metrics.
  """
  feats, entropy = imagine(
    fns, trained['actor'], start, uniform, gumbel, settings.remat
  )
  reward = fns.reward(feats[:-1])
  slow_value = fns.value(slow_critic, feats)  # not stopped: it guides the actor
  discount, weight = discounts(fns, feats, is_terminal, settings)
  ret = returns.lambda_return(
    reward, slow_value[:-1], slow_value[-1], discount, settings.lam
  )
  actor = losses.actor_loss(ret, entropy, weight, settings.entropy_scale)

  value = fns.value(trained['critic'], jax.lax.stop_gradient(feats[:-1]))
  critic = losses.critic_loss(value, ret, weight)
  metrics = {
    'loss/actor': actor,
    'loss/critic': critic,
    'behavior/entropy': entropy.mean(),
    'behavior/return': ret.mean(),
    'behavior/reward': reward.mean(),
    'behavior/value': value.mean(),
  }
  if fns.continuation is not None:
    metrics['behavior/discount'] = jnp.mean(discount)
  return actor + critic, metrics


def loss_in_model(
  model: nn.Module,
  settings: Settings,
  trained: dict[str, Any],
  slow_critic: Any,
  variables: Any,
  start: types.RSSMState,
  is_terminal: jax.Array,
  keys: jax.Array,
  state_noise: Callable,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """`loss` in a model with `img_step`, `reward`, `actor`, `critic`.

  And `continuation`, None if there is no such head.

  Args:
    model: the networks.
    settings: horizon, discounts, entropy scale.
    trained: {'actor', 'critic'} parameters.
    slow_critic: parameters whose values bootstrap returns.
    variables: of the world model, frozen.
    start: leaves [N, ...], stopped.
    is_terminal: [N] bool, whether they ended their episodes for good.
    keys: [b] typed keys; N / b states belong to each.
    state_noise: sampler of what states are drawn with.

  Returns:
    The loss [] and metrics.
  """
  H, b, N = settings.horizon, keys.shape[0], start.deter.shape[0]
  action_keys, state_keys = noise.split(keys, 2)

  def draw(keys, sampler, shape):
    x = noise.draw(keys, sampler, (H, N // b, *shape))  # [b, H, T, ...]
    return jnp.swapaxes(x, 0, 1).reshape(H, N, *shape)

  def apply(method, **own) -> Any:
    params = {**variables['params'], **own}
    return model.apply({**variables, 'params': params}, method=method)

  fns = Functions(
    img_step=lambda *args: apply(lambda m: m.img_step(*args)),
    reward=lambda feat: apply(lambda m: m.reward(feat)),
    policy=lambda p, feat: apply(lambda m: m.actor(feat), actor=p),
    value=lambda p, feat: apply(lambda m: m.critic(feat), critic=p),
    continuation=None
    if model.continuation is None
    else lambda feat: jax.nn.sigmoid(apply(lambda m: m.continuation(feat))),
  )
  return loss(
    trained,
    slow_critic,
    fns,
    start,
    is_terminal,
    draw(action_keys, jax.random.uniform, (model.actor.action_size,)),
    draw(state_keys, state_noise, start.stoch.shape[1:]),
    settings,
  )


def choose_action(
  mean: jax.Array, std: jax.Array, keys: jax.Array, explore: bool
) -> jax.Array:
  """Samples the truncated normal, or takes its mode; [B, A] in (-1, 1)."""
  if not explore:
    return mean
  uniform = noise.draw(keys, jax.random.uniform, mean.shape[1:])
  return distributions.truncated_normal_sample(mean, std, uniform)
