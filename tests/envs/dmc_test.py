"""Tests of plain tasks of the suite."""

import numpy as np
import pytest

from drp_jax.envs import dmc, wrappers

SHADOW = 256  # cheap frames


def play(env, seed, num_steps=4):
  """Images [T+1, ...] and rewards [T] of fixed actions."""
  rng = np.random.default_rng(0)
  images, rewards = [env.reset(seed=seed)[0]], []
  for _ in range(num_steps):
    image, reward, *_ = env.step(rng.uniform(-1, 1, env.action_space.shape))
    images.append(image)
    rewards.append(reward)
  return np.stack(images), np.array(rewards)


@pytest.fixture(scope='module')
def walker():
  env = dmc.DMC('walker_walk', SHADOW)
  yield env
  env.close()


def test_spaces_and_image(walker):
  image, info = walker.reset(seed=0)
  assert walker.observation_space.contains(image)
  assert image.shape == (64, 64, 3) and image.std() > 5
  assert info == {'success': False}
  assert walker.action_space.shape == (6,)
  assert (walker.action_space.low == -1).all()


def test_an_episode_is_a_function_of_its_seed(walker):
  images, rewards = play(walker, seed=1)
  play(walker, seed=2)  # what came before leaves no trace
  again_images, again_rewards = play(walker, seed=1)
  np.testing.assert_array_equal(images, again_images)
  np.testing.assert_array_equal(rewards, again_rewards)

  other = dmc.DMC('walker_walk', SHADOW)
  other_images, other_rewards = play(other, seed=1)
  other.close()
  np.testing.assert_array_equal(images, other_images)
  np.testing.assert_array_equal(rewards, other_rewards)


def test_other_seeds_give_other_episodes(walker):
  images, rewards = play(walker, seed=1)
  other_images, other_rewards = play(walker, seed=2)
  assert (images[0] != other_images[0]).any()
  assert (rewards != other_rewards).any()


def test_without_a_seed_episodes_differ_and_follow_the_first(walker):
  first = [walker.reset(seed=3)[0], walker.reset()[0], walker.reset()[0]]
  again = [walker.reset(seed=3)[0], walker.reset()[0], walker.reset()[0]]
  np.testing.assert_array_equal(first, again)
  assert (first[1] != first[2]).any()


def test_images_of_earlier_steps_are_not_overwritten(walker):
  image, _ = walker.reset(seed=0)
  kept = image.copy()
  walker.step(np.ones(6))
  np.testing.assert_array_equal(image, kept)


def test_images_are_those_of_dm_control():
  environment = dmc.load('walker_walk')
  env = dmc.DMC('walker_walk', SHADOW, environment=environment)
  env.reset(seed=0)
  for _ in range(3):
    image = env.step(np.ones(6))[0]
    expected = environment.physics.render(64, 64, camera_id=0)
    np.testing.assert_array_equal(image, expected)
  env.close()


def test_rewards_are_those_of_dm_control():
  env = dmc.DMC('walker_walk', draw=False)
  from dm_control import suite  # after the choice of OpenGL

  env.reset(seed=5)
  reference = suite.load('walker', 'walk', task_kwargs={'random': 5})
  reference.reset()
  rng = np.random.default_rng(0)
  ours, theirs = [], []
  for _ in range(30):
    action = rng.uniform(-1, 1, 6).astype(np.float32)
    ours.append(env.advance(action)[0])
    theirs.append(reference.step(action).reward)
  assert sum(theirs) > 0
  np.testing.assert_array_equal(ours, theirs)


def test_actions_are_rescaled_to_the_range_of_the_task():
  environment = dmc.load('cartpole_swingup')
  environment.physics.model.actuator_ctrlrange[0] = [-2, 6]
  env = dmc.DMC('cartpole_swingup', draw=False, environment=environment)
  env.reset(seed=0)
  for action, control in [(-1, -2), (0, 2), (1, 6), (9, 6), (-9, -2)]:
    env.advance(np.full(1, action))
    assert environment.physics.control() == control


def test_time_limit_is_1000_control_steps_and_truncates():
  env = wrappers.ActionRepeat(dmc.DMC('cartpole_swingup', draw=False), 2)
  for seed in (0, 1):
    env.reset(seed=seed)
    ends = [env.step(np.zeros(1))[2:4] for _ in range(500)]
    assert ends == [(False, False)] * 499 + [(False, True)]
    with pytest.raises(RuntimeError, match='reset'):
      env.step(np.zeros(1))


def test_a_simulation_that_diverges_raises_and_can_be_reset():
  env = dmc.DMC('cartpole_swingup', draw=False)
  env.reset(seed=0)
  with pytest.raises(RuntimeError, match='BADCTRL'):
    env.advance(np.full(1, np.nan))
  with pytest.raises(RuntimeError, match='reset'):
    env.advance(np.zeros(1))
  env.reset(seed=0)
  reward, *ends, _ = env.advance(np.zeros(1))
  assert 0 <= reward <= 1 and ends == [False, False]


def test_scene_is_that_of_the_image(walker):
  walker.reset(seed=0)
  before = walker.scene()
  for _ in range(5):
    walker.step(np.ones(6))
  after = walker.scene()
  assert before['geom'].shape == (64, 64)
  assert (before['position'] != after['position']).any()
  assert (before['geom'] != after['geom']).any()


def test_shadow_size_reaches_the_gl_context():
  environment = dmc.load('cartpole_swingup')
  env = dmc.DMC('cartpole_swingup', SHADOW, environment=environment)
  env.reset(seed=0)
  assert environment.physics.contexts.mujoco.ptr.shadowSize == SHADOW
  env.close()


def test_unknown_task_lists_the_names():
  with pytest.raises(ValueError, match='ball_in_cup_catch.*walker_run'):
    dmc.DMC('walker_fly')


@pytest.mark.parametrize('task', ['quadruped_walk', 'quadruped_fetch'])
def test_the_quadruped_senses(task):
  """Which NumPy 2.4 and dm_control 1.0.28 by themselves do not let it."""
  environment = dmc.load(task)
  observation = environment.reset().observation
  assert observation['force_torque'].shape == (24,)
  assert observation['imu'].shape == (6,)
  environment.close()
