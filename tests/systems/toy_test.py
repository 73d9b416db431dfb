"""A new system needs a file, a line of the registry and a config section."""

import functools

import jax
import marching
import ml_collections
import numpy as np
import pytest
import toy

from configs import finetune_dmcr
from configs import pretrain as pretrain_config
from drp_jax.envs import driver
from drp_jax.runs import logger
from drp_jax.systems import registry
from drp_jax.train import finetune, pretrain, pretrained

_LENGTH = 20  # steps of an episode: a segment fits


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
  """The one line of the registry."""
  monkeypatch.setitem(registry.SYSTEMS, 'toy', toy.DEFINITION)


def _config(module):
  """The one section of configs/base.py."""
  config = module.get_config('debug').unlock()
  config.agent = 'toy'
  config.toy = ml_collections.ConfigDict()
  config.toy.width = 8
  return config.lock()


def test_its_settings_are_checked():
  config = _config(finetune_dmcr)
  config.toy.width = 0
  with pytest.raises(ValueError, match=r'config\.toy\.width=0 must be in 1'):
    registry.check(config)


def test_it_goes_through_both_loops(real_shards, tmp_path):
  """It learns, is loaded, acts, stops and resumes; what is frozen stays."""
  config = _config(pretrain_config)
  config.data.shards_dir = str(real_shards)
  for config.pretrain.num_steps in (1, 2):
    state = jax.device_get(pretrain.pretrain(config, tmp_path / 'videos'))
  assert int(state.step) == 2
  model = pretrained.load(tmp_path / 'videos')
  np.testing.assert_array_equal(
    model.variables['params']['image_encoder']['kernel'],
    state.params['image_encoder']['kernel'],
  )

  config = _config(finetune_dmcr)
  config.init_from = str(tmp_path / 'videos')
  config.finetune.prefill = config.finetune.train_every = _LENGTH
  config.finetune.eval_every = config.finetune.checkpoint_every = _LENGTH
  config.finetune.num_steps = 2 * _LENGTH

  def make_envs():
    return driver.Driver(functools.partial(marching.March, _LENGTH), 1)

  directory = tmp_path / 'robot'
  states = []
  for config.finetune.num_steps in (2 * _LENGTH, 3 * _LENGTH):
    found = finetune.finetune(config, directory, make_envs, None)
    states.append(jax.device_get(found))
  before, after = states
  assert 0 < int(before.step) < int(after.step)
  for name in ('action_dynamics', 'reward', 'actor', 'critic'):
    pairs = zip(
      jax.tree.leaves(before.params[name]),
      jax.tree.leaves(after.params[name]),
      strict=True,
    )
    assert any(np.any(x != y) for x, y in pairs), name
  np.testing.assert_array_equal(
    after.params['frame_decoder']['kernel'],
    state.params['frame_decoder']['kernel'],
  )
  for place in ('videos', 'robot'):
    lines = logger.read_metrics(tmp_path / place)
    assert sum('loss/total' in line for line in lines) >= 2
    assert all(np.isfinite(x) for line in lines for x in line.values())
