"""Processes that die, fail, or lose their parent. Beam: run_preprocess_test."""

import functools
import os
import pathlib
import signal
import subprocess
import sys
import time

import living
import marching
import pytest

from drp_jax.data import engines

_PATIENCE = 300.0  # seconds, however busy the machine is
_FOR_EVER = 24 * 3600.0  # seconds: nobody waits for a worker that sleeps


def _note(folder, worker, num_workers):
  """Leaves a file with the number of this process."""
  path = pathlib.Path(folder, f'{worker}-of-{num_workers}')
  with open(path, 'a') as file:
    file.write(f'{os.getpid()}\n')


def _die_once(folder, worker, num_workers):
  """Worker 0 is killed at its first call."""
  first = worker == 0 and not list(pathlib.Path(folder).glob('0-of-*'))
  _note(folder, worker, num_workers)
  if first:
    os.kill(os.getpid(), signal.SIGKILL)


def _die(folder, worker, num_workers):
  _note(folder, worker, num_workers)
  os.kill(os.getpid(), signal.SIGKILL)


def _fail(folder, worker, num_workers):
  _note(folder, worker, num_workers)
  if worker == 1:
    raise ValueError(f'config.path={folder!r} is wrong.')
  time.sleep(_FOR_EVER)


def _sleep(folder, worker, num_workers):
  _note(folder, worker, num_workers)
  time.sleep(_FOR_EVER)


def _hang(folder, how, worker, num_workers):
  _note(folder, worker, num_workers)
  marching.hang(how)


def _note_signals(folder, worker, num_workers):
  """Gets what ends a job."""
  for number in signal.SIGTERM, signal.SIGINT:
    os.kill(os.getpid(), number)
  _note(folder, worker, num_workers)


def _pids(folder):
  return {p.name: p.read_text().split() for p in pathlib.Path(folder).iterdir()}


def test_a_killed_worker_is_started_again(tmp_path):
  engines.run_processes(functools.partial(_die_once, str(tmp_path)), 2)
  pids = _pids(tmp_path)
  assert pids.keys() == {'0-of-2', '1-of-2'}
  assert len(pids['0-of-2']) == 2 and len(pids['1-of-2']) == 1
  assert len({str(os.getpid()), *sum(pids.values(), [])}) == 4


def test_a_worker_that_dies_again_and_again_ends_the_build(tmp_path):
  with pytest.raises(
    RuntimeError, match='Worker 0 died 3 times.*-9.*run the s'
  ):
    engines.run_processes(functools.partial(_die, str(tmp_path)), 1)
  assert len(_pids(tmp_path)['0-of-1']) == 3


def test_what_a_worker_raises_comes_out_and_the_others_stop(tmp_path):
  with pytest.raises(ValueError, match='config.path=.* is wrong'):
    engines.run_processes(functools.partial(_fail, str(tmp_path)), 2)
  for (pid,) in _pids(tmp_path).values():
    with pytest.raises(ProcessLookupError):
      os.kill(int(pid), 0)


_PARENT = """
import functools, sys
sys.path.insert(0, sys.argv[1])
import engines_test, marching
from drp_jax.data import engines
if __name__ == '__main__':
  work = functools.partial(engines_test._hang, sys.argv[2], sys.argv[3])
  engines.run_processes(work, 1)
"""


def test_workers_leave_signals_to_their_parent(tmp_path):
  engines.run_processes(functools.partial(_note_signals, str(tmp_path)), 1)
  assert len(_pids(tmp_path)['0-of-1']) == 1


@pytest.mark.parametrize('how', ['sleep', 'lock'])
def test_workers_end_with_a_parent_that_is_killed(tmp_path, how):
  script, folder = tmp_path / 'parent.py', tmp_path / 'pids'
  script.write_text(_PARENT)
  folder.mkdir()
  here = pathlib.Path(__file__).parent
  root = here.parents[1]
  parent = subprocess.Popen(
    [sys.executable, script, str(here), str(folder), how],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(root), *sys.path])},
  )
  while not (pids := _pids(folder)) or not pids['0-of-1']:
    assert parent.poll() is None
    time.sleep(0.05)
  parent.kill()
  parent.wait()
  (pid,) = pids['0-of-1']
  assert living.all_end([int(pid)])
