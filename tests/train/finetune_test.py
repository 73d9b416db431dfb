"""Fine-tuning in a real environment: all stages, and exact resumption."""

import csv
import functools
import json

import jax
import numpy as np
import pytest

from configs import finetune_dmcr
from drp_jax.agents import drp
from drp_jax.train import checkpoint, finetune, logger, pretrain
from experiments import record_result, run_dmcr


class _Killed(Exception):
  pass


def _config(**changes):
  config = finetune_dmcr.get_config('debug')
  config.task = 'walker_stand'
  config.update(changes)
  return config


def _run(config, workdir, die_after=None):
  """Runs in `workdir`; the environments die after some steps."""

  def make_env():
    env = run_dmcr.make_env(config)
    if die_after is not None:
      step, count = env.step, 0

      def dying_step(action):
        nonlocal count
        count += 1
        if count > die_after:
          raise _Killed
        return step(action)

      env.step = dying_step
    return env

  extractor = functools.partial(run_dmcr.make_extractor, config)
  return finetune.finetune(config, workdir, make_env, extractor)


def _timeless(workdir):
  return [
    {k: v for k, v in line.items() if 'time' not in k}
    for line in logger.read_metrics(workdir)
  ]


@pytest.fixture(scope='module')
def unbroken(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('unbroken')
  return jax.device_get(_run(_config(), workdir)), workdir


def test_a_resumed_run_equals_an_unbroken_one(unbroken, tmp_path):
  state, workdir = unbroken
  with pytest.raises(_Killed):
    _run(_config(), tmp_path, die_after=50)  # in the third episode
  assert checkpoint.Checkpoints(tmp_path).latest_step() == 40
  resumed = jax.device_get(_run(_config(), tmp_path))
  jax.tree.map(np.testing.assert_array_equal, state, resumed)
  assert _timeless(workdir) == _timeless(tmp_path)


def test_what_a_run_leaves(unbroken):
  state, workdir = unbroken
  assert int(state.step) == 5  # one at first, then at steps 30, 40, 50, 60
  lines = logger.read_metrics(workdir)
  returns = [line['episode/return'] for line in lines if 'env_step' in line]
  assert len(returns) == 3 and min(returns) > 0
  evaluated = [line['step'] for line in lines if 'eval/return' in line]
  assert evaluated == [20, 40, 60]
  assert [line['env_step'] for line in lines if 'env_step' in line][-1] == 120
  frames = np.load(workdir / finetune.EPISODE_FILE)
  assert frames.shape == (21, 64, 64, 3) and frames.std() > 0


def test_a_record_of_the_run(unbroken, tmp_path, monkeypatch):
  _, workdir = unbroken
  monkeypatch.setattr(record_result, '_RESULTS', tmp_path)
  path = record_result.record(str(workdir), 'nano', random_episodes=2)
  rows = list(csv.DictReader(path.open()))
  assert [row['env_step'] for row in rows] == ['40', '80', '120']
  assert float(rows[-1]['return']) > 0
  about = json.loads(path.with_suffix('.json').read_text())
  assert about['random_policy']['mean'] > 0
  assert about['config']['task'] == 'walker_stand'
  assert about['run']['cpu_cores'] >= 1


def test_pre_trained_parts_are_loaded_and_others_are_not(
  unbroken, real_shards, tmp_path
):
  state, _ = unbroken
  config = finetune_dmcr.get_config('debug')
  config.data.shards_dir = str(real_shards)
  config.pretrain.num_steps = 1
  trained = jax.device_get(pretrain.pretrain(config, tmp_path))
  config = _config(init_from=str(tmp_path))
  system = finetune.build.system(config, 6, None)
  loaded = jax.device_get(finetune.init_state(config, system, 6))
  fresh = jax.device_get(finetune.init_state(_config(), system, 6))
  for name, params in loaded.params.items():
    same = (
      trained.params[name] if name in drp.PRETRAINED else fresh.params[name]
    )
    jax.tree.map(np.testing.assert_array_equal, params, same)
  jax.tree.map(
    np.testing.assert_array_equal, loaded.collections, trained.collections
  )
  assert loaded.collections['constants']['flow_scale'] != 1.0
  del state


def test_another_preset_does_not_load(real_shards, tmp_path):
  config = finetune_dmcr.get_config('debug')
  config.data.shards_dir = str(real_shards)
  config.pretrain.num_steps = 1
  pretrain.pretrain(config, tmp_path)
  config = _config(init_from=str(tmp_path))
  config.dae.width = 32
  system = finetune.build.system(config, 6, None)
  with pytest.raises(ValueError, match='config.init_from=.*does not fit'):
    finetune.init_state(config, system, 6)
