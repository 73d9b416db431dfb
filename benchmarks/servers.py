"""Server processes that answer questions, so that several can take turns.

Each has a device's memory to itself and fails alone. Questions and answers are
lines of JSON; other output of a process is ignored.
"""

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_MARK = 'answer '
_SHOWN = 600  # characters of a failed process's last output

Answer = Callable[[Any], Any]


class Failure(RuntimeError):
  """A process failed, or ended before it answered."""


class Server:
  """A process that gives a first answer by itself, then answers questions."""

  def __init__(self, command: Sequence[str], env: Mapping[str, str]):
    """Starts the process.

    Args:
      command: command whose main function calls `serve`.
      env: environment variables of the process.
    """
    self._errors = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
    self._process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      text=True,
      env=env,
    )
    self._lines = queue.Queue()
    threading.Thread(target=self._read, daemon=True).start()

  def _read(self) -> None:
    for line in self._process.stdout:
      if line.startswith(_MARK):
        self._lines.put(line)
    self._lines.put(None)

  def ask(self, question: Any, deadline: float) -> Any:
    """Sends a question and waits for its answer, like `answer`."""
    # If it ended, `answer` raises the reason.
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.write(json.dumps(question) + '\n')
      self._process.stdin.flush()
    return self.answer(deadline)

  def answer(self, deadline: float) -> Any:
    """Waits for the next answer.

    Args:
      deadline: time by `time.monotonic`.

    Raises:
      TimeoutError: if there is no answer by then.
      Failure: if the process failed; the message says why.
    """
    try:
      line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
      raise TimeoutError from None
    if line is None:
      code = self._process.wait()
      raise Failure(f'ended with code {code}: {self._last_words()}')
    found = json.loads(line.removeprefix(_MARK))
    if 'failure' in found:
      raise Failure(found['failure'])
    return found['value']

  def _last_words(self) -> str:
    self._errors.seek(0)
    return self._errors.read().decode(errors='replace').strip()[-_SHOWN:]

  def close(self) -> None:
    """Kills the process."""
    self._process.kill()
    self._process.wait()
    self._errors.close()


def serve(start: Callable[[], tuple[Any, Answer]]) -> None:
  """Answers until there are no more questions, or something fails.

  Args:
    start: returns the first answer, and a function that answers questions.
  """
  try:
    value, answer = start()
    _say({'value': value})
    for line in sys.stdin:
      _say({'value': answer(json.loads(line))})
  except Exception as error:
    traceback.print_exc()
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    _say({'failure': text[:_SHOWN]})


def _say(value: Any) -> None:
  print(_MARK + json.dumps(value), flush=True)
