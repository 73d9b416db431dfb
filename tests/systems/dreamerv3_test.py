"""Tests of DreamerV3: which loss teaches what, acting, types, devices.

That it computes what the official code does is golden_dreamerv3_test.py's.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax import types
from drp_jax.ops import images, noise
from drp_jax.runs import parallel
from drp_jax.systems import registry

_B, _T, _A = 4, 6, 2
_WORLD = {'image_encoder', 'image_decoder', 'action_dynamics', 'reward', 'cont'}


def _config():
  config = finetune_dmcr.get_config('debug')
  config.agent = 'dreamerv3'
  return config


@functools.cache
def _system(axis_name=None):
  return registry.build(_config(), _A, axis_name).system


def _batch():
  return random_inputs.replay_batch(None, _A, _B, _T)


@functools.cache
def _variables():
  """None of them zero."""
  shapes = jax.eval_shape(_system().init, jax.random.key(0), _batch())
  return random_inputs.fill(shapes)


def _state():
  """Before the first update, with a slow critic that lags behind."""
  learner = random_inputs.recording(_config(), _A)
  state = random_inputs.finetune_state(learner, _variables())
  slow = jax.tree.map(lambda x: 0.5 * x, state.params['critic'])
  return state.replace(slow_critic=slow)


@functools.cache
def _jitted_step():
  """An update that hands out its gradients; numbers of losses are traced."""

  def step(state, batch, key, numbers):
    system = _system()
    settings = dataclasses.replace(system.settings, **numbers)
    learner = random_inputs.recording(
      _config(), _A, system=dataclasses.replace(system, settings=settings)
    )
    return learner.update(state, batch, key)

  return jax.jit(step)


def _update(batch=None, **changes):
  """Gradients by parameter set, the state after the update, and metrics."""
  numbers = dataclasses.asdict(_system().settings) | changes
  del numbers['horizon']
  state, metrics = _jitted_step()(
    _state(),
    _batch() if batch is None else batch,
    jax.random.key(3),
    {name: float(x) for name, x in numbers.items()},
  )
  return {**state.model_opt, **state.behavior_opt}, state, metrics


def _changed(one, other) -> set[str]:
  """Parameter sets whose gradients differ by more than rounding."""
  found = set()
  for name in one:
    pairs = zip(
      jax.tree.leaves(one[name]), jax.tree.leaves(other[name]), strict=True
    )
    if any(np.abs(a - b).max() > 1e-4 * np.abs(a).max() for a, b in pairs):
      found.add(name)
  return found


@functools.cache
def _base():
  """With all terms at work: no KL is small enough to be free."""
  return _update(free_nats=0.0)


def test_everything_learns_at_once():
  gradients, state, metrics = _base()
  assert gradients.keys() == _WORLD | {'actor', 'critic'}
  for path, leaf in jax.tree.leaves_with_path(gradients):
    assert np.isfinite(leaf).all() and np.any(leaf != 0), path
  assert state.step == 1 and metrics['skipped'] == 0
  c = _config().dreamerv3
  scales = {'dyn': c.dyn_scale, 'rep': c.rep_scale}
  scales['replay_value'] = c.replay_value_scale
  terms = {
    name: metrics[f'loss/{name}']
    for name in ('image', 'reward', 'cont', 'actor', 'critic', *scales)
  }
  total = sum(scales.get(name, 1.0) * x for name, x in terms.items())
  np.testing.assert_allclose(metrics['loss/total'], total, rtol=1e-5)


@pytest.mark.parametrize(
  ('changes', 'taught'),
  [
    ({'entropy_scale': 1.0}, {'actor'}),
    # Values of replayed states teach those states as well.
    (
      {'replay_value_scale': 30.0},
      {'critic', 'action_dynamics', 'image_encoder'},
    ),
    ({'slow_scale': 30.0}, {'critic', 'action_dynamics', 'image_encoder'}),
    ({'rep_scale': 30.0}, {'action_dynamics', 'image_encoder'}),
    ({'dyn_scale': 30.0}, {'action_dynamics', 'image_encoder'}),
  ],
  ids=lambda x: ' '.join(x) if isinstance(x, dict) else '',
)
def test_each_scale_reaches_its_parameter_sets(changes, taught):
  scaled, _, _ = _update(free_nats=0.0, **changes)
  assert _changed(_base()[0], scaled) == taught


def test_the_prior_is_not_pulled_towards_rep():
  scaled, _, _ = _update(free_nats=0.0, rep_scale=30.0)
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    scaled['action_dynamics']['prior_out'],
    _base()[0]['action_dynamics']['prior_out'],
  )


def test_free_nats_leave_the_prior_alone():
  gradients, _, metrics = _update(free_nats=50.0)
  prior = gradients['action_dynamics']['prior_out']
  assert all(np.all(x == 0) for x in jax.tree.leaves(prior))
  assert metrics['loss/dyn'] == metrics['loss/rep'] == 50.0


def test_the_end_of_an_episode_is_to_be_seen():
  terminal = _batch().is_terminal.copy()
  terminal[:, -1] = True
  batch = _batch().replace(is_terminal=terminal)
  _, _, metrics = _update(batch, free_nats=0.0)
  _, _, base = _base()
  assert metrics['loss/cont'] != base['loss/cont']
  assert metrics['loss/replay_value'] != base['loss/replay_value']
  assert metrics['loss/image'] == base['loss/image']


def test_range_and_slow_critic_move():
  _, state, metrics = _base()
  range_ = state.collections['return_range']
  assert float(range_['low']) != 0 and range_['high'] > range_['low']
  np.testing.assert_allclose(
    metrics['behavior/return_scale'],
    max(1.0, range_['high'] - range_['low']),
    rtol=1e-6,
  )
  before = _state()
  jax.tree.map(
    lambda slow, old, new: np.testing.assert_allclose(
      slow, 0.98 * old + 0.02 * new, rtol=1e-5, atol=1e-7
    ),
    state.slow_critic,
    before.slow_critic,
    before.params['critic'],
  )


def test_acting_sees_what_training_sees():
  """policy_step over a clip = the batch pass with the same noise."""
  system, variables = _system(), _variables()
  model = system.model
  batch = random_inputs.replay_batch(None, _A, 1, _T, seed=7)
  act = jax.jit(functools.partial(system.policy_step, explore=True))
  # What an episode before this one left behind must not matter.
  carry = jax.tree.map(lambda x: x + 0.5, system.initial_carry(1, 4))
  acted, actions, gumbel = [], [], []
  for t in range(_T):
    obs = types.Observation(
      image=batch.image[:, t], motion=None, is_first=batch.is_first[:, t]
    )
    keys = random_inputs.keys(100 + t, 1)
    carry, action = act(variables, carry, obs, keys)
    np.testing.assert_array_equal(carry.action, action)
    assert carry.cache is None and np.abs(action).max() <= 1.0
    acted.append(carry.s)
    actions.append(np.asarray(action))
    state_keys, _ = noise.split(random_inputs.keys(100 + t, 1), 2)
    shape = model.action_dynamics.groups, model.action_dynamics.classes
    gumbel.append(noise.draw(state_keys, jax.random.gumbel, shape))
  acted = jax.tree.map(lambda *x: np.stack(x, 1), *acted)
  # The action at step t led to frame t + 1.
  action = np.stack([np.zeros_like(actions[0]), *actions[:-1]], 1)
  s = jax.jit(
    lambda image, *args: model.apply(
      variables,
      method=lambda m: m.action_dynamics.observe(
        m.encode(images.to_float(image)), *args
      )[0],
    )
  )(batch.image, action, batch.is_first, jnp.stack(gumbel, 1))
  for part in ('deter', 'logits', 'stoch'):
    np.testing.assert_allclose(
      getattr(acted, part), getattr(s, part), atol=2e-4, err_msg=part
    )


def test_the_mode_is_acted_without_exploration():
  system, variables = _system(), _variables()
  obs = types.Observation(_batch().image[:, 0], None, _batch().is_first[:, 0])
  carry = system.initial_carry(_B, 0)
  act = functools.partial(system.policy_step, variables, carry, obs)
  run = jax.jit(act, static_argnames='explore')
  after, mode = run(random_inputs.keys(0), explore=False)
  explored, action = run(random_inputs.keys(0), explore=True)
  np.testing.assert_array_equal(explored.s.stoch, after.s.stoch)
  mean, _ = system.model.apply(
    variables, method=lambda m: m.actor(after.s.feat)
  )
  np.testing.assert_allclose(mode, mean, rtol=1e-5)
  assert np.abs(action - mode).min() > 1e-4


def test_losses_are_float32_whatever_it_computes_in():
  config = _config()
  config.compute_dtype = 'bfloat16'
  system = registry.build(config, _A, None).system
  shapes = jax.eval_shape(system.init, jax.random.key(0), _batch())

  def loss(variables, batch, key):
    params = variables.pop('params')
    keys = noise.example_keys(key, 0, _B)
    return (
      system.joint_loss(params, params['critic'], variables, batch, keys),
      system.model.apply(
        {'params': params},
        batch,
        noise.example_keys(jax.random.fold_in(key, 1), 0, _B),
        method='finetune',
      ).s.deter,
    )

  results, deter = jax.eval_shape(loss, shapes, _batch(), jax.random.key(0))
  for leaf in jax.tree.leaves((shapes, results)):
    assert leaf.dtype == jnp.float32
  assert deter.dtype == jnp.bfloat16


@pytest.mark.slow
def test_gradient_on_four_devices():
  gradients, one, metrics = _update()
  learner = random_inputs.recording(_config(), _A, parallel.AXIS)
  step = parallel.pmap_step(learner.update)
  four, four_metrics = step(
    _state(), parallel.shard(_batch()), jax.random.key(3)
  )

  def check(path, a, b):
    name = jax.tree_util.keystr(path)
    atol = 2e-4 * np.abs(b).max() + 1e-6
    np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)

  found = {**four.model_opt, **four.behavior_opt}, four.collections
  jax.tree.map_with_path(check, found, (gradients, one.collections))
  for name, value in metrics.items():
    np.testing.assert_allclose(
      four_metrics[name], value, rtol=1e-3, atol=1e-4, err_msg=name
    )
