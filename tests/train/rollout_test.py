"""Episodes by hand, their repetition, and the noise of an acting policy."""

import contextlib
import functools
import itertools

import gymnasium
import jax
import marching
import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.envs import driver, make
from drp_jax.train import rollout
from experiments import finetune_work

_K = 4


@pytest.fixture(scope='module')
def extractor(config):
  return finetune_work.make_extractor(config, 0)


@pytest.fixture(scope='module')
def march():
  """Two environments; an episode's length is 3."""
  make_env = functools.partial(marching.March, 3)
  with contextlib.closing(driver.Driver(make_env, 2)) as envs:
    yield envs


@pytest.fixture(scope='module')
def lone_march():
  """The same, but one of them."""
  make_env = functools.partial(marching.March, 3)
  with contextlib.closing(driver.Driver(make_env, 1)) as envs:
    yield envs


def _counting_actions(num_envs=2):
  """Steps -> rows: (0.1, -0.1), (0.2, -0.2), ...; the second has the half."""
  scale = np.array([[1.0], [0.5]])[:num_envs]
  actions = (scale * [0.1 * t, -0.1 * t] for t in itertools.count(1))
  return lambda _: next(actions)


def _play(envs, extractor, numbers=(0, 1), seed=3, act=None, **settings):
  act = act or _counting_actions(envs.num_envs)
  return rollout.play_round(envs, extractor, act, seed, numbers, **settings)


@pytest.mark.parametrize('terminates', [True, False])
def test_entry_t_belongs_to_frame_t(extractor, terminates):
  """Four actions, five frames; a time limit is not terminal."""
  make_env = functools.partial(marching.Echo, 4, terminates)
  with contextlib.closing(driver.Driver(make_env, 2)) as envs:
    episodes = _play(envs, extractor, numbers=(5, 9))
  for episode, number, scale in zip(episodes, (5, 9), (1, 0.5), strict=True):
    seed = rollout.episode_seed(3, number)
    assert (episode.number, episode.seed, episode.length) == (number, seed, 4)
    steps = episode.steps
    for t, image in enumerate(steps['image']):
      expected = np.roll(marching.picture(seed), t, 1)
      np.testing.assert_array_equal(image, expected)
    t = np.arange(5)
    actions = scale * np.stack([0.1 * t, -0.1 * t], 1)
    np.testing.assert_allclose(steps['action'], actions, rtol=1e-6)
    assert steps['is_first'].tolist() == [True] + 4 * [False]
    assert steps['is_last'].tolist() == 4 * [False] + [True]
    assert steps['is_terminal'].tolist() == 4 * [False] + [terminates]
    # The environment got the action that is stored: it rewards with their sum.
    rewards = steps['action'].sum(1)
    np.testing.assert_allclose(steps['reward'], rewards, atol=1e-7)


def test_rewards_and_success_of_any_step(march, extractor):
  first, second = _play(march, extractor)
  for episode in (first, second):
    np.testing.assert_array_equal(episode.steps['reward'], [0, 1, 2, 3])
    assert episode.total_reward == 6 and episode.success
  assert (first.steps['image'] != second.steps['image']).any()


def test_motion_is_that_of_the_frame_before(march, extractor):
  """None in the first step, then a pixel to the right in all of them."""
  for episode in _play(march, extractor):
    steps = episode.steps
    assert not steps['flow'][0].any() and not steps['visible'][0].any()
    assert steps['window_step'].tolist() == [0, 0, 1, 2]
    for flow in steps['flow'][1:, 16:48, 16:48].astype(np.float32):
      np.testing.assert_allclose(np.median(flow, (0, 1)), [1, 0], atol=0.2)


@pytest.mark.parametrize('num_keypoints', [_K, None])
def test_steps_are_what_replay_stores(march, extractor, num_keypoints):
  """With motion, and without where no extractor is."""
  fields = schema.replay_fields(num_keypoints, action_size=2)
  [episode] = _play(march, extractor if num_keypoints else None, numbers=(4,))
  assert episode.steps.keys() == fields.keys()
  for t in range(4):
    step = {name: array[t] for name, array in episode.steps.items()}
    schema.check(step, fields, 'step')


def test_who_acts_sees_each_step_but_the_last(march):
  seen = []

  def act(steps):
    seen.append(steps['image'])
    return np.zeros((2, 2))

  episodes = _play(march, None, act=act)
  for i, episode in enumerate(episodes):
    images = [image[i] for image in seen]
    np.testing.assert_array_equal(images, episode.steps['image'][:-1])


def test_something_else_is_done_meanwhile():
  """Once per step, told how many environments are taking it."""
  counts = []
  with contextlib.closing(driver.Driver(marching.Uneven, 2)) as envs:
    episodes = _play(envs, None, meanwhile=counts.append)
  lengths = [marching.uneven_length(episode.seed) for episode in episodes]
  assert [episode.length for episode in episodes] == lengths
  assert lengths[0] != lengths[1]
  assert counts == [2] * min(lengths) + [1] * (max(lengths) - min(lengths))


@pytest.mark.parametrize('how', ['die', 'raise', 'nan'])
def test_an_episode_that_fails_is_left_out(extractor, how):
  """In the second step; and the round after that is whole again."""
  failures = {rollout.episode_seed(3, 0): how}

  def make_env():
    return marching.Fragile(marching.March(3), failures, at_step=2)

  with contextlib.closing(driver.Driver(make_env, 2)) as envs:
    [episode] = _play(envs, extractor)
    assert episode.number == 1 and episode.total_reward == 6
    again = _play(envs, extractor, numbers=(1, 2))
  assert [episode.number for episode in again] == [1, 2]
  for name, array in again[0].steps.items():
    if name != 'action':  # rows of the two environments differ
      np.testing.assert_array_equal(array, episode.steps[name], err_msg=name)


def test_a_round_in_which_one_failed_is_left_and_gone_on_with(extractor):
  """Without the one that failed, and to what an unbroken round gives."""
  failures = {rollout.episode_seed(3, 0): 'raise'}

  def make_env():
    return marching.Fragile(marching.March(9), failures, at_step=2)

  def open_envs():
    return contextlib.closing(driver.Driver(make_env, 2))

  counts, stop = [], lambda: len(counts) == 4
  with open_envs() as envs:
    [unbroken] = _play(envs, extractor)
    with pytest.raises(rollout.Stopped) as stopped:
      _play(envs, extractor, meanwhile=counts.append, stop=stop)
  actions, failed = stopped.value.actions, stopped.value.failed
  assert (len(actions), failed, counts) == (4, [0], [2, 2, 1, 1])
  with open_envs() as envs:
    act = _counting_actions()
    for _ in range(4):
      act(None)
    settings = dict(act=act, taken=actions, lost=failed)
    # Told to end before it is there again, it knows what it knew.
    with pytest.raises(rollout.Stopped) as stopped:
      _play(envs, extractor, stop=lambda: True, **settings)
    np.testing.assert_array_equal(stopped.value.actions, actions)
    assert stopped.value.failed == failed
  with open_envs() as envs:
    [episode] = _play(envs, extractor, **settings)
  assert (episode.number, episode.length) == (1, 9)
  for name, array in unbroken.steps.items():
    np.testing.assert_array_equal(array, episode.steps[name], err_msg=name)


@pytest.mark.parametrize('at_step', [0, 2])
def test_a_round_that_waits_for_what_hangs_is_left(at_step):
  """With the actions that were taken."""
  seed = rollout.episode_seed(3, 1)

  def make_env():
    return marching.Hanging(marching.March(9), {seed: 'sleep'}, at_step)

  counts, stop = [], lambda: len(counts) == at_step
  with (
    contextlib.closing(driver.Driver(make_env, 2)) as envs,
    pytest.raises(rollout.Stopped) as stopped,
  ):
    _play(envs, None, meanwhile=counts.append, stop=stop)
  assert len(stopped.value.actions) == at_step
  assert stopped.value.failed == []


def test_an_episode_is_a_function_of_its_number(extractor):
  """In a real environment, whatever ran in it before."""

  def make_env():
    env = make.make_env(make.Settings('dmc', 2, 512), 'walker_stand')
    return gymnasium.wrappers.TimeLimit(env, 3)

  def play(envs, number):
    act = rollout.RandomActor(3, 6)
    act.begin([0])  # the same actions
    [episode] = _play(envs, extractor, [number], act=act)
    return episode.steps

  with contextlib.closing(driver.Driver(make_env, 1)) as envs:
    zero, one = play(envs, 0), play(envs, 1)
  with contextlib.closing(driver.Driver(make_env, 1)) as envs:
    again = play(envs, 1)
  for name, array in one.items():
    np.testing.assert_array_equal(array, again[name], err_msg=name)
  assert (zero['image'][0] != one['image'][0]).any()


def test_seeds_differ_between_episodes_and_runs():
  many = [rollout.episode_seed(s, n) for s in range(20) for n in range(100)]
  assert all(0 <= seed < 2**31 for seed in many)
  assert len(set(many)) == len(many)


def test_random_actions_fill_their_range_and_are_the_episode_s_own():
  actor = rollout.RandomActor(0, 2)
  steps = {'image': np.zeros((3, 64, 64, 3), np.uint8)}
  actor.begin([7, 8])
  actions = np.stack([actor(steps) for _ in range(2000)])
  assert actions.shape == (2000, 3, 2) and actions.dtype == np.float32
  assert not actions[:, 2].any()  # nothing runs there
  actions = actions[:, :2]
  assert -1 <= actions.min() < -0.99 and 0.99 < actions.max() <= 1
  np.testing.assert_allclose(actions.mean(0), 0, atol=0.05)
  np.testing.assert_allclose(actions.std(0), 3**-0.5, atol=0.03)
  actor.begin([8])
  np.testing.assert_array_equal(actor(steps)[0], actions[0, 1])
  assert (actions[:, 0] != actions[:, 1]).all()


@pytest.fixture(scope='module')
def actor(system):
  return rollout.PolicyActor(system, 1, _K, jax.random.key(1), explore=True)


@pytest.fixture(scope='module')
def steps(lone_march, extractor):
  """Four steps of an episode, rows [1, ...], to act on again and again."""
  [episode] = _play(lone_march, extractor, [0])
  return [
    {name: array[t : t + 1] for name, array in episode.steps.items()}
    for t in range(4)
  ]


def _actions(actor, variables, number, steps):
  actor.begin([number])
  return np.concatenate([actor(variables, step) for step in steps])


def test_actions_are_a_function_of_key_and_number(
  actor, system, variables, steps
):
  """So an episode that a kill cut short is acted again to the bit."""
  zero = _actions(actor, variables, 0, steps)
  assert zero.shape == (4, 2) and np.abs(zero).max() < 1
  one = _actions(actor, variables, 1, steps)
  np.testing.assert_array_equal(_actions(actor, variables, 0, steps), zero)
  assert (one != zero).any(1).all()
  other = rollout.PolicyActor(system, 1, _K, jax.random.key(2), explore=True)
  assert (_actions(other, variables, 0, steps) != zero).any(1).all()


def test_an_episode_does_not_depend_on_its_neighbors(
  actor, system, variables, march, lone_march, extractor
):
  """Two at once are what each is alone: images, motion and actions."""
  both = rollout.PolicyActor(system, 2, _K, jax.random.key(1), explore=True)
  both.begin([5, 6])
  together = _play(
    march, extractor, (5, 6), act=functools.partial(both, variables)
  )
  for episode in together:
    actor.begin([episode.number])
    [alone] = _play(
      lone_march,
      extractor,
      [episode.number],
      act=functools.partial(actor, variables),
    )
    for name, array in episode.steps.items():
      same = np.testing.assert_array_equal
      if name == 'action':  # sums in another order
        same = functools.partial(np.testing.assert_allclose, atol=1e-5)
      same(array, alone.steps[name], err_msg=name)
    assert np.abs(episode.steps['action'][1:]).min() > 0


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
  second_only = {**steps[1], 'is_first': np.ones(1, bool)}
  changed = {**steps[0], 'image': 255 - steps[0]['image']}
  one = _actions(actor, variables, 0, [steps[0], second_only])
  other = _actions(actor, variables, 0, [changed, second_only])
  np.testing.assert_array_equal(one[1], other[1])
  assert (one[0] != other[0]).any()


def test_modes_are_taken_where_nothing_is_to_be_explored(
  actor, system, variables, steps
):
  """Exploring adds noise to them: over many episodes it averages out."""
  greedy = rollout.PolicyActor(system, 1, _K, jax.random.key(1), explore=False)
  first = steps[:1]
  modes = [_actions(greedy, variables, n, first)[0] for n in range(20)]
  samples = [_actions(actor, variables, n, first)[0] for n in range(20)]
  assert np.std(modes, 0).max() < 0.5 * np.std(samples, 0).min()
