"""DreamerV3 through the loop of fine-tuning: all stages, exact resumption."""

import functools

import jax
import marching
import numpy as np

from configs import finetune_dmcr
from drp_jax.envs import driver
from drp_jax.runs import checkpoint, logger
from drp_jax.train import finetune


def _run(workdir, num_steps):
  """Episodes of 10 steps, updates at the 20th, 30th, ... step."""
  config = finetune_dmcr.get_config('debug')
  config.agent = 'dreamerv3'
  config.finetune.num_steps = num_steps
  config.finetune.prefill = 10
  config.finetune.eval_every = 20

  def make_envs():
    return driver.Driver(functools.partial(marching.March, 10), 1)

  return jax.device_get(finetune.finetune(config, workdir, make_envs, None))


def test_it_learns_acts_saves_and_resumes_to_the_same_numbers(tmp_path):
  before = _run(tmp_path / 'a', 20)
  assert checkpoint.Checkpoints(tmp_path / 'a').latest_step() == 20
  after = _run(tmp_path / 'a', 40)
  unbroken = _run(tmp_path / 'b', 40)
  assert int(before.step) == 2 and int(after.step) == 4
  jax.tree.map(np.testing.assert_array_equal, after, unbroken)

  assert unbroken.intrinsic is None
  for part in ('params', 'slow_critic', 'collections', 'model_opt'):
    pairs = zip(
      jax.tree.leaves(getattr(before, part)),
      jax.tree.leaves(getattr(after, part)),
      strict=True,
    )
    assert any(np.any(old != new) for old, new in pairs), part
  range_ = unbroken.collections['return_range']
  assert range_['high'] != 0
  lines = logger.read_metrics(tmp_path / 'b')
  assert sum('loss/replay_value' in line for line in lines) == 4
  assert all(np.isfinite(x) for line in lines for x in line.values())
