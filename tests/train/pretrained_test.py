"""What was learned is opened as it was saved, and exported without the rest."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr, pretrain
from drp_jax import losses
from drp_jax.data import shards
from drp_jax.preprocess import video
from drp_jax.runs import checkpoint, workdir
from drp_jax.systems import registry
from drp_jax.train import pretrained
from experiments import clip_batches

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  """A workdir after step 7, whose statistics tell it from a fresh one."""
  folder = tmp_path_factory.mktemp('pretrained')
  config = pretrain.get_config('debug')
  config.data.shards_dir = str(folder)
  state = registry.build(config, 1, None).pretraining.init(2.5)
  workdir.compare(folder, config, 'pretrain', None, {}).record(folder)
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
  assert pretrained.load(target).config.data.shards_dir == ''
  for path in target.rglob('*'):
    assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes()
  assert not list((target / 'checkpoints').rglob('*opt_state*'))
  saved = checkpoint.Checkpoints(target)
  assert saved.latest_step() == 7
  saved.close()
  with pytest.raises(ValueError, match='holds a checkpoint already'):
    pretrained.export(folder, target)


def test_the_example_in_the_documents(tmp_path, monkeypatch):
  """The shipped model on a real video, longer than a tracking window."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'experiments').symlink_to(_ROOT / 'experiments')
  frames = random_inputs.moving_squares(30, seed=0)
  video.write_video(tmp_path / 'push.mp4', frames, 25)
  text = (_ROOT / 'docs' / 'library.md').read_text('utf-8')
  (code,) = re.findall(r'^```python\n(.*?)^```', text, re.DOTALL | re.MULTILINE)
  assert sum(bool(line) for line in code.split('\n')) <= 20
  found = {}
  exec(code, found)
  config = found['model'].config.dae
  assert found['a_agg'].shape == (30, config.width)
  assert found['local'].shape == (30, config.num_keypoints, config.width)
  assert found['motion']['window_step'][0, [1, 24, 25]].tolist() == [0, 23, 0]
  size = np.abs(found['a_agg']).mean(-1)
  assert size[0] == 0 and np.isfinite(size).all() and size[1:].min() > 0


def test_the_shipped_model_is_small_and_has_learned(real_shards):
  """Masked flow of unknown videos, better than by none and by the mean."""
  folder = _ROOT / 'experiments' / 'pretrained' / 'nano'
  assert _bytes(folder) < 5e6
  model = pretrained.load(folder)
  assert model.config.preset == 'nano' and model.config.agent == 'drp'
  clips = clip_batches.spaced(shards.open_split(real_shards, 'train', None), 8)
  K = model.config.dae.num_keypoints
  ((_, batch),) = clip_batches.in_batches(clips, K)
  recon, patches, hidden = model.system.reconstruct_motion(
    model.variables, batch, random_inputs.keys(0, len(clips))
  )
  mean = jnp.broadcast_to(patches[:, 1:].mean((0, 1, 2)), patches.shape)
  ours, none, mean = (
    float(losses.mae_loss(guess, patches, hidden))
    for guess in (recon, jnp.zeros_like(patches), mean)
  )
  assert ours < 0.8 * min(none, mean), (ours, none, mean)


def test_other_folders_are_errors(tmp_path):
  with pytest.raises(ValueError, match=r'is no workdir.*config\.json'):
    pretrained.load(tmp_path)
  config = finetune_dmcr.get_config('debug').unlock()
  config.agent = 'dreamerv2'
  workdir.compare(tmp_path, config, 'pretrain', None, {}).record(tmp_path)
  with pytest.raises(ValueError, match='no workdir of a pre-training'):
    pretrained.load(tmp_path)
  workdir.compare(
    tmp_path, pretrain.get_config('debug'), 'pretrain', None, {}
  ).record(tmp_path)
  with pytest.raises(ValueError, match='workdir=.*holds no checkpoint'):
    pretrained.load(tmp_path)
