"""Frames are counted as decoding counts them."""

import os

import av
import odd_videos
import pytest

from drp_jax.preprocess import frame_count, video


@pytest.mark.parametrize('name', odd_videos.USABLE)
def test_as_many_as_are_decoded(tmp_path, name):
  path = tmp_path / name
  odd_videos.USABLE[name](path)
  assert frame_count.count_frames(path) == len(list(video.iterate(path)))


@pytest.mark.parametrize('name', ['plain.mp4', 'variable_rate.mp4'])
@pytest.mark.parametrize('fps', [3.0, 6.0])
def test_as_many_as_are_taken_at_a_rate(tmp_path, name, fps):
  path = tmp_path / name
  odd_videos.USABLE[name](path)
  found, _ = video.decode(path, 100, False, fps)
  assert frame_count.count_frames(path, fps) == len(found)


def test_frames_up_to_where_a_file_is_cut_off(tmp_path):
  path = tmp_path / 'a.mkv'
  odd_videos.ten_bit(path)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  assert 0 < frame_count.count_frames(path) < odd_videos.NUM_FRAMES


def test_names_of_any_bytes(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  odd_videos.plain(tmp_path / 'a.mp4')
  os.rename(b'a.mp4', b'http:\xff%d.mp4')
  name = os.fsdecode(b'http:\xff%d.mp4')
  assert frame_count.count_frames(name) == odd_videos.NUM_FRAMES


def test_what_is_no_video(tmp_path):
  odd_videos.text(tmp_path / 'a.mp4')
  with pytest.raises(av.error.FFmpegError):
    frame_count.count_frames(tmp_path / 'a.mp4')
