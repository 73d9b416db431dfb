"""SIGTERM is noted once, and only while somebody asks."""

import os
import signal
import threading

from drp_jax.train import preemption


def test_it_is_noted_and_the_handler_before_comes_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Preemption() as sigterm:
    assert not sigterm.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert sigterm.requested
    # The next one would end this process.
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
  assert signal.getsignal(signal.SIGTERM) == before


def test_other_threads_cannot_note_it():
  seen = []

  def ask():
    with preemption.Preemption() as sigterm:
      seen.append((sigterm.requested, signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=ask)
  thread.start()
  thread.join()
  assert seen == [(False, signal.getsignal(signal.SIGTERM))]
