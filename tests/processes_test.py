"""Processes that are started: signals, their own children, their end."""

import os
import signal
import subprocess
import sys

import living
import pytest

from drp_jax import processes

_FOREVER = "[sys.executable, '-c', 'import time; time.sleep(10_000)']"


@pytest.fixture
def start():
  """Starts processes that are killed after the test."""
  started = []

  def start(code, **settings):
    started.append(processes.start(code, **settings))
    return started[-1]

  yield start
  for process, pipe in started:
    processes.kill(process)
    pipe.close()


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_change_nothing_from_the_first_moment_on(start, number):
  process, pipe = start('pipe.send(pipe.recv() + 1)')
  process.send_signal(number)
  pipe.send(1)
  assert pipe.recv() == 2
  process, pipe = start('pipe.send("begun"); pipe.send(pipe.recv() + 1)')
  assert pipe.recv() == 'begun'
  os.killpg(process.pid, number)
  pipe.send(1)
  assert pipe.recv() == 2
  assert process.wait() == 0


def test_what_a_process_starts_hears_signals_as_usual(start):
  """A simulator's server that its environment ends by SIGTERM, say."""
  _, pipe = start(
    f'import subprocess, sys; child = subprocess.Popen({_FOREVER});'
    ' child.terminate(); pipe.send(child.wait())'
  )
  assert pipe.recv() == -signal.SIGTERM


def test_what_a_process_starts_ends_with_it(start):
  process, pipe = start(
    f'import subprocess, sys; child = subprocess.Popen({_FOREVER});'
    ' pipe.send(child.pid); pipe.recv()'
  )
  pid = pipe.recv()
  assert living.runs(pid)
  processes.kill(process)
  assert process.returncode == -signal.SIGKILL
  assert living.all_end([pid])


def test_the_end_of_a_process_is_waited_for_and_then_forced(start):
  process, pipe = start('pipe.recv()')
  pipe.send(None)
  processes.end(process, 100)
  assert process.returncode == 0
  process, _ = start('pipe.recv()')
  processes.end(process, 0.1)
  assert process.returncode == -signal.SIGKILL


def test_variables_and_modules_are_found_in_it(start, tmp_path, monkeypatch):
  (tmp_path / 'only_here.py').write_text('value = 3')
  monkeypatch.syspath_prepend(str(tmp_path))
  _, pipe = start(
    'import only_here, os; pipe.send((only_here.value, os.environ["OURS"]))',
    env={'OURS': 'so'},
  )
  assert pipe.recv() == (3, 'so')


def test_a_parent_that_died_before_is_noticed():
  code = 'from drp_jax import processes; processes.follow(1); print("on")'
  done = subprocess.run(
    [sys.executable, '-c', code],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert (done.returncode, done.stdout) == (1, ''), done.stderr


def test_the_parent_is_watched_where_the_kernel_does_not():
  """In a process that has another parent than it was told, in the end."""
  code = (
    'import sys, os; sys.platform = "other";'
    'from drp_jax import processes; processes._POLL = 0.1;'
    'processes.follow(os.getppid());'
    'print(os.getpid(), flush=True);'
    'import time; time.sleep(10_000)'
  )
  parent = subprocess.Popen(
    [
      *(sys.executable, '-c'),
      'import subprocess, sys;'
      'subprocess.run([sys.executable, "-c", sys.argv[1]])',
      code,
    ],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    stdout=subprocess.PIPE,
    text=True,
  )
  with parent:
    pid = int(parent.stdout.readline())
    parent.kill()
  assert living.all_end([pid])
