"""Pre-training on real shards: it learns, and resumes to the same numbers."""

import json
import shutil

import jax
import numpy as np
import pytest
import random_inputs

from configs import preprocess as preprocess_config
from configs import pretrain as pretrain_config
from drp_jax.preprocess import video
from drp_jax.runs import checkpoint, lock, logger
from drp_jax.runs import workdir as workdir_lib
from drp_jax.systems import registry
from drp_jax.train import pretrain, pretrained
from experiments import run_preprocess


def _config(shards_dir, num_steps):
  config = pretrain_config.get_config('debug')
  config.data.shards_dir = str(shards_dir)
  config.pretrain.num_steps = num_steps
  return config


def _timeless(workdir):
  """The metrics without what a clock says."""
  return [
    {k: v for k, v in line.items() if 'time' not in k}
    for line in logger.read_metrics(workdir)
  ]


@pytest.fixture(scope='module')
def unbroken(real_shards, tmp_path_factory):
  """State and workdir; a start with other settings had failed there."""
  workdir = tmp_path_factory.mktemp('unbroken')
  failing = _config(workdir / 'nowhere', 2)
  failing.seed = 5
  with pytest.raises(ValueError, match='nowhere'):
    pretrain.pretrain(failing, workdir)
  state = pretrain.pretrain(_config(real_shards, 4), workdir)
  return jax.device_get(state), workdir


def test_a_resumed_run_equals_an_unbroken_one(unbroken, real_shards, tmp_path):
  state, workdir = unbroken
  pretrain.pretrain(_config(real_shards, 2), tmp_path)
  resumed = pretrain.pretrain(_config(real_shards, 4), tmp_path)
  jax.tree.map(np.testing.assert_array_equal, state, jax.device_get(resumed))
  assert _timeless(workdir) == _timeless(tmp_path)


def test_what_a_run_leaves(unbroken, real_shards):
  state, workdir = unbroken
  assert int(state.step) == 4
  config = json.loads((workdir / 'config.json').read_text())
  assert config['data']['shards_dir'] == str(real_shards)
  assert json.loads((workdir / 'run.json').read_text())['devices'] == 4
  names = set().union(*logger.read_metrics(workdir))
  assert {'loss/mae', 'loss/kl_z', 'held_out/open_loop_mse'} <= names
  report = json.loads((real_shards / 'report.json').read_text())
  scale = state.collections['constants']['flow_scale']
  np.testing.assert_allclose(scale, report['flow_scale'], rtol=1e-6)


def _contents(folder):
  return {
    path.relative_to(folder): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and path.name != lock.LOCK_FILE
  }


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'agent': 'ipv', 'seed': 3},
      r"config\.agent 'drp' -> 'ipv'; config\.seed 0 -> 3\.",
    ),
    ({'optim': {'lr': 1e-3}}, r'config\.optim\.lr 0\.0003 -> 0\.001\.'),
    ({'loss': {'kl_z': 2.0}, 'pretrain': {'num_steps': 9}}, r'loss\.kl_z'),
    ({'data': {'shards_dir': 'nowhere'}}, r"shards_dir '.*' -> 'nowhere'"),
  ],
)
def test_other_settings_are_refused_and_the_run_stays_whole(
  unbroken, real_shards, tmp_path, changes, message
):
  run = tmp_path / 'run'
  shutil.copytree(unbroken[1], run)
  before = _contents(run)
  config = _config(real_shards, 4)
  config.update(changes)
  with pytest.raises(ValueError, match=message):
    pretrain.pretrain(config, run)
  assert _contents(run) == before
  assert pretrained.load(run).config.agent == 'drp'


def test_the_shards_of_a_run_may_move_but_not_change(
  unbroken, real_shards, tmp_path
):
  run, moved = tmp_path / 'run', tmp_path / 'moved'
  shutil.copytree(unbroken[1], run)
  shutil.copytree(real_shards, moved)
  pretrain.pretrain(_config(moved, 4), run)
  (change,) = workdir_lib.read_changes(run)
  assert (change['step'], change['key']) == (4, 'config.data.shards_dir')
  # Others lie there now: of videos that move differently, and with the same
  # flow but other keypoints.
  report = json.loads((moved / 'report.json').read_text())
  before = _contents(run)
  extractor = {**report['extractor'], 'description': 'mask=onnx'}
  for key, value in (
    ('flow_scale', 2 * report['flow_scale']),
    ('extractor', extractor),
  ):
    (moved / 'report.json').write_text(json.dumps({**report, key: value}))
    with pytest.raises(ValueError, match=rf'data\.shards_dir: {key}'):
      pretrain.pretrain(_config(moved, 6), run)
    assert _contents(run) == before


def test_a_start_that_failed_binds_nobody(unbroken):
  assert workdir_lib.read_config(unbroken[1]).seed == 0


def test_load_part_reads_what_is_asked_for(unbroken):
  state, workdir = unbroken
  part = {'params': {'dae': state.params['dae']}}
  loaded = checkpoint.load_part(workdir, part)
  jax.tree.map(np.testing.assert_array_equal, part, jax.device_get(loaded))


def test_load_part_names_what_does_not_fit(unbroken, tmp_path):
  state, workdir = unbroken
  wrong = {'params': {'dae': {'norm': {'scale': np.zeros(3)}}}}
  with pytest.raises(ValueError, match='dae/norm/scale.*16.*3'):
    checkpoint.load_part(workdir, wrong)
  with pytest.raises(ValueError, match='missing'):
    checkpoint.load_part(workdir, {'params': {'other': np.zeros(3)}})
  with pytest.raises(ValueError, match='init_from=.*no checkpoint'):
    checkpoint.load_part(tmp_path, {'params': state.params})


def _short_videos(folder, shards_dir, fraction):
  """Shards of five videos that are too short to be cut in two."""
  folder.mkdir()
  for seed in range(5):
    frames = random_inputs.moving_squares(30, seed)
    video.write_video(folder / f'{seed}.mp4', frames, 25)
  config = preprocess_config.get_config()
  config.path, config.data.shards_dir = str(folder), str(shards_dir)
  config.data.clip_stride, config.data.num_workers = 5, 1
  config.data.validation_fraction = fraction
  return run_preprocess.preprocess(config)


def test_short_videos_are_pre_trained_on_and_measured_with(tmp_path):
  """Fewer validation clips than a batch."""
  found = _short_videos(tmp_path / 'videos', tmp_path / 'shards', 0.05)
  assert found['num_clips'] == {'train': 8, 'validation': 2}
  assert found['held_out_videos'] == 1
  config = _config(tmp_path / 'shards', 1)
  assert config.data.batch_size == 4
  pretrain.pretrain(config, tmp_path / 'run')
  names = set().union(*logger.read_metrics(tmp_path / 'run'))
  assert {'held_out/mae', 'held_out/open_loop_mse'} <= names


def test_without_held_out_clips_it_trains_and_warns(tmp_path, caplog):
  found = _short_videos(tmp_path / 'videos', tmp_path / 'shards', 0.0)
  assert found['num_clips'] == {'train': 10, 'validation': 0}
  state = pretrain.pretrain(_config(tmp_path / 'shards', 2), tmp_path / 'run')
  assert int(state.step) == 2
  names = set().union(*logger.read_metrics(tmp_path / 'run'))
  assert 'loss/mae' in names
  assert not any(name.startswith('held_out') for name in names)
  assert 'holds no validation clip' in caplog.text


@pytest.mark.parametrize('clip_length', [24, 13])
def test_clips_of_another_length_are_refused(
  real_shards, tmp_path, clip_length
):
  config = _config(real_shards, 2)
  config.data.clip_length = clip_length
  with pytest.raises(
    ValueError,
    match=f'config.data.clip_length={clip_length}, but the clips of'
    r' config.data.shards_dir=.* have 25 frames: .*clip_length=25. Set',
  ):
    pretrain.pretrain(config, tmp_path / 'run')
  assert not (tmp_path / 'run' / 'config.json').exists()


def test_no_shards_is_said_clearly(tmp_path):
  config = _config(tmp_path / 'nowhere', 4)
  with pytest.raises(ValueError, match='config.data.shards_dir=.*nowhere'):
    pretrain.pretrain(config, tmp_path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize('agent', ['ipv', 'apv', 'prelar'])
def test_other_systems_pre_train_from_the_images_alone(
  agent, real_shards, tmp_path
):
  """And what they learned is what their fine-tuning loads."""
  config = _config(real_shards, 1)
  config.agent = agent
  state = jax.device_get(pretrain.pretrain(config, tmp_path))
  names = set().union(*logger.read_metrics(tmp_path))
  assert {'loss/image_z', 'held_out/open_loop_mse'} <= names
  assert not {'loss/mae', 'held_out/mae'} & names
  config.init_from = str(tmp_path)
  system = registry.build(config, 2, None).system
  loaded = jax.device_get(registry.build(config, 2, None).finetuning.init())
  for name in system.pretrained:
    jax.tree.map(
      np.testing.assert_array_equal, loaded.params[name], state.params[name]
    )
  expected = {
    name: state.collections['batch_stats'][name]
    for name in loaded.collections['batch_stats']
  }
  jax.tree.map(
    np.testing.assert_array_equal, loaded.collections, {'batch_stats': expected}
  )


def test_a_system_without_pre_training_says_so(tmp_path):
  config = _config(tmp_path, 1)
  config.agent = 'dreamerv2'
  with pytest.raises(ValueError, match="config.agent='dreamerv2' has no"):
    pretrain.pretrain(config, tmp_path / 'run')
