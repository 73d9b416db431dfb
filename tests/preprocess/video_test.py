"""Real files: written with PyAV, read back, and broken in several ways."""

import itertools
import pickle
import struct

import av
import cv2
import numpy as np
import odd_videos
import pytest
import random_inputs
import unlike

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
  """The strongest channel at the centers of three quarters of a frame."""
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


_WRITE = """
import sys
import numpy as np
from drp_jax.preprocess import video
video.write_video(sys.argv[2], np.load(sys.argv[1]), 25)
"""


@pytest.mark.parametrize('suffix', ['.mp4', '.webm'])
@pytest.mark.parametrize('scale', [1, 4])
def test_a_file_is_a_function_of_its_frames(tmp_path, suffix, scale):
  """Whatever a process has in its memory, and however many cores it has."""
  frames = random_inputs.moving_squares(40, 0)
  frames = frames.repeat(scale, 1).repeat(scale, 2)
  np.save(tmp_path / 'frames.npy', frames)
  paths = [tmp_path / f'{seed}{suffix}' for seed in range(4)]
  for seed, path in enumerate(paths):
    unlike.run(_WRITE, seed, str(tmp_path / 'frames.npy'), str(path))
  assert len({path.read_bytes() for path in paths}) == 1


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
  odd_videos.note_clockwise(path)
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


def _numbers(path, fps, max_frames=1000):
  """Which frames of `_ramp` are taken."""
  found, numbers = video.decode(path, max_frames, False, fps)
  seen = np.rint(found.mean((1, 2, 3)) / 4).astype(int).tolist()
  assert numbers.tolist() == seen  # what it says is what it took
  return seen


def _ramp(path, times=None, num_frames=60, rate=24):
  """Frame n has the level 4 n; `times` in fiftieths of a second, or a rate."""
  levels = 4 * np.arange(num_frames, dtype=np.uint8)
  frames = np.broadcast_to(
    levels[:, None, None, None], (num_frames, 64, 64, 3)
  ).copy()
  if times is None:
    video.write_video(path, frames, rate)
  else:
    odd_videos.encode(path, 'ffv1', 'bgr0', frames, times)


@pytest.mark.parametrize(
  ('rate', 'fps', 'expected'),
  [
    (24, 0.0, list(range(60))),
    (24, 12.0, list(range(0, 60, 2))),
    (60, 12.0, list(range(0, 60, 5))),
    (12, 12.0, list(range(60))),
    # The nearest to 0, 2.67, 5.33, 8, ...
    (32, 12.0, [0, 3, 5, 8, 11, 13, 16, 19, 21, 24]),
    # None twice, where there are nearly enough.
    (24, 25.0, list(range(60))),
  ],
)
@pytest.mark.parametrize('suffix', ['.mp4', '.webm'])
def test_a_rate_takes_the_nearest_frames(tmp_path, suffix, rate, fps, expected):
  """In a WebM, times are rounded to thousandths of a second."""
  _ramp(tmp_path / f'a{suffix}', rate=rate)
  found = _numbers(tmp_path / f'a{suffix}', fps)
  assert found[: len(expected)] == expected
  assert len(found) == pytest.approx(
    60 * min(1, fps / rate if fps else 1), abs=1
  )


def test_a_rate_goes_by_time_stamps(tmp_path):
  """Of 50 frames per second, then 10, from 10 seconds on."""
  times = 500 + np.r_[0:30, 30:100:5]
  _ramp(tmp_path / 'a.mkv', [int(t) for t in times], len(times))
  assert _numbers(tmp_path / 'a.mkv', 10.0) == [
    *range(0, 30, 5),
    *range(30, 44),
  ]
  assert _numbers(tmp_path / 'a.mkv', 5.0, 4) == [0, 10, 20, 30]


def test_a_video_slower_than_the_rate(tmp_path):
  _ramp(tmp_path / 'a.mp4', rate=10)
  with pytest.raises(
    video.UnusableVideo, match='slow .10 frames/s, fewer .*config.data.fps=12'
  ):
    video.decode(tmp_path / 'a.mp4', 1000, False, 12.0)
  assert len(video.decode(tmp_path / 'a.mp4', 1, False, 12.0)[0]) == 1


def test_a_file_without_times_has_no_rate(tmp_path):
  _ramp(tmp_path / 'a.mp4')
  path = tmp_path / 'a.h264'
  with (
    av.open(str(tmp_path / 'a.mp4')) as source,
    av.open(str(path), 'w', format='h264') as target,
  ):
    stream = target.add_stream_from_template(source.streams.video[0])
    for packet in source.demux(video=0):
      if packet.dts is not None:
        packet.stream = stream
        target.mux(packet)
  assert len(video.decode(path, 100, False)[0]) == 60
  with pytest.raises(video.UnusableVideo, match='no_times .*config.data.fps'):
    video.decode(path, 100, False, 12.0)


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
  with pytest.raises(video.UnusableVideo, match='no_video .no video stream'):
    video.read(tmp_path / 'sound.wav', 2)


@pytest.mark.parametrize('name', odd_videos.USABLE)
def test_odd_files_give_all_their_frames_upright(tmp_path, name):
  path = tmp_path / name
  odd_videos.USABLE[name](path)
  found = np.stack(list(video.iterate(path)))
  expected = odd_videos.frames()
  if name == 'gray.mkv':
    assert np.array_equal(found[..., 0], found[..., 2])
    expected = np.stack([cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in expected])
    expected = expected[..., None]
  assert found.shape == (odd_videos.NUM_FRAMES, 64, 64, 3)
  assert np.abs(found.astype(int) - expected).mean() < 12


def test_odd_files_are_as_odd_as_they_say(tmp_path):
  def first(name):
    odd_videos.USABLE[name](tmp_path / name)
    with av.open(str(tmp_path / name)) as container:
      return list(container.decode(video=0))

  assert first('gray.mkv')[0].format.name == 'gray'
  assert first('ten_bit.mkv')[0].format.name == 'yuv420p10le'
  assert first('rotated.mp4')[0].rotation != 0
  steps = np.diff([frame.time for frame in first('variable_rate.mp4')])
  assert steps.max() / steps.min() > 6


@pytest.mark.parametrize('name', odd_videos.UNUSABLE)
def test_what_cannot_be_decoded_says_why(tmp_path, name):
  make, reason = odd_videos.UNUSABLE[name]
  make(tmp_path / name)
  if reason in ('too_short', 'no_motion'):  # for the builder to find out
    frames = list(video.iterate(tmp_path / name))
    assert len(frames) == {'too_short': 1, 'no_motion': 40}[reason]
    return
  with pytest.raises(video.UnusableVideo, match=name) as error:
    list(video.iterate(tmp_path / name))
  assert error.value.reason == reason


def test_a_damaged_file_gives_the_frames_before_the_damage(tmp_path):
  odd_videos.corrupt(tmp_path / 'a.mp4')
  stream = video.iterate(tmp_path / 'a.mp4')
  first = np.stack(list(itertools.islice(stream, 5)))
  assert np.abs(first.astype(int) - odd_videos.frames()[:5]).mean() < 5
  with pytest.raises(video.UnusableVideo, match=r'corrupt .after \d+ frames'):
    list(stream)


@pytest.mark.parametrize('shape', [(96, 256), (256, 96), (95, 301)])
def test_the_center_square_may_be_cut_out(shape):
  height, width = shape
  frame = np.zeros((height, width, 3), np.uint8)
  side = min(shape)
  top, left = (height - side) // 2, (width - side) // 2
  frame[top : top + side, left : left + side] = 200
  assert video.to_image(frame, centre_crop=True).min() == 200
  assert video.to_image(frame).min() == 0
  assert video.to_image(frame, centre_crop=True).shape == (64, 64, 3)


def test_the_center_square_of_a_file(tmp_path):
  frames = np.zeros((2, 64, 256, 3), np.uint8)
  frames[:, :, 96:160] = _blocks(2)
  video.write_video(tmp_path / 'a.mp4', frames, fps=10)
  cut = next(video.iterate(tmp_path / 'a.mp4', centre_crop=True))
  assert _corners(cut) == [0, 1, 2]
  assert cut.mean() > 2 * next(video.iterate(tmp_path / 'a.mp4')).mean()


def test_pictures_become_frames(tmp_path):
  color = _blocks(1, 96, 128)[0]
  bgr = cv2.cvtColor(color, cv2.COLOR_RGB2BGR)
  pictures = {
    'a.png': bgr,
    'b.jpg': bgr,
    'deep.png': bgr.astype(np.uint16) << 8,
    'gray.png': cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY),
    'transparent.png': cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA),
  }
  for name, picture in pictures.items():
    assert cv2.imwrite(str(tmp_path / name), picture)
  paths = [tmp_path / name for name in pictures]
  found = dict(zip(pictures, video.iterate_pictures(paths), strict=True))
  expected = cv2.resize(color, (64, 64), interpolation=cv2.INTER_AREA)
  np.testing.assert_array_equal(found['a.png'], expected)
  np.testing.assert_array_equal(found['transparent.png'], expected)
  assert np.abs(found['deep.png'].astype(int) - expected).max() <= 1
  assert np.abs(found['b.jpg'].astype(int) - expected).mean() < 5
  assert np.ptp(found['gray.png'], axis=-1).max() == 0
  (cut,) = video.iterate_pictures(paths[:1], centre_crop=True)
  np.testing.assert_array_equal(cut, video.to_image(color[:, 16:112]))


@pytest.mark.parametrize('content', [b'', b'no picture', None])
def test_a_broken_picture(tmp_path, content):
  good, bad = tmp_path / 'a.png', tmp_path / 'b.png'
  cv2.imwrite(str(good), _blocks(1)[0])
  whole = good.read_bytes()
  bad.write_bytes(whole[:30] if content is None else content)
  with pytest.raises(video.UnusableVideo, match='b.png: unreadable'):
    list(video.iterate_pictures([bad]))
  with pytest.raises(video.UnusableVideo, match='corrupt .after 1 frames'):
    list(video.iterate_pictures([good, bad]))


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
