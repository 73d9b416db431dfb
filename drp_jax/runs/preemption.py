"""SIGTERM: what a scheduler sends before it takes the machine away."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import Self

import jax
from jax.experimental import multihost_utils

logger = logging.getLogger(__name__)


class Preemption:
  """Notes SIGTERM, so that a loop saves where it may and ends.

  A context manager; on leaving, the handler from before is back. Further
  SIGTERMs change nothing: `timeout`, for one, sends it to the process and to
  its group, which is twice. SIGKILL ends the process at once.

  Nothing is noted outside the main thread, where Python allows no handler.
  Where several processes train together, JAX's own handler notes it and lets
  all of them stop at the same step.

  Attributes:
    requested: whether SIGTERM has come.
  """

  def __init__(self):
    self.requested = False
    self._before = None
    self._nothing_to_save = False

  def __enter__(self) -> Self:
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and jax.process_count() == 1:
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  @contextlib.contextmanager
  def nothing_to_save(self) -> Iterator[None]:
    """Lets SIGTERM end what is done inside, with `SystemExit(0)`, at once."""
    self._nothing_to_save = True
    try:
      self._leave()
      yield
    finally:
      self._nothing_to_save = False

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
    self._leave()

  def _leave(self) -> None:
    if self.requested and self._nothing_to_save:
      self._nothing_to_save = False  # once, not while what is left is closed
      logger.warning('SIGTERM: nothing to save, the same command goes on.')
      raise SystemExit(0)
