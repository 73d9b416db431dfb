"""Parts of a video file, each an episode, whatever lies around it."""

import fractions
import pathlib

import av
import numpy as np
import pytest

from drp_jax.data import lerobot, schema
from drp_jax.preprocess import frame_count, video

_SETS = pathlib.Path(__file__).parents[1] / 'lerobot_sets'
_LENGTHS = 7, 5, 6


def _levels(frames):
  assert frames.dtype == np.uint8 and frames.shape[1:] == (64, 64, 3)
  return frames.mean((1, 2, 3))


@pytest.mark.parametrize(
  'name', ['v2.1_av1', 'v3.0_av1', 'v3.0_h264', 'v3.0_hevc', 'v3.0_files']
)
def test_each_frame_of_a_lerobot_episode_and_no_other(name):
  videos = lerobot.lerobot_videos(_SETS / name, '').videos
  assert len(videos) == 6
  for one in videos:
    episode = int(one.group)
    frames, _ = video.decode(one.path, 99, False, 0.0, one.span)
    expected = 40 + 60 * episode + 6 * np.arange(_LENGTHS[episode])
    if 'side' in one.source_id:
      expected = 255 - expected
    # Neighbors differ by 6, episodes by more.
    np.testing.assert_allclose(_levels(frames), expected, atol=2)


_CODECS = {
  # Key frames far apart, many frames that are decoded before they are shown.
  'libx264': {
    'g': '50',
    'bf': '8',
    'x264-params': 'b-adapt=0:b-pyramid=normal',
  },
  'libx265': {'x265-params': 'keyint=12:bframes=8:open-gop=1:log-level=none'},
  'libsvtav1': {'g': '30', 'crf': '5', 'preset': '8'},
  'libvpx-vp9': {'g': '30', 'crf': '10', 'cpu-used': '8'},
}
_RATE = 20
_TOTAL = 60


def _write(path, codec, times=range(_TOTAL)):
  """Frame t has the brightness 20 + 3 t and the time t / 20 s."""
  with av.open(str(path), 'w') as file:
    stream = file.add_stream(codec, rate=_RATE, options=_CODECS[codec])
    stream.height = stream.width = 64
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.time_base = fractions.Fraction(1, _RATE)
    for t in times:
      level = np.full((64, 64, 3), 20 + 3 * t, np.uint8)
      level[:8, :8] = np.random.default_rng(t).integers(0, 255, (8, 8, 3))
      frame = av.VideoFrame.from_ndarray(level, format='rgb24')
      frame.pts, frame.time_base = t, stream.codec_context.time_base
      file.mux(stream.encode(frame))
    file.mux(stream.encode())


def _span(start, count):
  return schema.Span(start / _RATE, (start + count) / _RATE, count)


def _assert_frames(frames, numbers):
  levels = frames[:, 20:].mean((1, 2, 3))
  np.testing.assert_allclose(levels, 20 + 3 * np.array(numbers), atol=1.4)


@pytest.mark.parametrize('codec', _CODECS)
def test_a_part_of_any_codec_begins_and_ends_where_it_should(codec, tmp_path):
  path = tmp_path / 'a.mkv'
  _write(path, codec)
  for start, count in ((0, 1), (0, 30), (1, 7), (30, 30), (47, 9), (59, 1)):
    frames, _ = video.decode(path, 99, False, 0.0, _span(start, count))
    _assert_frames(frames, range(start, start + count))


def test_times_may_be_a_little_off_but_not_by_half_a_frame(tmp_path):
  path = tmp_path / 'a.mp4'
  _write(path, 'libx264')
  for off in (-0.2, 0.2):
    frames, _ = video.decode(path, 99, False, 0.0, _span(30 + off, 20))
    _assert_frames(frames, range(30, 50))
  for off in (-0.4, 0.4):
    with pytest.raises(video.UnusableVideo, match='wrong_times'):
      video.decode(path, 99, False, 0.0, _span(30 + off, 20))


def test_a_lost_frame_does_not_shift_the_others(tmp_path):
  """Otherwise they would not fit to what was recorded beside them."""
  path = tmp_path / 'a.mp4'
  _write(path, 'libx264', [t for t in range(_TOTAL) if t != 40])
  with pytest.raises(video.UnusableVideo) as error:
    video.decode(path, 99, False, 0.0, _span(30, 20))
  assert error.value.reason == 'wrong_times'
  assert error.value.detail == 'a frame at 2.050 s in the place of frame 10'
  frames, _ = video.decode(path, 10, False, 0.0, _span(30, 20))  # before it
  _assert_frames(frames, range(30, 40))


def test_a_part_beyond_the_end_is_truncated(tmp_path):
  path = tmp_path / 'a.mp4'
  _write(path, 'libx264')
  for start, found in ((50, 10), (200, 0)):
    with pytest.raises(video.UnusableVideo) as error:
      video.decode(path, 99, False, 0.0, _span(start, 20))
    assert error.value.reason == 'truncated'
    assert error.value.detail == f'{found} of 20 frames'


def test_a_part_at_another_rate(tmp_path):
  path = tmp_path / 'a.mp4'
  _write(path, 'libx264')
  frames, numbers = video.decode(path, 99, False, 10.0, _span(30, 19))
  np.testing.assert_array_equal(numbers, range(0, 19, 2))  # in the part
  _assert_frames(frames, range(30, 49, 2))
  assert frame_count.count_in_span(_span(30, 19), 10.0) == len(frames)
  assert frame_count.count_in_span(_span(30, 19), 0.0) == 19


def test_pictures_in_memory(tmp_path):
  """Their bytes, and frames that are decoded already."""
  frame = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
  path = tmp_path / 'a.png'
  av.VideoFrame.from_ndarray(frame, format='rgb24').to_image().save(path)
  found, _ = video.decode([path, path.read_bytes(), frame], 9, False)
  np.testing.assert_array_equal(found, np.stack([frame] * 3))
  for broken in (b'', b'no picture'):
    with pytest.raises(video.UnusableVideo, match='picture 1: corrupt'):
      video.decode([frame, broken], 9, False)
