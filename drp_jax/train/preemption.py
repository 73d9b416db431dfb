"""SIGTERM: what a scheduler sends before it takes the machine away."""

import signal
import threading
from typing import Self

import jax
from jax.experimental import multihost_utils


class Preemption:
  """Notes SIGTERM, so that a loop saves where it may and ends.

  A context manager; on leaving, the handler from before is back. A second
  SIGTERM ends the process at once.

  Nothing is noted outside the main thread, where Python allows no handler.
  Where several processes train together, JAX's own handler notes it and lets
  all of them stop at the same step.

  Attributes:
    requested: whether SIGTERM has come.
  """

  def __init__(self):
    self.requested = False
    self._before = None

  def __enter__(self) -> Self:
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and jax.process_count() == 1:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def stops_after(self, step: int) -> bool:
    """Whether to save and end now; call after every step.

    Args:
      step: just taken; in several processes the same, and so is the answer.
    """
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self.requested

  def __exit__(self, *_) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _note(self, *_) -> None:
    self.requested = True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
