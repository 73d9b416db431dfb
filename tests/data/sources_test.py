"""Digests of videos, whatever they lie in."""

import hashlib
import os

import made_files
import numpy as np
import pytest

from drp_jax.data import folders, schema, sources


def test_a_pipe_in_the_place_of_a_video_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.mp4')
  with pytest.raises(FileNotFoundError, match='no such file'):
    sources.file_sha256(tmp_path / 'pipe.mp4')


def test_the_digest_of_a_frame_folder_is_of_its_frames_in_order(tmp_path):
  made_files.touch(tmp_path, 'a/1.png', 'a/2.png', 'b/1.png', 'b/2.png')
  (tmp_path / 'b/1.png').write_bytes(b'a/1.png')
  (tmp_path / 'b/2.png').write_bytes(b'a/2.png')
  one, other = folders.frame_folders(tmp_path).videos
  assert one.sha256 == other.sha256
  (tmp_path / 'b/1.png').rename(tmp_path / 'b/3.png')
  assert folders.frame_folders(tmp_path).videos[1].sha256 != one.sha256


def test_the_digest_of_a_part_of_a_file_is_its_own(tmp_path):
  made_files.touch(tmp_path, 'a.mp4', 'b.mp4')

  def digest(name, start, end):
    span = schema.Span(start, end, 5)
    return sources.VideoId(name, tmp_path / name, span=span).sha256

  known = digest('a.mp4', 0.0, 1.0)
  assert known == digest('a.mp4', 0.0, 1.0)
  assert len({known, digest('a.mp4', 1.0, 2.0), digest('b.mp4', 0.0, 1.0)}) == 3
  (tmp_path / 'a.mp4').write_bytes(b'other content')
  assert digest('a.mp4', 0.0, 1.0) != known
  (tmp_path / 'a.mp4').unlink()
  with pytest.raises(FileNotFoundError):
    digest('a.mp4', 0.0, 1.0)


class _Frames(list):
  label = 4


def test_the_digest_of_a_record_is_of_its_frames():
  frames = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
  record = sources.Record('a', _Frames(frames[:, :, ::-1]))
  expected = hashlib.sha256(frames[:, :, ::-1].tobytes()).hexdigest()
  assert record.sha256 == expected and record.label == 4
  record = sources.Record('b', _Frames([b'png', b'other']))
  assert record.sha256 == hashlib.sha256(b'pngother').hexdigest()


def test_groups_are_of_the_videos_that_have_one(tmp_path):
  videos = [
    sources.VideoId('a', tmp_path, group='1'),
    sources.VideoId('b', tmp_path),
    sources.Record('c', _Frames(), group='1'),
  ]
  assert sources.groups(videos) == {'a': '1', 'c': '1'}
