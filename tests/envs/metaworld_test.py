"""Tests of Meta-World's tasks: images, episodes, seeds, the scripted policy."""

import numpy as np
import pytest

from drp_jax.envs import dmc, metaworld


@pytest.fixture(scope='module')
def env():
  env = metaworld.MetaWorld('reach', shadow_size=256)
  yield env
  env.close()


def test_the_image_is_upright(env):
  """The arm comes from above a table that fills the lower half (T7)."""
  image, info = env.reset(seed=0)
  assert image.shape == (64, 64, 3)
  assert image.dtype == np.uint8
  assert info == {'success': False}
  frame = env.scene()
  arm = (frame['geom'] >= 0) & frame['moves'][frame['geom']]
  rows = np.nonzero(arm)[0]
  assert 0.05 < arm.mean() < 0.4
  assert rows.mean() < 32
  # The sky, or wall, is above; the floor and the table are below.
  assert (frame['geom'][:5] < 0).mean() > 0.5 > (frame['geom'][-5:] < 0).mean()


def test_an_episode_is_a_function_of_its_seed(env):
  def play(seed):
    env.reset(seed=seed)
    rng = np.random.default_rng(0)
    steps = [env.advance(rng.uniform(-1, 1, 4)) for _ in range(5)]
    return env.state, [reward for reward, *_ in steps]

  state, rewards = play(1)
  other, _ = play(2)
  again, rewards_again = play(1)
  np.testing.assert_array_equal(again, state)
  assert rewards_again == rewards
  assert state.shape == (metaworld.STATE_SIZE,)
  assert (other[-3:] != state[-3:]).any()  # goals differ


def test_the_goal_is_seen_and_differs_without_a_seed(env):
  env.reset(seed=1)
  goal = env.state[-3:]
  assert np.abs(goal).max() > 0
  env.reset()
  assert (env.state[-3:] != goal).any()


def test_the_first_image_shows_where_the_goal_is(env):
  """Without a forward pass the marker would be where it was before."""
  env.reset(seed=1)
  first = env.scene()['position']
  env.advance(np.zeros(4))
  later = env.scene()['position']
  model_sites = first[-8:], later[-8:]  # the goal's is the first of them
  assert np.abs(model_sites[0][0] - env.state[-3:]).max() < 0.01
  assert np.abs(model_sites[1][0] - env.state[-3:]).max() < 0.01


def test_the_scripted_policy_reaches_the_goal_and_the_episode_ends(env):
  policy = metaworld.scripted_policy('reach')
  env.reset(seed=3)
  success, over, steps, before = False, False, 0, env.render()
  while not over:
    action = policy.get_action(env.state)
    reward, terminated, over, info = env.advance(action)
    assert not terminated
    assert 0 <= reward <= 10
    success |= info['success']
    steps += 1
  assert success
  assert steps == 500
  assert np.abs(env.render().astype(int) - before).max() > 50
  with pytest.raises(RuntimeError, match='reset'):
    env.advance(np.zeros(4))


def test_it_does_not_disturb_other_simulators(env):
  """dm_control would draw into our context if it were left current."""
  other = dmc.DMC('cartpole_swingup', shadow_size=256)
  image, _ = other.reset(seed=0)
  ours, _ = env.reset(seed=0)
  np.testing.assert_array_equal(other.render(), image)
  np.testing.assert_array_equal(env.render(), ours)
  other.close()


def test_an_unknown_task_is_refused():
  with pytest.raises(ValueError, match='drawer-open.*not .drawer_open.'):
    metaworld.MetaWorld('drawer_open')
