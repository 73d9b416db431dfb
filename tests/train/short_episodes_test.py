"""Fine-tuning where all episodes are short and terminate, from end to end."""

import functools

import jax
import marching
import numpy as np
import pytest

from configs import base
from drp_jax.envs import driver
from drp_jax.runs import logger
from drp_jax.train import finetune

_LENGTH = 3  # steps of an episode, 4 frames; a segment has 8


def _run(directory, agent, continuation):
  config = base.get_config('debug')
  config.agent = agent
  config.behavior.continuation = continuation
  config.env.num_envs = 2
  config.update(
    {
      'finetune': {
        'num_steps': 60,
        'prefill': 6,
        'train_every': 20,
        'eval_every': 60,
      }
    }
  )
  make_env = functools.partial(marching.March, _LENGTH, terminates=True)
  state = finetune.finetune(
    config, directory, functools.partial(driver.Driver, make_env, 2), None
  )
  return jax.device_get(state), logger.read_metrics(directory)


@pytest.mark.parametrize(
  ('agent', 'continuation'),
  [
    ('dreamerv2', True),
    pytest.param('dreamerv2', False, marks=pytest.mark.slow),
    pytest.param('dreamerv3', False, marks=pytest.mark.slow),
  ],
)
def test_a_run_of_short_episodes_learns_to_its_end(
  tmp_path, caplog, agent, continuation
):
  """The prefill is shorter than a segment; the warning comes once or never."""
  state, lines = _run(tmp_path, agent, continuation)
  assert int(state.step) >= 3
  for leaf in jax.tree.leaves(state.params):
    assert np.isfinite(leaf).all()
  assert {line['episode/length'] for line in lines if 'episode/length' in line}
  assert lines[-1]['step'] >= 60
  learned = continuation or agent == 'dreamerv3'
  warned = [m for m in caplog.messages if 'terminated, which nothing' in m]
  assert len(warned) == (0 if learned else 1)
  if continuation:
    metrics = [line for line in lines if 'loss/continuation' in line]
    assert metrics and all(0 < m['behavior/discount'] < 1 for m in metrics)
