"""Two processes train like one, are killed, and go on."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from configs import pretrain as pretrain_config
from drp_jax.runs import checkpoint, logger
from drp_jax.systems import registry
from drp_jax.train import pretrain

_ROOT = pathlib.Path(__file__).parents[2]
_PROCESSES = 2
_SECONDS = 900  # a run may take, on busy cores


def _coordinator():
  with socket.socket() as free:
    free.bind(('localhost', 0))
    return f'localhost:{free.getsockname()[1]}'


def _processes(commands):
  """Starts them, each with two devices."""
  environment = {
    **os.environ,
    'XLA_FLAGS': os.environ['XLA_FLAGS']
    + ' --xla_force_host_platform_device_count=2',
  }
  return [
    subprocess.Popen(
      [sys.executable, *command],
      cwd=_ROOT,
      env=environment,
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    for command in commands
  ]


def _start(shards, workdir, **changes):
  """Both processes of a pre-training."""
  coordinator = _coordinator()
  return _processes(
    [
      *('-m', 'experiments.run_pretrain'),
      '--config=configs/pretrain.py:debug',
      f'--config.data.shards_dir={shards}',
      f'--workdir={workdir}',
      f'--coordinator={coordinator}',
      f'--num_processes={_PROCESSES}',
      f'--process_id={index}',
      *(f'--config.{key}={value}' for key, value in changes.items()),
    ]
    for index in range(_PROCESSES)
  )


def _finish(processes):
  outputs = [process.communicate(timeout=_SECONDS)[0] for process in processes]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output[-3000:]
  return outputs


def _timeless(workdir):
  """The metrics without what a clock says."""
  return [
    {k: v for k, v in line.items() if 'time' not in k}
    for line in logger.read_metrics(workdir)
  ]


def _saved_state(config, workdir):
  template = jax.eval_shape(
    lambda: registry.build(config, 1, None).pretraining.init(1.0)
  )
  state, meta = checkpoint.Checkpoints(workdir).restore(template)
  return jax.device_get(state), meta


def _config(shards, **changes):
  config = pretrain_config.get_config('debug')
  config.data.shards_dir = str(shards)
  config.update_from_flattened_dict(changes)
  return config


def test_processes_share_a_batch_and_checkpoints(tmp_path):
  """Two steps, and one more by processes that find what these saved."""
  places = np.arange(8)
  expected = [(places * (number + places)).mean() for number in range(3)]
  for first, last in ((0, 2), (2, 3)):
    coordinator = _coordinator()
    _finish(
      _processes(
        ['-m', 'tests.joining', coordinator, f'{i}', f'{tmp_path}', f'{last}']
        for i in range(_PROCESSES)
      )
    )
    for own in (tmp_path, tmp_path / 'process_1'):
      result = json.loads((own / 'result.json').read_text())
      assert result == {
        'means': expected[first:last],
        'sum': sum(expected[:last]),
      }
      assert (own / 'error.txt').read_text().startswith('their places: [0, 1]')
  assert not (tmp_path / 'process_1' / 'checkpoints').exists()


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(real_shards, tmp_path):
  """Their four clips are the same, on 2 + 2 devices as on 4."""
  changes = {'pretrain.num_steps': 2, 'pretrain.eval_every': 100}
  together, alone = tmp_path / 'together', tmp_path / 'alone'
  outputs = _finish(_start(real_shards, together, **changes))
  assert all('complete' in output for output in outputs)
  config = _config(real_shards, **changes)
  pretrain.pretrain(config, alone)

  run = json.loads((together / 'run.json').read_text())
  assert run['devices'] == 4
  mine, other = _timeless(together), _timeless(alone)
  assert [line['step'] for line in mine] == [1, 2, 2]
  for a, b in zip(mine, other, strict=True):
    assert a.keys() == b.keys()
    # Adam divides by small roots, so the second step differs by more.
    rtol = 1e-4 if a['step'] == 1 else 1e-2
    for name in a:
      np.testing.assert_allclose(a[name], b[name], rtol, 1e-4, err_msg=name)
  # What the second process saw is the same; only the first writes checkpoints.
  assert _timeless(together / 'process_1') == mine
  assert not (together / 'process_1' / 'checkpoints').exists()
  states = [_saved_state(config, folder) for folder in (together, alone)]
  assert states[0][1]['iterator'] == states[1][1]['iterator']
  assert states[0][0].step == 2


@pytest.fixture(scope='module')
def unbroken(real_shards, tmp_path_factory):
  """Settings and workdir of a run of two processes that nothing disturbed."""
  workdir = tmp_path_factory.mktemp('unbroken')
  changes = {
    'pretrain.num_steps': 40,
    'pretrain.eval_every': 100,
    'pretrain.checkpoint_every': 4,
  }
  _finish(_start(real_shards, workdir, **changes))
  return changes, workdir


def _wait_for_checkpoint(workdir, processes):
  """Returns as soon as there is one."""
  end = time.monotonic() + _SECONDS
  while time.monotonic() < end:
    assert all(process.poll() is None for process in processes)
    folder = workdir / 'checkpoints'
    if folder.exists() and any(x.name.isdigit() for x in folder.iterdir()):
      return
    time.sleep(0.02)
  raise AssertionError('no checkpoint')


@pytest.mark.slow
@pytest.mark.parametrize('sent', ['SIGKILL', 'SIGTERM'])
def test_two_processes_go_on_to_the_same_numbers(
  unbroken, real_shards, tmp_path, sent
):
  """After a kill of both; after a SIGTERM to one, which stops both."""
  changes, expected = unbroken
  processes = _start(real_shards, tmp_path, **changes)
  _wait_for_checkpoint(tmp_path, processes)
  for process in processes if sent == 'SIGKILL' else processes[1:]:
    process.send_signal(getattr(signal, sent))
  outputs = [process.communicate(timeout=_SECONDS)[0] for process in processes]
  code = -signal.SIGKILL if sent == 'SIGKILL' else 0
  assert [process.returncode for process in processes] == [code] * 2, outputs
  assert len(_timeless(tmp_path)) < 40  # it was not over

  _finish(_start(real_shards, tmp_path, **changes))
  assert _timeless(tmp_path) == _timeless(expected)
  config = _config(real_shards, **changes)
  states = [_saved_state(config, folder) for folder in (tmp_path, expected)]
  jax.tree.map(np.testing.assert_array_equal, states[0][0], states[1][0])


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(
  unbroken, real_shards, tmp_path
):
  """Two processes begin, one goes on: the same clips in the same order."""
  changes, expected = unbroken
  begun = {**changes, 'pretrain.num_steps': 4}
  _finish(_start(real_shards, tmp_path, **begun))
  config = _config(real_shards, **changes | {'pretrain.num_steps': 6})
  pretrain.pretrain(config, tmp_path)
  mine, other = _timeless(tmp_path), _timeless(expected)
  mine = [line for line in mine if 'loss/total' in line]
  for a, b in zip(mine, other, strict=False):
    assert a['step'] == b['step']
    np.testing.assert_allclose(a['loss/total'], b['loss/total'], rtol=1e-2)
  assert mine[-1]['step'] == 6
