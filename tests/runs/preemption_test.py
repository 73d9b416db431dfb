"""SIGTERM is noted once, and only while somebody asks."""

import os
import signal
import threading

import pytest

from drp_jax.runs import preemption


def test_it_is_noted_and_the_handler_before_comes_back():
  before = signal.getsignal(signal.SIGTERM)
  with preemption.Preemption() as sigterm:
    assert not sigterm.requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert sigterm.requested
    # `timeout` sends it to the process and to its group.
    os.kill(os.getpid(), signal.SIGTERM)
    assert sigterm.requested
  assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize('before', [True, False])
def test_it_ends_at_once_where_there_is_nothing_to_save(before):
  """Once: what is closed on the way is not disturbed."""
  closed = []

  def tell():
    os.kill(os.getpid(), signal.SIGTERM)

  with preemption.Preemption() as sigterm:
    if before:
      tell()
    with pytest.raises(SystemExit) as end, sigterm.nothing_to_save():
      try:
        tell()
      finally:
        tell()
        closed.append(True)
    assert end.value.code == 0 and sigterm.requested
    assert closed == ([] if before else [True])
    tell()  # outside it is only noted


def test_other_threads_cannot_note_it():
  seen = []

  def ask():
    with preemption.Preemption() as sigterm:
      seen.append((sigterm.requested, signal.getsignal(signal.SIGTERM)))

  thread = threading.Thread(target=ask)
  thread.start()
  thread.join()
  assert seen == [(False, signal.getsignal(signal.SIGTERM))]
