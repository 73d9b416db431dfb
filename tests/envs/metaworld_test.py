"""Tests of Meta-World: what is seen, rewarded and repeated, in real tasks."""

import numpy as np
import pytest

from drp_jax.envs import dmc, metaworld

# The paper's (Fig. 11).
SIX = (
  'dial-turn',
  'drawer-open',
  'lever-pull',
  metaworld.BUTTON_TASK,
  'reach',
  'door-lock',
)
SHADOW = 256  # texels, for speed
PIECES = 10  # of the list of all tasks, for one slow test each


@pytest.fixture(scope='module')
def env():
  env = metaworld.MetaWorld('reach', SHADOW)
  yield env
  env.close()


def play(env, seed, steps=4):
  """Random actions; images [T+1, ...], rewards and the last state."""
  rng = np.random.default_rng(seed)
  images, rewards = [env.reset(seed=seed)[0]], []
  for _ in range(steps):
    image, reward, *_ = env.step(rng.uniform(-1, 1, 4))
    images.append(image)
    rewards.append(reward)
  return np.stack(images), np.array(rewards), env.state


def arm_pixels(env):
  """Rows and columns [n, 2] of what moves in an episode's first image."""
  env.reset(seed=0)
  frame = env.scene()
  return np.argwhere((frame['geom'] >= 0) & frame['moves'][frame['geom']])


def test_the_image_is_upright(env):
  """The arm comes from above a table that fills the lower half (T7)."""
  image, info = env.reset(seed=0)
  assert image.shape == (64, 64, 3)
  assert image.dtype == np.uint8
  assert info == {'success': False}
  arm = arm_pixels(env)
  assert 0.05 < len(arm) / 64**2 < 0.4
  assert arm[:, 0].mean() < 32
  frame = env.scene()
  # The sky, or wall, is above; the floor and the table are below.
  assert (frame['geom'][:5] < 0).mean() > 0.5 > (frame['geom'][-5:] < 0).mean()


def test_the_image_is_mirrored(env):
  """The camera, at x, y < 0, looks along both, past the robot at the origin.

  The robot is to the right of that line, so mirrored to the left (T7).
  """
  assert arm_pixels(env)[:, 1].mean() < 24
  rotation = env.scene()['camera_rotation']
  np.testing.assert_allclose(np.linalg.det(rotation), -1, atol=1e-5)


@pytest.mark.parametrize('task', SIX)
def test_the_tasks_of_the_paper(task):
  env = metaworld.MetaWorld(task, SHADOW)
  images, rewards, state = play(env, seed=1)
  assert env.observation_space.contains(images[0])
  assert np.abs(np.diff(images.astype(int), axis=0)).max() > 20
  assert (rewards >= 0).all() and (rewards <= 10).all()
  first = env.reset(seed=2)[0]
  second = env.reset()[0]  # goes on with the generator
  assert (first != second).any()
  assert np.abs(state[-3:]).max() > 0  # the goal is seen
  env.close()


def test_episodes_are_functions_of_their_seeds_alone():
  """Of no other instance, no earlier episode and no global generator."""
  one = metaworld.MetaWorld('door-lock', SHADOW)
  expected = play(one, 3)
  np.random.seed(0)
  before = np.random.get_state()
  other = metaworld.MetaWorld('door-lock', SHADOW)
  play(other, 4)
  actual = play(other, 3)
  np.testing.assert_equal(np.random.get_state(), before)
  np.testing.assert_equal(actual, expected)
  assert (play(one, 4)[2] != expected[2]).any()
  np.testing.assert_equal(play(one, 3), expected)
  one.close()
  other.close()


def test_goals_differ_without_a_seed(env):
  env.reset(seed=1)
  goal = env.state[-3:]
  env.reset()
  assert (env.state[-3:] != goal).any()


def test_drawing_changes_nothing_but_the_images(env):
  blind = metaworld.MetaWorld('reach', draw=False)
  images, rewards, state = play(blind, 5)
  assert not images.any()
  drawn = play(env, 5)
  assert drawn[0].any()
  np.testing.assert_array_equal(drawn[1], rewards)
  np.testing.assert_array_equal(drawn[2], state)
  blind.close()


@pytest.mark.parametrize(
  ('task', 'site'), [('reach', 'goal'), ('door-lock', 'goal_lock')]
)
def test_the_marker_is_where_the_goal_is(task, site):
  """From the first image on, as v2 drew it."""
  env = metaworld.MetaWorld(task, SHADOW)
  model = env._env.model
  index = model.ngeom + model.site(site).id
  env.reset(seed=1)
  goal = env.state[-3:]
  for _ in range(2):
    np.testing.assert_allclose(env.scene()['position'][index], goal, atol=1e-6)
    env.advance(np.zeros(4))
  env.close()


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


def test_the_button_as_v2_rewards_it():
  """With the gripper open next to nothing, with it closed more; v3 contrary."""

  def reward(v2, gripper):
    env = metaworld.MetaWorld(metaworld.BUTTON_TASK, None, v2, draw=False)
    env.reset(seed=0)
    rewards = [env.advance([0, 0, 0, gripper])[0] for _ in range(20)]
    env.close()
    return rewards[-1]

  v3_open, v3_closed = reward(False, -1), reward(False, 1)
  v2_open, v2_closed = reward(True, -1), reward(True, 1)
  assert v2_open < 0.05 < v3_open
  assert v2_closed > 0.1 > v2_open
  assert v3_open > v3_closed


def test_the_button_is_pressed_further_in_v2():
  policy = metaworld.scripted_policy(metaworld.BUTTON_TASK)
  first = {}
  for v2 in (False, True):
    env = metaworld.MetaWorld(metaworld.BUTTON_TASK, None, v2, draw=False)
    env.reset(seed=1)
    success = False
    while not success:
      _, _, over, info = env.advance(policy.get_action(env.state))
      assert not over
      success = info['success']
    way = env._env._target_pos[2] - env.state[6]  # the button's z
    first[v2] = abs(way)
    env.close()
  assert first[True] <= 0.02 < first[False] <= 0.024


def test_the_button_by_hand():
  """At equal openings and nearness p: p / (2 - p)."""
  reward = metaworld._v2_button_reward
  assert reward(7.0, 0.5, 0.5) == 7.0
  # Wide open: v3 gives all of the nearness, v2 nothing.
  assert reward(5 * 0.4 + 3, 1.0, 0.4) == pytest.approx(3)
  assert reward(3, 0.0, 0.4) == pytest.approx(5)


def test_a_simulation_that_diverges_says_so(env, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # where MuJoCo leaves a note
  env.reset(seed=0)
  env._env.data.qvel[0] = np.nan
  with pytest.raises(RuntimeError, match="'reach' has diverged"):
    env.step(np.zeros(4))
  with pytest.raises(RuntimeError, match='reset'):
    env.step(np.zeros(4))
  expected = play(env, 1)
  np.testing.assert_equal(play(env, 1), expected)


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


def test_there_are_fifty_tasks():
  assert len(set(metaworld.tasks())) == 50
  assert set(SIX) <= set(metaworld.tasks())


@pytest.mark.slow
@pytest.mark.parametrize('piece', range(PIECES))
def test_random_actions_through_every_task(piece):
  """Three whole episodes each; the third repeats the first."""
  for task in metaworld.tasks()[piece::PIECES]:
    env = metaworld.MetaWorld(task, shadow_size=0)
    env._env.model.vis.quality.offsamples = 0  # a fifth of the time
    states = []
    for seed in (0, 1, 0):
      image, _ = env.reset(seed=seed)
      images, start = [image], env.state
      rng, over, steps = np.random.default_rng(seed), False, 0
      while not over:
        reward, terminated, over, _ = env.advance(rng.uniform(-1, 1, 4))
        steps += 1
        assert not terminated, task
        assert 0 <= reward <= 10, (task, reward)
        if steps % 10 == 0:
          images.append(env.render())
      assert steps == 500, task
      assert np.std(images, axis=0).max() > 10, task
      states.append(np.concatenate([start, env.state]))
    assert np.isfinite(states).all(), task
    np.testing.assert_array_equal(states[2], states[0], task)
    assert (states[1] != states[0]).any(), task
    env.close()
