"""Real files: written with PyAV, read back, and broken in several ways."""

import itertools
import pickle
import struct

import cv2
import numpy as np
import pytest

from drp_jax.preprocess import video


def _blocks(num_frames=8, height=64, width=64):
  """Frames with a red top left, a green top right, a blue bottom left."""
  frames = np.zeros((num_frames, height, width, 3), np.uint8)
  frames[:, : height // 2, : width // 2, 0] = 250
  frames[:, : height // 2, width // 2 :, 1] = 250
  frames[:, height // 2 :, : width // 2, 2] = 250
  frames += np.arange(num_frames, dtype=np.uint8)[:, None, None, None] // 2
  return frames


def _corners(frame):
  """The strongest channel at the centres of three quarters of a frame."""
  return [frame[y, x].argmax() for y, x in ((16, 16), (16, 48), (48, 16))]


@pytest.mark.parametrize('suffix', ['.mp4', '.webm'])
def test_what_is_written_is_read(tmp_path, suffix):
  frames = _blocks()
  video.write_video(tmp_path / f'a{suffix}', frames, fps=10)
  back = video.read(tmp_path / f'a{suffix}', 8)
  assert back.shape == (8, 64, 64, 3) and back.dtype == np.uint8
  difference = np.abs(back.astype(int) - frames)[:, 4:28, 4:28]
  assert difference.mean() < 5
  assert [p.name for p in tmp_path.iterdir()] == [f'a{suffix}']


def test_frames_are_resized_by_area_without_keeping_the_aspect(tmp_path):
  frames = _blocks(2, 96, 256)
  video.write_video(tmp_path / 'a.mp4', frames, fps=10)
  back = video.read(tmp_path / 'a.mp4', 2)
  expected = cv2.resize(frames[0], (64, 64), interpolation=cv2.INTER_AREA)
  assert back.shape == (2, 64, 64, 3)
  assert np.abs(back[0].astype(int) - expected).mean() < 5


def test_rotation_in_the_metadata_is_applied(tmp_path):
  path = tmp_path / 'phone.mp4'
  video.write_video(path, _blocks(2), fps=10)
  data = bytearray(path.read_bytes())
  matrix = data.index(b'tkhd') + 44  # of the display, in the track header
  one, unit = 1 << 16, 1 << 30
  clockwise = struct.pack('>9i', 0, one, 0, -one, 0, 0, 64 * one, 0, unit)
  data[matrix : matrix + 36] = clockwise
  path.write_bytes(data)
  upright = video.read(path, 2)[0]
  # Turned clockwise: bottom left comes to top left, top left to top right.
  assert _corners(_blocks(1)[0]) == [0, 1, 2]
  assert _corners(upright)[:2] == [2, 0]


def test_a_long_video_is_streamed(tmp_path):
  path = tmp_path / 'long.mp4'
  video.write_video(path, _blocks(100), fps=25)
  first = list(itertools.islice(video.iterate(path), 3))
  np.testing.assert_array_equal(np.stack(first), video.read(path, 3))
  assert sum(1 for _ in video.iterate(path)) == 100


def test_too_few_frames(tmp_path):
  video.write_video(tmp_path / 'a.mp4', _blocks(8), fps=10)
  with pytest.raises(video.UnusableVideo, match='8 of 9 frames') as error:
    video.read(tmp_path / 'a.mp4', 9)
  assert error.value.reason == 'truncated'


@pytest.mark.parametrize(
  'name, content',
  [
    ('zero_bytes.mp4', b''),
    ('text.mp4', b'This is not a video.\n' * 100),
    ('noise.webm', np.random.default_rng(0).bytes(5000)),
  ],
)
def test_files_that_are_no_videos(tmp_path, name, content):
  (tmp_path / name).write_bytes(content)
  with pytest.raises(video.UnusableVideo, match=name) as error:
    video.read(tmp_path / name, 2)
  assert error.value.reason == 'unreadable'


def test_a_missing_file(tmp_path):
  with pytest.raises(video.UnusableVideo) as error:
    video.read(tmp_path / 'nothing.mp4', 2)
  assert error.value.reason == 'missing'


@pytest.mark.parametrize('suffix', ['.mp4', '.webm'])
def test_a_file_cut_in_half(tmp_path, suffix):
  """An mp4 has its index at the end; a webm just ends early."""
  path = tmp_path / f'a{suffix}'
  frames = np.random.default_rng(0).integers(0, 255, (20, 64, 64, 3), np.uint8)
  video.write_video(path, frames, fps=10)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])
  with pytest.raises(video.UnusableVideo) as error:
    video.read(path, 20)
  assert error.value.reason in ('unreadable', 'truncated')


def test_a_sound_file_has_no_video(tmp_path):
  samples = bytes(8000)
  header = struct.pack(
      '<4sI8sIHHIIHH4sI', b'RIFF', 36 + len(samples), b'WAVEfmt ', 16, 1, 1,
      8000, 8000, 1, 8, b'data', len(samples),
  )  # fmt: skip
  (tmp_path / 'sound.wav').write_bytes(header + samples)
  with pytest.raises(video.UnusableVideo, match='no video stream'):
    video.read(tmp_path / 'sound.wav', 2)


def test_the_error_survives_a_worker_process():
  error = video.UnusableVideo('a.mp4', 'empty', 'no frames')
  again = pickle.loads(pickle.dumps(error))
  assert str(again) == str(error) == 'a.mp4: empty (no frames).'
  assert again.reason == 'empty'


@pytest.mark.parametrize(
  'name, shape',
  [
    ('a.gif', (2, 64, 64, 3)),
    ('a.mp4', (2, 63, 64, 3)),
    ('a.mp4', (64, 64, 3)),
  ],
)
def test_what_cannot_be_written(tmp_path, name, shape):
  with pytest.raises(ValueError, match='suffix|expected'):
    video.write_video(tmp_path / name, np.zeros(shape, np.uint8), fps=10)
  assert not list(tmp_path.iterdir())
