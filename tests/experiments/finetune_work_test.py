"""Limits of environments: length of episodes, time."""

import contextlib

import marching
import numpy as np
import pytest

from configs import base
from drp_jax.runs import logger
from experiments import finetune_work


@pytest.fixture
def config():
  config = base.get_config('debug')
  config.env.episode_length = 9
  return config


def _endless(config):
  del config
  return marching.Endless()


def test_every_environment_s_episodes_have_an_end(config):
  """It is not terminal; an end of the environment's own comes first."""
  config.env.num_envs = 2
  with contextlib.closing(finetune_work.make_envs(config, _endless)) as envs:
    for seed in (1, 2):  # in every episode
      frames = envs.reset([seed, seed])
      for _ in range(8):
        assert frames.arrived.all() and not frames.is_last.any()
        envs.send(np.zeros((2, 2), np.float32))
        frames = envs.receive()
      envs.send(np.zeros((2, 2), np.float32))
      frames = envs.receive()
      assert frames.is_last.all() and not frames.is_terminal.any()
      np.testing.assert_array_equal(frames.reward, [9, 9])


@pytest.mark.parametrize('length', [4, 9])
def test_an_end_of_the_environment_s_own_stays_terminal(config, length):
  env = finetune_work.limited(
    config, lambda _: marching.March(length, terminates=True)
  )
  env.reset(seed=1)
  ends = [env.step(np.zeros(2, np.float32))[2:4] for _ in range(length)]
  assert not any(terminated for terminated, _ in ends[:-1])
  assert ends[-1][0] and ends[-1][1] == (length == 9)


def test_seconds_of_the_config_hold(config):
  config.env.max_seconds = 0.2
  with pytest.raises(RuntimeError, match='make_env took .*max_seconds=0.2'):
    finetune_work.make_envs(config, lambda _: marching.hang('sleep'))


@pytest.mark.slow
def test_a_run_in_an_endless_environment_ends_evaluated(config, tmp_path):
  finetune_work.finetune(config, str(tmp_path), _endless)
  lines = logger.read_metrics(tmp_path)
  assert {x['episode/length'] for x in lines if 'episode/length' in x} == {9}
  returns = [line['eval/return'] for line in lines if 'eval/return' in line]
  assert set(returns) == {45.0}
