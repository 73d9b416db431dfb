"""Tests of opening environments by name."""

import numpy as np
import pytest

from drp_jax.envs import make


@pytest.mark.parametrize('suite', ['dmc', 'dmcr'])
def test_one_interface_for_all(suite):
  env = make.make_env(
    suite,
    'hopper_stand',
    action_repeat=2,
    shadow_size=256,
    factors=('body', 'floor'),
    texture_size=32,
  )
  image, _ = env.reset(seed=0)
  assert env.observation_space.contains(image)
  action = np.ones(env.action_space.shape, np.float32)
  image, reward, terminated, truncated, info = env.step(action)
  assert env.observation_space.contains(image)
  assert isinstance(reward, float)
  assert (terminated, truncated, info['success']) == (False, False, False)
  env.close()


def test_unknown_suite():
  with pytest.raises(ValueError, match="'dmc' or 'dmcr', not 'atari'"):
    make.make_env('atari', 'pong', action_repeat=1, shadow_size=None)
