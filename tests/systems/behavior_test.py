"""Tests of policy learning in a toy world that NumPy can follow.

The state is a position `deter` that moves by the action; feat is the position
beside an unused sample.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from drp_jax import types
from drp_jax.ops import distributions
from drp_jax.systems import imagination

_H, _N, _A = 4, 3, 2
_SETTINGS = imagination.Settings(
  horizon=_H, discount=0.9, lam=0.7, entropy_scale=0.05
)
_STD = 0.4


def _img_step(state, action, gumbel):
  return state.replace(deter=0.8 * state.deter + action + gumbel[..., 0])


def _policy(params, feat):
  mean = jnp.tanh(params * feat[..., 1:])
  return mean, jnp.full_like(mean, _STD)


_FUNCTIONS = imagination.Functions(
  img_step=_img_step,
  reward=lambda feat: (feat[..., 1:] ** 2).sum(-1),
  policy=_policy,
  value=lambda params, feat: jnp.sin(feat[..., 1:]).sum(-1) * params,
)
_TRAINED = {'actor': jnp.float32(0.3), 'critic': jnp.float32(0.5)}
_SLOW = jnp.float32(0.7)


def _inputs():
  rng = np.random.default_rng(0)
  start = types.RSSMState(
    deter=rng.normal(size=(_N, _A)).astype(np.float32),
    stoch=np.zeros((_N, 1, 1), np.float32),
    logits=np.zeros((_N, 1, 1), np.float32),
  )
  uniform = rng.uniform(size=(_H, _N, _A)).astype(np.float32)
  gumbel = 0.1 * rng.gumbel(size=(_H, _N, _A, 1)).astype(np.float32)
  return start, uniform, gumbel


@functools.cache
def _loss_and_gradients(settings=_SETTINGS):
  def loss(trained, slow, start, uniform, gumbel):
    return imagination.loss(
      trained,
      slow,
      _FUNCTIONS,
      start,
      np.zeros(_N, bool),
      uniform,
      gumbel,
      settings,
    )

  return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def _rollout_by_loops(actor):
  """Positions [H+1, N, A] and entropies [H, N]."""
  start, uniform, gumbel = _inputs()
  position, entropies, x = [start.deter], [], start.deter
  for t in range(_H):
    mean = np.tanh(actor * x)
    std = np.full_like(mean, _STD)
    action = distributions.truncated_normal_sample(mean, std, uniform[t])
    entropies.append(distributions.truncated_normal_entropy(mean, std))
    x = 0.8 * x + np.asarray(action) + gumbel[t, ..., 0]
    position.append(x)
  return np.stack(position), np.stack(entropies)


def test_imagination_returns_the_states_before_each_action_and_the_last():
  start, uniform, gumbel = _inputs()
  feats, entropy = imagination.imagine(
    _FUNCTIONS, _TRAINED['actor'], start, uniform, gumbel
  )
  position, entropies = _rollout_by_loops(0.3)
  assert feats.shape == (_H + 1, _N, 1 + _A)
  np.testing.assert_allclose(feats[..., 1:], position, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(entropy, entropies, rtol=1e-4, atol=1e-5)


def test_steps_computed_again_give_the_same_loss_and_gradients():
  again = dataclasses.replace(_SETTINGS, remat=True)
  args = _TRAINED, _SLOW, *_inputs()
  kept, recomputed = _loss_and_gradients(), _loss_and_gradients(again)
  for run, remat in ((kept, False), (recomputed, True)):
    assert ('remat' in str(jax.make_jaxpr(run)(*args))) == remat
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5),
    recomputed(*args),
    kept(*args),
  )


def test_gradients_of_actor_and_critic_do_not_mix():
  run = _loss_and_gradients()
  (_, metrics), (base, _) = run(_TRAINED, _SLOW, *_inputs())
  changed = {**_TRAINED, 'critic': jnp.float32(-2.0)}
  _, (other, _) = run(changed, _SLOW, *_inputs())
  np.testing.assert_array_equal(other['actor'], base['actor'])
  # The critic's loss is quadratic in its one parameter with fixed targets, so
  # its gradient is the slope of that parabola, whatever the actor does.
  step = 0.25

  def critic_loss(value):
    trained = {**_TRAINED, 'critic': jnp.float32(value)}
    return run(trained, _SLOW, *_inputs())[0][1]['loss/critic']

  slope = (critic_loss(0.5 + step) - critic_loss(0.5 - step)) / (2 * step)
  np.testing.assert_allclose(base['critic'], slope, rtol=1e-3)
  assert metrics['loss/critic'] > 0


def test_actor_gradient_follows_rewards_and_slow_values_through_the_model():
  """A horizon of two, written out: r_1 + 0.9 v_2, through both actions."""
  settings = imagination.Settings(
    horizon=2, discount=0.9, lam=0.0, entropy_scale=0.05
  )
  start, uniform, gumbel = _inputs()

  def actor_loss(actor):
    _, metrics = imagination.loss(
      {**_TRAINED, 'actor': actor},
      _SLOW,
      _FUNCTIONS,
      start,
      np.zeros(_N, bool),
      uniform[:2],
      gumbel[:2],
      settings,
    )
    return metrics['loss/actor']

  # State 2 depends on the action at state 1, where the policy's input is
  # stopped.
  def by_hand(actor):
    x0 = start.deter
    a0 = distributions.truncated_normal_sample(
      jnp.tanh(actor * x0), jnp.full_like(x0, _STD), uniform[0]
    )
    x1 = 0.8 * x0 + a0 + gumbel[0, ..., 0]
    held = jax.lax.stop_gradient(x1)
    a1 = distributions.truncated_normal_sample(
      jnp.tanh(actor * held), jnp.full_like(x0, _STD), uniform[1]
    )
    x2 = 0.8 * x1 + a1 + gumbel[1, ..., 0]
    entropy = distributions.truncated_normal_entropy(
      jnp.tanh(actor * x0), jnp.full_like(x0, _STD)
    )
    ret = (x1**2).sum(-1) + 0.9 * _SLOW * jnp.sin(x2).sum(-1)
    return -(ret + 0.05 * entropy).mean()

  actor = jnp.float32(0.3)
  value, gradient = jax.jit(jax.value_and_grad(actor_loss))(actor)
  expected, slope = jax.jit(jax.value_and_grad(by_hand))(actor)
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(gradient, slope, rtol=1e-4)


def _continuation(feat):
  return jax.nn.sigmoid(2.0 + feat[..., 1])


def test_predicted_continuation_in_returns_and_weights_by_loops():
  """The first state's discount is the true one, the others' are predicted."""
  fns = dataclasses.replace(_FUNCTIONS, continuation=_continuation)
  start, uniform, gumbel = _inputs()
  terminal = np.array([False, True, False])
  _, metrics = imagination.loss(
    _TRAINED, _SLOW, fns, start, terminal, uniform, gumbel, _SETTINGS
  )
  position, entropies = _rollout_by_loops(0.3)
  c, gamma, lam = _SETTINGS, _SETTINGS.discount, _SETTINGS.lam
  actor, critic, discounts = [], [], []
  for n in range(_N):
    x = position[:, n]
    reward, value = (x**2).sum(-1), np.sin(x).sum(-1)
    discount = 1 / (1 + np.exp(-2.0 - x[:, 0]))
    discount[0] = 0.0 if terminal[n] else gamma
    weight = np.cumprod([1.0, *discount[:-1]])
    ret = np.zeros(_H + 1)
    ret[_H] = 0.7 * value[_H]
    for t in reversed(range(_H)):
      ahead = (1 - lam) * 0.7 * value[t + 1] + lam * ret[t + 1]
      ret[t] = reward[t] + discount[t] * ahead
    objective = ret[1:_H] + c.entropy_scale * entropies[: _H - 1, n]
    actor.append(weight[: _H - 1] * objective)
    critic.append(weight[:_H] * 0.5 * (0.5 * value[:_H] - ret[:_H]) ** 2)
    discounts.append(discount[:_H])
    if terminal[n]:  # only its own value is learned
      assert (weight[1:] == 0).all() and ret[0] == reward[0]
  for name, expected in (
    ('loss/actor', -np.mean(actor)),
    ('loss/critic', np.mean(critic)),
    ('behavior/discount', np.mean(discounts)),
  ):
    np.testing.assert_allclose(metrics[name], expected, rtol=1e-4)


def test_weights_of_a_rollout_are_stopped():
  """Discounts are not: what ends an episode is worth avoiding."""
  fns = dataclasses.replace(_FUNCTIONS, continuation=_continuation)
  feats = jnp.ones((_H + 1, _N, 1 + _A))

  def total(feats, which):
    pair = imagination.discounts(fns, feats, np.zeros(_N, bool), _SETTINGS)
    return pair[which].sum()

  discount, weight = (jax.grad(total)(feats, which) for which in range(2))
  np.testing.assert_array_equal(weight, 0)
  assert (discount[1:-1, :, 1] > 0).all()
  np.testing.assert_array_equal(discount[np.array([0, -1])], 0)


def test_a_constant_discount_without_such_a_head():
  feats = jnp.ones((_H + 1, _N, 1 + _A))
  for terminal in (np.zeros(_N, bool), np.ones(_N, bool)):
    discount, weight = imagination.discounts(
      _FUNCTIONS, feats, terminal, _SETTINGS
    )
    assert discount == 0.9
    np.testing.assert_allclose(
      weight, np.repeat(0.9 ** np.arange(_H)[:, None], _N, 1), rtol=1e-6
    )
