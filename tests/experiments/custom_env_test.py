"""The example of an environment of one's own, as it is run."""

import numpy as np
import pytest

from configs import base
from drp_jax.runs import logger
from experiments import custom_env


@pytest.fixture
def config():
  config = base.get_config('debug')
  config.task = 'Reacher-v5'
  return config


def test_images_and_actions_are_as_agents_want_them(config):
  env = custom_env.make_env(config)
  first, _ = env.reset(seed=0)
  assert first.shape == (64, 64, 3) and first.dtype == np.uint8
  assert env.observation_space.contains(first)
  np.testing.assert_array_equal(env.action_space.high, [1, 1])
  for _ in range(10):
    image, *_ = env.step(np.ones(2, np.float32))
  assert np.abs(image.astype(int) - first).max() > 50
  env.close()


@pytest.mark.slow
def test_a_run_ends_evaluated(config, tmp_path):
  state = custom_env.finetune(config, str(tmp_path))
  assert int(state.step) > 2
  lines = logger.read_metrics(tmp_path)
  assert [line['eval/return'] for line in lines if 'eval/return' in line][
    -1
  ] < 0
