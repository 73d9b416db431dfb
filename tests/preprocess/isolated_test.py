"""A function that harms its process harms nobody else."""

import os
import time

import crashing
import cv2
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
  one = act('', '')
  with pytest.raises(isolated.Ended, match='more than 1024 MiB') as e:
    act('memory', '')
  assert e.value.reason == 'too_large'
  assert act('', '') == one  # the same process, no harm done


def test_an_answer_that_is_too_large_is_refused(make):
  act = make(crashing.act)
  with pytest.raises(isolated.Ended, match='more than 1024 MiB'):
    act('large_answer', '')
  act('', '')


def test_a_call_has_all_its_memory_whatever_was_left_by_the_last(make):
  act = make(crashing.act)
  for _ in range(3):
    act('leave', '')


def test_no_answer_by_the_clock(make, monkeypatch):
  monkeypatch.setattr(isolated, '_SLOWER', 0.1)
  sleep = make(time.sleep, max_seconds=1)
  with pytest.raises(isolated.Ended, match='no answer in 0 seconds'):
    sleep(3600)


def test_videos_are_decoded_there(make, tmp_path):
  frames = np.zeros((5, 64, 64, 3), np.uint8)
  video.write_video(tmp_path / 'a.mp4', frames, 25)
  decode = make(video.decode, max_bytes=2**31)
  for there, here in zip(
    decode(tmp_path / 'a.mp4', 4, False),
    video.decode(tmp_path / 'a.mp4', 4, False),
    strict=True,
  ):
    np.testing.assert_array_equal(there, here)
  (tmp_path / 'b.mp4').write_bytes(b'no video')
  with pytest.raises(video.UnusableVideo, match='unreadable'):
    decode(tmp_path / 'b.mp4', 4, False)


def test_a_long_video_takes_no_more_memory_than_its_frames(make, tmp_path):
  """A list of frames would hold on to the memory of all the large ones."""
  colors = np.random.default_rng(0).integers(0, 255, (10, 3), np.uint8)
  frames = np.empty((600, 480, 640, 3), np.uint8)
  frames[:] = colors.repeat(60, 0)[:, None, None]
  video.write_video(tmp_path / 'a.mp4', frames, 25)
  found, _ = make(video.decode, max_bytes=48 * 2**20)(
    tmp_path / 'a.mp4', 3000, False
  )
  assert found.shape == (600, 64, 64, 3)
  assert np.abs(found[::60, 0, 0].astype(int) - colors).max() < 8


@pytest.mark.parametrize(
  ('name', 'least'),
  [('a.mp4', 36), ('a.webm', 24), ('a.png', 24), ('a.jpg', 24)],
)
def test_what_takes_too_much_memory_is_too_large(make, tmp_path, name, least):
  """Whichever library runs out of it, in whatever it does."""
  path = tmp_path / name
  frames = np.zeros((5, 2048, 2048, 3), np.uint8)
  frames += np.arange(5, dtype=np.uint8)[:, None, None, None]
  if path.suffix in ('.mp4', '.webm'):
    video.write_video(path, frames, 25)
  else:
    cv2.imwrite(str(path), frames.repeat(3, 1).repeat(3, 2)[0])
    path = [path]
  reasons = []
  for megabytes in (least, least + 8, 256):
    try:
      make(video.decode, max_bytes=megabytes * 2**20)(path, 5, False)
    except isolated.Ended as error:
      reasons.append(error.reason)
    else:
      reasons.append('')
  assert reasons[0] == 'too_large' and not reasons[-1]
  assert set(reasons) == {'too_large', ''}
