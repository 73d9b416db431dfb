"""A function that harms its process harms nobody else."""

import os
import time

import crashing
import numpy as np
import pytest

from drp_jax.preprocess import isolated, video

_BYTES = 2**30


@pytest.fixture
def make():
  made = []

  def make(function, max_seconds=30, max_bytes=_BYTES):
    made.append(isolated.Isolated(function, max_seconds, max_bytes))
    return made[-1]

  yield make
  for one in made:
    one.close()


def test_answers_and_exceptions_come_back(make):
  double = make(crashing.double)
  assert [double(3), double('a')] == [6, 'aa']
  with pytest.raises(ValueError, match='^so$'):
    make(crashing.fail)('so')


def test_one_process_serves_until_it_is_harmed(make):
  act = make(crashing.act)
  one = act('', '')
  assert act('', '') == one != os.getpid()
  for how, name in (('segfault', 'SIGSEGV'), ('abort', 'SIGABRT')):
    with pytest.raises(isolated.Ended) as error:
      act(how, '')
    assert error.value.reason == 'crash' and name in error.value.detail
  other = act('', '')
  assert other not in (one, os.getpid())


def test_a_killed_process_is_replaced_once(make, tmp_path):
  act = make(crashing.act)
  act('killed_once', str(tmp_path / 'file'))
  with pytest.raises(isolated.Ended, match='SIGKILL'):
    act('killed', '')


def test_what_hangs_is_ended_and_what_is_too_large_is_refused(
  make, monkeypatch
):
  monkeypatch.setattr(isolated, '_SLOWER', 600.0)  # CPU time is what ends it
  act = make(crashing.act, max_seconds=1)
  with pytest.raises(isolated.Ended, match='more than 1 seconds of CPU') as e:
    act('hang', '')
  assert e.value.reason == 'too_slow'
  with pytest.raises(MemoryError):
    act('memory', '')
  act('', '')  # the same process, no harm done


def test_no_answer_by_the_clock(make, monkeypatch):
  monkeypatch.setattr(isolated, '_SLOWER', 0.1)
  sleep = make(time.sleep, max_seconds=1)
  with pytest.raises(isolated.Ended, match='no answer in 0 seconds'):
    sleep(3600)


def test_videos_are_decoded_there(make, tmp_path):
  frames = np.zeros((5, 64, 64, 3), np.uint8)
  video.write_video(tmp_path / 'a.mp4', frames, 25)
  decode = make(video.decode, max_bytes=2**31)
  np.testing.assert_array_equal(
    decode(tmp_path / 'a.mp4', 4, False),
    video.decode(tmp_path / 'a.mp4', 4, False),
  )
  (tmp_path / 'b.mp4').write_bytes(b'no video')
  with pytest.raises(video.UnusableVideo, match='unreadable'):
    decode(tmp_path / 'b.mp4', 4, False)
