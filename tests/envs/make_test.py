"""Tests of opening environments by name."""

import numpy as np
import pytest

from drp_jax.envs import make


@pytest.mark.parametrize(
  ('suite', 'task'),
  [
    ('dmc', 'hopper_stand'),
    ('dmcr', 'hopper_stand'),
    ('metaworld', 'drawer-open'),
  ],
)
def test_one_interface_for_all(suite, task):
  settings = make.Settings(
    suite,
    action_repeat=2,
    shadow_size=256,
    factors=('body', 'floor'),
    texture_size=32,
  )
  env = make.make_env(settings, task)
  image, _ = env.reset(seed=0)
  assert env.observation_space.contains(image)
  action = np.ones(env.action_space.shape, np.float32)
  image, reward, terminated, truncated, info = env.step(action)
  assert env.observation_space.contains(image)
  assert isinstance(reward, float)
  assert (terminated, truncated, info['success']) == (False, False, False)
  env.close()


def test_unknown_suite():
  known = "config.env.suite is 'dmc', 'dmcr' or 'metaworld', not 'atari'"
  with pytest.raises(ValueError, match=known):
    make.make_env(make.Settings('atari', action_repeat=1), 'pong')


@pytest.mark.parametrize(
  ('suite', 'task'),
  [
    ('dmc', 'drawer-open'),
    ('dmcr', 'quadruped_run'),
    ('metaworld', 'reach-v3'),
  ],
)
def test_a_task_of_another_suite(suite, task):
  with pytest.raises(ValueError, match=f'config.task.*{task}'):
    make.make_env(make.Settings(suite, action_repeat=1), task)


def test_settings_reach_the_suite():
  settings = make.Settings('metaworld', action_repeat=1, v2_button=True)
  env = make.make_env(settings, 'button-press-topdown-wall', draw=False)
  image, _ = env.reset(seed=0)
  assert not image.any()
  # The gripper is open: nothing in v2 (metaworld_test.py), more in v3.
  assert env.step(np.array([0, 0, 0, -1], np.float32))[1] < 0.05
  env.close()
