"""Whole runs that meet numbers that are none."""

import jax
import numpy as np
import pytest
import random_inputs

from configs import preprocess as preprocess_config
from configs import pretrain as pretrain_config
from drp_jax.data import clips, shards
from drp_jax.preprocess import video
from drp_jax.runs import bad_steps, logger
from drp_jax.train import pretrain
from experiments import preprocess_work


def _shards(root, spoil):
  """Shards of real videos; flow is NaN in clips that `spoil(number)` names."""
  (root / 'videos').mkdir()
  for seed in range(2):
    frames = random_inputs.moving_squares(80, seed)
    video.write_video(root / 'videos' / f'{seed}.mp4', frames, 25)
  config = preprocess_config.get_config()
  config.path, config.data.shards_dir = str(root / 'videos'), str(root / 'set')
  config.data.clip_stride = 5
  config.data.validation_fraction = 0.45
  job = preprocess_work.make_job(config)
  count = 0

  def extract(footage, rng):
    nonlocal count
    clip = job.extract(footage, rng)
    if spoil(count):
      clip['flow'] = np.full_like(clip['flow'], np.nan)
      clip['visible'][:] = False  # else the scale of flow would be refused
    count += 1
    return clip

  folder = config.data.shards_dir
  cutter = clips.Cutter(job.plan, job.read_frames, extract)
  shards.write_shards(folder, job.listing.videos, cutter, 2)
  return folder


def _config(shards_dir):
  config = pretrain_config.get_config('debug')
  config.data.shards_dir = shards_dir
  config.pretrain.num_steps = 6
  config.pretrain.eval_every = 6
  config.pretrain.log_every = 1
  return config


@pytest.mark.slow
def test_a_bad_clip_costs_the_updates_that_meet_it(tmp_path):
  config = _config(_shards(tmp_path, lambda number: number == 1))
  state = pretrain.pretrain(config, tmp_path / 'run')
  assert int(state.step) == 6
  lines = logger.read_metrics(tmp_path / 'run')
  skipped = [line['skipped'] for line in lines if 'skipped' in line]
  assert skipped[-1] >= 1 and skipped == sorted(skipped)
  for leaf in jax.tree.leaves(state.params):
    assert np.isfinite(leaf).all()
  first, *_ = sorted((tmp_path / 'run' / bad_steps.FOLDER).iterdir())
  with np.load(first / 'batch.npz') as batch:
    flow = next(batch[name] for name in batch.files if 'flow' in name)
  assert np.isnan(flow).any() and not np.isnan(flow).all()


@pytest.mark.slow
def test_nothing_but_bad_batches_ends_the_run(tmp_path):
  config = _config(_shards(tmp_path, lambda number: number > 0))
  config.optim.max_bad_steps = 3
  with pytest.raises(RuntimeError, match=r'3 updates in a row.*max_bad_steps'):
    pretrain.pretrain(config, tmp_path / 'run')
