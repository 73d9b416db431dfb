"""Calls a function in a separate process, where it cannot do harm.

Decoders are C code that reads untrusted files. A decoder that crashes, hangs or
takes too much memory ends only its process, and the next file gets a new one.
The result for a file therefore does not depend on other files.
"""

import pathlib
import pickle
import resource
import signal
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from drp_jax import processes

_SLOWER = 10.0  # wall-clock limit, in multiples of the CPU time limit   [ours]


class Ended(Exception):
  """The call reached a limit, or its process ended before it answered.

  Attributes:
    reason: 'too_slow', 'too_large' or 'crash'.
    detail: what happened.
  """

  def __init__(self, reason: str, detail: str):
    super().__init__(reason, detail)
    self.reason, self.detail = reason, detail


class Isolated:
  """A function that runs in a separate process, one call at a time."""

  def __init__(
    self, function: Callable[..., Any], max_seconds: int, max_bytes: int
  ):
    """Starts nothing yet.

    Args:
      function: a function of a module; its arguments, results and exceptions
        are pickled.
      max_seconds: limit of CPU time for one call; the wall-clock limit is ten
        times as long.
      max_bytes: memory that a call may use, in addition to what the process
        holds from earlier calls. More is a MemoryError in the function, or
        another error of its libraries.
    """
    self._task = function, max_seconds, max_bytes
    self._process = None

  def __call__(self, *args: Any) -> Any:
    """Calls the function; returns its result or raises its exception.

    A process that is killed (SIGKILL: by an operator, or because the machine
    ran out of memory) is replaced once for each call.

    Raises:
      Ended: if the process ended otherwise, or the call took too long or, with
        a MemoryError, too much memory.
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
      processes.kill(self._process)
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
      assert self._process is not None
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
    self._process, self._pipe = processes.start(
      'from drp_jax.preprocess import isolated; isolated.main(pipe)',
      # There is a process for each core already.
      {'OMP_NUM_THREADS': '1', 'OPENBLAS_NUM_THREADS': '1'},
    )
    self._pipe.send(self._task)


def main(pipe: connection.Connection) -> None:
  """Serves the other end of `pipe`."""
  try:
    function, max_seconds, max_bytes = pipe.recv()
  except EOFError:
    return
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  while True:
    try:
      args = pipe.recv()
    except (EOFError, OSError):
      return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(usage.ru_utime + usage.ru_stime) + max_seconds + 1
    _limit(resource.RLIMIT_CPU, seconds)
    # Set again for every call, so memory left by one does not reduce the
    # next's.
    pages = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
    _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + max_bytes)
    try:
      # Pickled here, within the limit, because the bytes take memory as well.
      message = pickle.dumps((function(*args), None))
    except MemoryError:
      detail = f'more than {max_bytes / 2**20:.0f} MiB of memory'
      message = pickle.dumps((None, Ended('too_large', detail)))
    except Exception as error:
      message = pickle.dumps((None, error))
    pipe.send_bytes(message)


def _limit(what: int, value: int) -> None:
  """Sets a limit of this process that can be raised again."""
  hard = resource.getrlimit(what)[1]
  if hard != resource.RLIM_INFINITY:
    value = min(value, hard)
  resource.setrlimit(what, (value, hard))


def _describe(code: int) -> str:
  """Describes an exit code."""
  if code < 0:
    return f'the process of the decoder died of {signal.Signals(-code).name}'
  return f'the process of the decoder ended with code {code}'
