"""Kill anywhere, run the same command again: nothing is lost, nothing twice.

Whole commands, in processes of their own, are killed at random changes of their
files: while they start, train, log, save, write replay or shards, and resume.
What they leave in the end equals what an unbroken run leaves, to the bit. The
`slow` tests kill twenty times each (`make faults`).
"""

import pathlib
import shutil
import signal
import time

import jax
import living
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tensorboard.backend.event_processing import event_accumulator

from drp_jax.runs import episode_table, lock, logger

# Commands that compile are slow.
_ALL_SLOW = [pytest.param(n, marks=pytest.mark.slow) for n in (1, 20)]
# Of files that say which process wrote them, or are made anew by each.
_OWN = ('run.json', lock.LOCK_FILE)


def _timeless(folder):
  return [
    {k: v for k, v in line.items() if 'time' not in k}
    for line in logger.read_metrics(folder)
  ]


def _scalars(folder):
  """Tag -> [(step, value)] as TensorBoard shows them."""
  events = event_accumulator.EventAccumulator(
    str(folder), size_guidance={event_accumulator.SCALARS: 0}
  ).Reload()
  return {
    tag: [(e.step, e.value) for e in events.Scalars(tag)]
    for tag in events.Tags()['scalars']
    if 'time' not in tag
  }


def _checkpoint(folder):
  """Name -> bits of the newest state, and the JSON beside it."""
  steps = ocp.utils.checkpoint_steps(folder / 'checkpoints')
  path = folder / 'checkpoints' / str(max(steps))
  state = ocp.PyTreeCheckpointHandler().restore(path / 'state')
  arrays = {
    jax.tree_util.keystr(key): (x.dtype, x.shape, np.asarray(x).tobytes())
    for key, x in jax.tree.leaves_with_path(state)
  }
  meta = ocp.JsonCheckpointHandler().restore(path / 'meta')
  meta['lines'] = meta['lines'][0]  # their bytes tell times
  del meta['crc32_of_json']
  return max(steps), arrays, meta


def _files(folder, pattern='*'):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in sorted(pathlib.Path(folder).rglob(pattern))
    if path.is_file() and path.name not in _OWN
  }


def _assert_same_run(one, other):
  assert _timeless(one) == _timeless(other)
  assert _scalars(one) == _scalars(other)
  for mine, theirs in zip(_checkpoint(one), _checkpoint(other), strict=True):
    assert mine == theirs
  assert _files(one / 'replay') == _files(other / 'replay')


@pytest.fixture(scope='module')
def pretraining(make_command, real_shards, tmp_path_factory):
  """The command, and what it leaves when nothing happens."""
  command = make_command(
    'run_pretrain',
    '--config=configs/pretrain.py:debug',
    f'--config.data.shards_dir={real_shards}',
    '--config.pretrain.num_steps=6',
    '--workdir={}',
  )
  folder = tmp_path_factory.mktemp('pretraining') / 'unbroken'
  command.finish(folder)
  return command, folder


@pytest.fixture(scope='module')
def finetuning(make_command, tmp_path_factory):
  command = make_command(
    'run_dmcr',
    '--config=configs/finetune_dmcr.py:debug',
    '--config.env.suite=dmc',
    '--config.task=walker_stand',
    '--config.finetune.num_steps=100',
    '--workdir={}',
  )
  folder = tmp_path_factory.mktemp('finetuning') / 'unbroken'
  command.finish(folder)
  return command, folder


@pytest.fixture(scope='module')
def make_preprocessing(make_command, small_videos):
  def make(num_workers):
    return make_command(
      'run_preprocess',
      '--config=configs/preprocess.py',
      f'--config.path={small_videos}',
      f'--config.data.num_workers={num_workers}',
      '--config.data.clip_length=15',
      '--config.data.clip_stride=15',
      '--config.data.shards_dir={}',
    )

  return make


@pytest.fixture(scope='module')
def preprocessing(make_preprocessing, tmp_path_factory):
  command = make_preprocessing(num_workers=1)
  folder = tmp_path_factory.mktemp('preprocessing') / 'unbroken'
  command.finish(folder)
  return command, folder


@pytest.mark.parametrize('kills', _ALL_SLOW)
def test_pre_training(pretraining, tmp_path, kills):
  command, unbroken = pretraining
  changes = command.changes(unbroken)
  folder = tmp_path / 'killed'
  assert command.kill_and_finish(folder, changes, kills, seed=1)
  _assert_same_run(folder, unbroken)


@pytest.mark.parametrize('kills', _ALL_SLOW)
def test_fine_tuning(finetuning, tmp_path, kills):
  command, unbroken = finetuning
  changes = command.changes(unbroken)
  folder = tmp_path / 'killed'
  assert command.kill_and_finish(folder, changes, kills, seed=2)
  _assert_same_run(folder, unbroken)
  assert episode_table.read(folder) == episode_table.read(unbroken)


@pytest.mark.parametrize('kills', [1, pytest.param(20, marks=pytest.mark.slow)])
def test_preprocessing(preprocessing, tmp_path, kills):
  command, unbroken = preprocessing
  changes = command.changes(unbroken)
  folder = tmp_path / 'killed'
  assert command.kill_and_finish(folder, changes, kills, seed=3)
  assert _files(folder) == _files(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize('at', [0.2, 0.4, 0.6])  # later, it is at its end
def test_fine_tuning_is_told_to_end(finetuning, tmp_path, at):
  """SIGTERM to all of it: it saves, exits with 0, and goes on from there."""
  command, unbroken = finetuning
  change = int(at * command.changes(unbroken))
  folder = tmp_path / 'told'
  code, said = command.run(folder, change, 0.05, signal.SIGTERM)
  assert code == 0 and 'SIGTERM: saved at step' in said, said[-3000:]
  command.finish(folder)
  _assert_same_run(folder, unbroken)
  assert episode_table.read(folder) == episode_table.read(unbroken)


@pytest.mark.slow
def test_pre_training_is_told_to_end(pretraining, tmp_path):
  command, unbroken = pretraining
  folder = tmp_path / 'told'
  change = int(0.5 * command.changes(unbroken))
  code, said = command.run(folder, change, 0.01, signal.SIGTERM)
  assert code == 0 and 'SIGTERM: saved at step' in said, said[-3000:]
  # Nothing knows its old place: the folder can be moved.
  moved = tmp_path / 'moved'
  shutil.move(folder, moved)
  command.finish(moved)
  _assert_same_run(moved, unbroken)


@pytest.mark.slow
def test_the_clock_is_put_back_while_pre_training_rests(pretraining, tmp_path):
  command, unbroken = pretraining
  folder = tmp_path / 'told'
  change = int(0.5 * command.changes(unbroken))
  code, said = command.run(
    folder, change, 0.01, signal.SIGTERM, clock=30 * 86_400
  )
  assert code == 0 and 'SIGTERM: saved at step' in said, said[-3000:]
  command.finish(folder)  # a month earlier
  times = [line['wall_time'] for line in logger.read_metrics(folder)]
  assert min(times) < max(times) - 86_400
  _assert_same_run(folder, unbroken)


def test_preprocessing_by_several_processes_is_told_to_end(
  make_preprocessing, preprocessing, tmp_path
):
  """All of them are, while they write; none is left."""
  _, unbroken = preprocessing
  command, folder = make_preprocessing(num_workers=2), tmp_path / 'told'
  with command.start(folder) as process:
    while not list(folder.rglob('*record*')):
      assert process.poll() is None, process.stderr.read()[-3000:]
      time.sleep(0.01)
    pids = living.descendants(process.pid)
    living.tell_all(process.pid, signal.SIGTERM)
    said = process.stderr.read()
  assert process.returncode == 0, said[-3000:]
  assert 'SIGTERM: complete shards are kept' in said, said[-3000:]
  assert len(pids) >= 2 and living.all_end(pids)
  command.finish(folder)
  assert _files(folder) == _files(unbroken)


def test_preprocessing_is_told_to_end(preprocessing, tmp_path):
  command, unbroken = preprocessing
  folder = tmp_path / 'told'
  change = int(0.5 * command.changes(unbroken))
  code, said = command.run(folder, change, 0.01, signal.SIGTERM)
  assert code == 0 and 'SIGTERM: complete shards are kept' in said, said[-3000:]
  command.finish(folder)
  assert _files(folder) == _files(unbroken)
