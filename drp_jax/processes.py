"""Processes that this one starts: they end with it, and when it says so.

A signal that ends a job (SIGTERM of a scheduler, SIGINT of the keyboard) often
reaches every process of it. Only the first may decide what to do, so the others
take no notice; it ends them, and the kernel does if it was killed itself.
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
_POLL = 1.0  # seconds between looks at the parent, where the kernel does not
_PATIENCE = 5.0  # seconds for the kernel to clear away a killed process
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def start(
  code: str, env: dict[str, str] | None = None
) -> tuple[subprocess.Popen, connection.Connection]:
  """Starts Python in a group of its own, at the other end of a pipe.

  Not `multiprocessing.Process`, whose children would import the main file
  again, and which daemons may not start.

  Args:
    code: what to run; in it, `pipe` is the child's end.
    env: variables beside those of this process.

  Returns:
    The process and this end of the pipe, which breaks when the process dies. On
    Linux the process is killed at the end of the *thread* that starts it.
  """
  ours, theirs = multiprocessing.Pipe()
  begin = f'pipe = processes.begin({os.getpid()}, {theirs.fileno()})'
  # Held back in the child too, until `begin` has seen to them.
  before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
  try:
    process = subprocess.Popen(
      [
        *(sys.executable, '-c'),
        f'from drp_jax import processes; {begin}; {code}',
      ],
      pass_fds=[theirs.fileno()],
      # So that `kill` reaches what it starts itself. Not a session, which Linux
      # schedules apart: on a busy machine a step then takes ms longer.
      process_group=0,
      # Where we find modules, the child finds them too.
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
  """Makes this process one that was started by `start`; opens its pipe."""
  follow(parent)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
  return connection.Connection(pipe)


def follow(parent: int) -> None:
  """Lets this process end with its parent only, whatever it is doing then.

  SIGINT and SIGTERM have no effect any more. What this process starts does not
  inherit that. Call it in the main thread.

  Args:
    parent: number of the process that started this one.
  """
  for number in _SIGNALS:
    signal.signal(number, lambda *_: None)
  if sys.platform == 'linux':
    # The kernel needs no turn of Python's, which C code may hold for ever.
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
  """Ends a process of `start` at once, and with it what it has started."""
  with contextlib.suppress(OSError):  # there is none left
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
