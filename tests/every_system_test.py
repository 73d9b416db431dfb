"""Every system and ablation through both loops, stopped in each and resumed.

On shards of real video files, two updates of each stage, the second after a
restart; in a small environment, by streaming extraction where it sees motion.
That a restart changes no bit is shown by tests/train/pretrain_test.py,
finetune_test.py and tests/systems/dreamerv3_loop_test.py.
"""

import functools

import jax
import marching
import numpy as np
import pytest

from configs import ablations, finetune_dmcr
from configs import pretrain as pretrain_config
from drp_jax.envs import driver
from drp_jax.runs import checkpoint, logger
from drp_jax.systems import registry
from drp_jax.train import finetune, pretrain
from experiments import finetune_work

_LENGTH = 20  # steps of an episode: a segment fits
_SYSTEMS = ('drp', 'ipv', 'apv', 'prelar', 'diswm', 'dreamerv2', 'dreamerv3')


@pytest.fixture(autouse=True)
def _forgets_what_was_compiled():
  """As conftest does after a file: all of them together are too many."""
  yield
  jax.clear_caches()


def _configs(name):
  """Of pre-training, of the parent's where it has none, and fine-tuning."""
  if name in _SYSTEMS:
    first = pretrain_config.get_config('debug')
    second = finetune_dmcr.get_config('debug')
    first.agent = second.agent = name
    return first, second
  ablation = ablations.ABLATIONS[name]
  if ablation.pretrains:
    first = ablations.get_config(f'{name},pretrain,debug')
  else:
    first = pretrain_config.get_config('debug')
    # E7 starts from IPV.
    first.agent = 'ipv' if name == 'after_ipv' else ablation.parent
  return first, ablations.get_config(f'{name},dmcr,debug')


def _pretrain(config, shards, workdir):
  config.data.shards_dir = str(shards)
  for config.pretrain.num_steps in (1, 2):
    state = pretrain.pretrain(config, workdir)
  assert int(state.step) == 2
  assert checkpoint.Checkpoints(workdir).latest_step() == 2


def _finetune(config, workdir):
  def make_envs():
    return driver.Driver(functools.partial(marching.March, _LENGTH), 1)

  extractor = functools.partial(finetune_work.make_extractor, config)
  config.finetune.prefill = _LENGTH
  config.finetune.train_every = _LENGTH
  config.finetune.eval_every = _LENGTH
  config.finetune.eval_episodes = 1
  config.finetune.checkpoint_every = _LENGTH
  states = []
  for config.finetune.num_steps in (2 * _LENGTH, 3 * _LENGTH):
    state = finetune.finetune(config, workdir, make_envs, extractor)
    states.append(jax.device_get(state))
  before, after = states
  assert checkpoint.Checkpoints(workdir).latest_step() == 3 * _LENGTH
  assert 0 < int(before.step) < int(after.step)
  moved = {
    name
    for name in after.params
    if any(
      np.any(x != y)
      for x, y in zip(
        jax.tree.leaves(before.params[name]),
        jax.tree.leaves(after.params[name]),
        strict=True,
      )
    )
  }
  # The teacher alone is never taught again.
  assert moved == after.params.keys() - {'teacher'}


@pytest.mark.slow
@pytest.mark.parametrize('name', [*_SYSTEMS, *ablations.ABLATIONS])
def test_it_learns_acts_saves_and_goes_on(name, real_shards, tmp_path):
  first, second = _configs(name)
  second.finetune.flow_scale = 1.0
  if registry.build(first, 1, None).system.pretrained:
    _pretrain(first, real_shards, tmp_path / 'pretrain')
    second.init_from = str(tmp_path / 'pretrain')
  _finetune(second, tmp_path / 'finetune')
  for stage in tmp_path.iterdir():
    lines = logger.read_metrics(stage)
    assert any('loss/total' in line for line in lines)
    assert all(np.isfinite(x) for line in lines for x in line.values())
