"""Calls a function in a process of its own, where it can do no harm.

Decoders are C code that reads files from anywhere. One that crashes, hangs or
asks for all memory ends its own process; the next file gets a new one. So does
the answer of a single file depend on no other.
"""

import multiprocessing
import os
import pathlib
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

# Not `multiprocessing.Process`, which workers of a pool may not start.
_COMMAND = 'from drp_jax.preprocess import isolated; isolated.main()'
_SLOWER = 10.0  # than its limit of CPU time may a call be by the clock  [ours]


class Ended(Exception):
  """The process ended before it answered.

  Attributes:
    reason: 'too_slow' or 'crash'.
    detail: what happened.
  """

  def __init__(self, reason: str, detail: str):
    super().__init__(reason, detail)
    self.reason, self.detail = reason, detail


class Isolated:
  """A function that runs in a process of its own, one call at a time."""

  def __init__(
    self, function: Callable[..., Any], max_seconds: int, max_bytes: int
  ):
    """Starts nothing yet.

    Args:
      function: of a module; its arguments, results and exceptions travel.
      max_seconds: of CPU time for one call, and ten times as long by the clock.
      max_bytes: of memory that a call may use; more is a MemoryError, or what
        the function's libraries make of it.
    """
    self._task = function, max_seconds, max_bytes
    self._process = None

  def __call__(self, *args: Any) -> Any:
    """Returns or raises what the function does.

    A process that is killed (SIGKILL: by an operator, or for want of memory on
    the machine) is replaced once for each call.

    Raises:
      Ended: if it ended otherwise, or took too long.
    """
    try:
      return self._call(args)
    except Ended as error:
      if error.detail != _describe(-signal.SIGKILL):
        raise
    return self._call(args)

  def close(self) -> None:
    """Ends the process."""
    if self._process is not None:
      self._pipe.close()
      self._process.kill()
      self._process.wait()
      self._process = None

  def _call(self, args: Any) -> Any:
    if self._process is None:
      self._start()
    max_seconds = self._task[1]
    try:
      self._pipe.send(args)
      if not self._pipe.poll(_SLOWER * max_seconds):
        self.close()
        raise Ended(
          'too_slow', f'no answer in {_SLOWER * max_seconds:.0f} seconds'
        )
      answer, error = self._pipe.recv()
    except (EOFError, OSError):
      code = self._process.wait()
      self.close()
      if code == -signal.SIGXCPU:
        detail = f'more than {max_seconds} seconds of CPU time'
        raise Ended('too_slow', detail) from None
      raise Ended('crash', _describe(code)) from None
    if error is not None:
      raise error
    return answer

  def _start(self) -> None:
    self._pipe, theirs = multiprocessing.Pipe()
    self._process = subprocess.Popen(
      [sys.executable, '-c', _COMMAND, str(theirs.fileno())],
      pass_fds=[theirs.fileno()],
      start_new_session=True,  # what ends a job is no fault of the file
      # There is a process for each core already.
      env={**os.environ, 'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'},
    )
    theirs.close()  # so that the pipe breaks when the process dies
    self._pipe.send(sys.path)
    self._pipe.send(self._task)


def main() -> None:
  """Serves the pipe whose number is the last argument of the command line."""
  for number in (signal.SIGINT, signal.SIGTERM):  # the other end decides
    signal.signal(number, signal.SIG_IGN)
  pipe = connection.Connection(int(sys.argv[-1]))
  sys.path[:] = pipe.recv()
  function, max_seconds, max_bytes = pipe.recv()
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
  limit = pages * resource.getpagesize() + max_bytes
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
  while True:
    try:
      args = pipe.recv()
    except (EOFError, OSError):
      return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime) + max_seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, hard))
    try:
      answer = function(*args), None
    except Exception as error:
      answer = None, error
    pipe.send(answer)


def _describe(code: int) -> str:
  """What an exit code says."""
  if code < 0:
    return f'the process of the decoder died of {signal.Signals(-code).name}'
  return f'the process of the decoder ended with code {code}'
