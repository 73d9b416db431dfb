"""Episodes by hand, their repetition, and the noise of an acting policy."""

import itertools

import gymnasium
import jax
import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.envs import make
from drp_jax.train import rollout
from experiments import run_dmcr

_K = 4


@pytest.fixture(scope='module')
def extractor(config):
  return run_dmcr.make_extractor(config, 0)


def _counting_actions():
  """Step -> action: (0.1, -0.1), (0.2, -0.2), ..."""
  actions = (np.array([0.1, -0.1]) * t for t in itertools.count(1))
  return lambda _: next(actions)


def _episode(env, extractor, number=0, seed=3, act=None):
  act = act or _counting_actions()
  return [s for s, _ in rollout.episode(env, extractor, act, seed, number)]


@pytest.mark.parametrize('terminates', [True, False])
def test_entry_t_belongs_to_frame_t(march, extractor, terminates):
  """Four actions, five frames; a time limit is not terminal."""
  env = march(4, terminates)
  steps = _episode(env, extractor)
  first = steps[0]['image']
  for t, step in enumerate(steps):
    np.testing.assert_array_equal(step['image'], np.roll(first, t, 1))
    np.testing.assert_allclose(step['action'], [0.1 * t, -0.1 * t], rtol=1e-6)
  assert [float(step['reward']) for step in steps] == [0, 1, 2, 3, 4]
  assert [bool(step['is_first']) for step in steps] == [True] + 4 * [False]
  assert [bool(step['is_last']) for step in steps] == 4 * [False] + [True]
  terminal = [bool(step['is_terminal']) for step in steps]
  assert terminal == 4 * [False] + [terminates]
  # The environment and the step that is stored have the same action.
  for action, step in zip(env.actions, steps[1:], strict=True):
    np.testing.assert_array_equal(action, step['action'])


def test_motion_is_that_of_the_frame_before(march, extractor):
  """None in the first step, then a pixel to the right in all of them."""
  steps = _episode(march(4), extractor)
  assert not steps[0]['flow'].any() and not steps[0]['visible'].any()
  for t, step in enumerate(steps[1:]):
    assert step['window_step'] == t
    inside = step['flow'][16:48, 16:48].astype(np.float32)
    np.testing.assert_allclose(np.median(inside, (0, 1)), [1, 0], atol=0.2)


def test_steps_are_what_replay_stores(march, extractor):
  fields = schema.replay_fields(_K, action_size=2)
  for step in _episode(march(3), extractor):
    schema.check(step, fields, 'step')
    assert step.keys() == fields.keys()


def test_infos_come_with_their_steps(march, extractor):
  act = _counting_actions()
  pairs = list(rollout.episode(march(3), extractor, act, 0, 0))
  successes = [info['success'] for _, info in pairs]
  assert successes == [False, False, True, False]


def test_the_actor_sees_each_step_but_the_last(march, extractor):
  seen = []

  def act(step):
    seen.append(step['image'])
    return np.zeros(2)

  steps = _episode(march(3), extractor, act=act)
  assert len(seen) == 3
  for image, step in zip(seen, steps[:-1], strict=True):
    np.testing.assert_array_equal(image, step['image'])


def test_an_episode_is_a_function_of_its_number(extractor):
  """In a real environment, whatever ran in it before."""

  def open_env():
    env = make.make_env('dmc', 'walker_stand', action_repeat=2, shadow_size=512)
    return gymnasium.wrappers.TimeLimit(env, 3)

  def run(env, number):
    rng = np.random.default_rng(0)

    def act(_):
      return rollout.random_action(rng, env)

    return _episode(env, extractor, number, act=act)

  env = open_env()
  zero, one = run(env, 0), run(env, 1)
  again = run(open_env(), 1)
  for step, same in zip(one, again, strict=True):
    for name, array in step.items():
      np.testing.assert_array_equal(array, same[name], err_msg=name)
  assert (zero[0]['image'] != one[0]['image']).any()


def test_seeds_differ_between_episodes_and_runs(march, extractor):
  env = march(1)
  for seed, number in ((0, 0), (0, 1), (1, 0), (1, 1)):
    _episode(env, extractor, number, seed)
  assert len(set(env.seeds)) == 4
  assert env.seeds[2] == rollout.episode_seed(1, 0)
  many = [rollout.episode_seed(s, n) for s in range(20) for n in range(100)]
  assert all(0 <= seed < 2**31 for seed in many)
  assert len(set(many)) == len(many)


def test_random_actions_fill_their_range(march):
  env = march(1)
  rng = np.random.default_rng(0)
  actions = np.stack([rollout.random_action(rng, env) for _ in range(2000)])
  assert actions.shape == (2000, 2) and actions.dtype == np.float32
  assert -1 <= actions.min() < -0.99 and 0.99 < actions.max() <= 1
  np.testing.assert_allclose(actions.mean(0), 0, atol=0.05)
  np.testing.assert_allclose(actions.std(0), 3**-0.5, atol=0.03)
  again = rollout.random_action(np.random.default_rng(0), env)
  np.testing.assert_array_equal(again, actions[0])


@pytest.fixture(scope='module')
def actor(system):
  return rollout.PolicyActor(system, _K, jax.random.key(1), explore=True)


@pytest.fixture(scope='module')
def steps(march, extractor):
  """Four steps of an episode, to act on again and again."""
  return _episode(march(3), extractor)


def _actions(actor, variables, number, steps):
  actor.begin(number)
  return np.stack([actor(variables, step) for step in steps])


def test_actions_are_a_function_of_key_and_number(
  actor, system, variables, steps
):
  """So an episode that a kill cut short is acted again to the bit."""
  zero = _actions(actor, variables, 0, steps)
  assert zero.shape == (4, 2) and np.abs(zero).max() < 1
  one = _actions(actor, variables, 1, steps)
  np.testing.assert_array_equal(_actions(actor, variables, 0, steps), zero)
  assert (one != zero).any(1).all()
  other = rollout.PolicyActor(system, _K, jax.random.key(2), explore=True)
  assert (_actions(other, variables, 0, steps) != zero).any(1).all()


def test_each_step_of_an_episode_has_its_own_noise(actor, variables, steps):
  """The same first step, taken again and again, forgets all but the time."""
  repeated = _actions(actor, variables, 0, [steps[0]] * 4)
  assert len(np.unique(repeated, axis=0)) == 4


def test_the_actor_remembers_until_it_begins_anew(actor, variables, steps):
  """Another first frame, and the same second one: another second action."""
  changed = {**steps[0], 'image': 255 - steps[0]['image']}
  actions = _actions(actor, variables, 0, steps[:2])
  others = _actions(actor, variables, 0, [changed, steps[1]])
  assert (others[1] != actions[1]).any()
  # What was before `begin` has left no trace.
  np.testing.assert_array_equal(
    _actions(actor, variables, 0, steps[:2]), actions
  )


def test_steps_that_begin_an_episode_reset_the_memory(actor, variables, steps):
  """Even without `begin`: the step itself says so."""
  second_only = {**steps[1], 'is_first': np.bool_(True)}
  changed = {**steps[0], 'image': 255 - steps[0]['image']}
  one = _actions(actor, variables, 0, [steps[0], second_only])
  other = _actions(actor, variables, 0, [changed, second_only])
  np.testing.assert_array_equal(one[1], other[1])
  assert (one[0] != other[0]).any()


def test_modes_are_taken_where_nothing_is_to_be_explored(
  actor, system, variables, steps
):
  """Exploring adds noise to them: over many episodes it averages out."""
  greedy = rollout.PolicyActor(system, _K, jax.random.key(1), explore=False)
  first = steps[:1]
  modes = [_actions(greedy, variables, n, first)[0] for n in range(20)]
  samples = [_actions(actor, variables, n, first)[0] for n in range(20)]
  assert np.std(modes, 0).max() < 0.5 * np.std(samples, 0).min()
