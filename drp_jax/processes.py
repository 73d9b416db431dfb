"""Starts processes that end with this one, and only then or on request.

A signal that ends a job (SIGTERM of a scheduler, SIGINT of the keyboard) often
reaches all its processes. Only the first process may react, so the others
ignore the signal. The first ends them; if it was killed, the kernel ends them.
"""

import contextlib
import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import connection

_PR_SET_PDEATHSIG = 1  # of prctl, in linux/prctl.h
_POLL = 1.0  # seconds between checks of the parent, if the kernel cannot
_PATIENCE = 5.0  # seconds for the kernel to remove a killed process
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def start(
  code: str, env: dict[str, str] | None = None
) -> tuple[subprocess.Popen, connection.Connection]:
  """Starts Python in a new process group, at the other end of a pipe.

  `multiprocessing.Process` is not used, because its children would import the
  main file again and daemons may not start it.

  Args:
    code: code to run, in which `pipe` is the child's end.
    env: environment variables in addition to those of this process.

  Returns:
    The process and this end of the pipe, which breaks when the process dies. On
    Linux the process is killed at the end of the *thread* that starts it.
  """
  ours, theirs = multiprocessing.Pipe()
  begin = f'pipe = processes.begin({os.getpid()}, {theirs.fileno()})'
  # Also blocked in the child, until `begin` has set its handlers.
  before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  try:
    process = subprocess.Popen(
      [
        *(sys.executable, '-c'),
        f'from drp_jax import processes; {begin}; {code}',
      ],
      pass_fds=[theirs.fileno()],
      # A group, so that `kill` reaches the child's children. Linux schedules a
      # session separately: on a busy machine a step would take ms longer.
      process_group=0,
      # The child finds modules in the same folders.
      env={
        **os.environ,
        'PYTHONPATH': os.pathsep.join(sys.path),
        **(env or {}),
      },
    )
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()
  return process, ours


def begin(parent: int, pipe: int) -> connection.Connection:
  """Sets up a process that `start` has started; opens its pipe."""
  follow(parent)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
  return connection.Connection(pipe)


def follow(parent: int) -> None:
  """Makes this process end with its parent, and ignore SIGINT and SIGTERM.

  Its children do not inherit this. Call it in the main thread.

  Args:
    parent: number of the process that started this one.
  """
  for number in _SIGNALS:
    signal.signal(number, lambda *_: None)
  if sys.platform == 'linux':
    # The kernel does not need the GIL, which C code may hold forever.
    prctl = ctypes.CDLL(None).prctl
    prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
  _end_without(parent)  # it may have died before that
  threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def end(process: subprocess.Popen, seconds: float) -> None:
  """Gives a process of `start` some seconds to end by itself, then kills it."""
  with contextlib.suppress(subprocess.TimeoutExpired):
    process.wait(max(seconds, 0))
  kill(process)


def kill(process: subprocess.Popen) -> None:
  """Kills a process of `start`, with its children."""
  with contextlib.suppress(OSError):  # no process is left
    os.killpg(process.pid, signal.SIGKILL)
  with contextlib.suppress(subprocess.TimeoutExpired):  # a device holds it
    process.wait(_PATIENCE)


def _end_without(parent: int) -> None:
  if os.getppid() != parent:
    os._exit(1)


def _watch(parent: int) -> None:
  while True:
    time.sleep(_POLL)
    _end_without(parent)
