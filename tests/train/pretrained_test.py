"""What was learned is opened as it was saved, and exported without the rest."""

import jax
import numpy as np
import pytest

from configs import finetune_dmcr, pretrain
from drp_jax.train import build, checkpoint, pretrained, workdir
from drp_jax.train import pretrain as pretrain_lib


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A workdir after step 7, whose statistics tell it from a fresh one."""
  folder = tmp_path_factory.mktemp('pretrained')
  config = pretrain.get_config('debug')
  system = build.system(config, 1, None)
  tx = build.pretrain_optimizer(config)
  state = pretrain_lib.init_state(config, system, tx, flow_scale=2.5)
  workdir.begin(folder, config)
  saved = checkpoint.Checkpoints(folder)
  saved.save(7, state, {})
  saved.close()
  return folder, state


def _bytes(folder):
  return sum(p.stat().st_size for p in folder.rglob('*') if p.is_file())


def test_load(run):
  folder, state = run
  model = pretrained.load(folder)
  assert model.config.agent == 'drp'
  assert model.variables['constants']['flow_scale'] == 2.5
  jax.tree.map(
    np.testing.assert_array_equal,
    model.variables,
    {'params': state.params, **state.collections},
  )


def test_what_is_exported_loads_the_same_and_is_smaller(run, tmp_path):
  folder, _ = run
  target = pretrained.export(folder, tmp_path / 'mine')
  jax.tree.map(
    np.testing.assert_array_equal,
    pretrained.load(target).variables,
    pretrained.load(folder).variables,
  )
  assert _bytes(target) < _bytes(folder)
  assert not list((target / 'checkpoints').rglob('*opt_state*'))
  saved = checkpoint.Checkpoints(target)
  assert saved.latest_step() == 7
  saved.close()
  with pytest.raises(ValueError, match='holds a checkpoint already'):
    pretrained.export(folder, target)


def test_other_folders_are_errors(tmp_path):
  with pytest.raises(ValueError, match=r'is no workdir.*config\.json'):
    pretrained.load(tmp_path)
  config = finetune_dmcr.get_config('debug').unlock()
  config.agent = 'dreamerv2'
  workdir.begin(tmp_path, config)
  with pytest.raises(ValueError, match='no workdir of a pre-training'):
    pretrained.load(tmp_path)
  workdir.begin(tmp_path, pretrain.get_config('debug'))
  with pytest.raises(ValueError, match='workdir=.*holds no checkpoint'):
    pretrained.load(tmp_path)
