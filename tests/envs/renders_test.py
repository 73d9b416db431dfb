"""Tests of renders for pre-training, written as real video."""

import av
import numpy as np
import pytest

from drp_jax.envs import renders

TASKS = ['finger_spin', 'acrobot_swingup']  # with and without DMCR looks
FRAMES = 6


def write_video(path, frames, fps):
  with av.open(str(path), 'w') as file:
    stream = file.add_stream('libx264', rate=fps)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.options = 'yuv420p', {'crf': '10', 'threads': '1'}
    for frame in frames:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
    file.mux(stream.encode())


def read_video(path):
  with av.open(str(path)) as file:
    return np.stack(
      [f.to_ndarray(format='rgb24') for f in file.decode(video=0)]
    )


def test_writes_videos_that_move_and_differ(tmp_path):
  paths = renders.write_rollouts(tmp_path, TASKS, 2, FRAMES, 0, write_video)
  names = [path.name for path in paths]
  assert names == [f'{task}_{i:04d}.mp4' for task in TASKS for i in range(2)]
  assert sorted(tmp_path.iterdir()) == sorted(paths)  # nothing partial is left
  videos = [read_video(path) for path in paths]
  for video in videos:
    assert video.shape == (FRAMES, 64, 64, 3)
    assert np.abs(np.diff(video.astype(int), axis=0)).max() > 30
  assert (videos[0] != videos[1]).any()


def test_goes_on_after_a_kill_and_gives_the_same_frames(tmp_path):
  def keep(into):
    def write(path, frames, fps):
      assert fps == renders.FPS
      if len(into) == 2:
        raise KeyboardInterrupt
      into.append(frames)
      path.write_bytes(b'x')

    return write

  first, second = [], []
  with pytest.raises(KeyboardInterrupt):
    renders.write_rollouts(tmp_path, TASKS, 2, 3, 5, keep(first))
  # Two were written; the next call makes the others only.
  renders.write_rollouts(tmp_path, TASKS, 2, 3, 5, keep(second))
  assert len(first) == len(second) == 2
  again = []
  other = tmp_path / 'other'
  renders.write_rollouts(other, TASKS[1:], 2, 3, 5, keep(again))
  np.testing.assert_array_equal(second, again)  # whatever the other tasks


def test_clips_longer_than_an_episode_are_refused():
  from drp_jax.envs import dmc

  env = dmc.DMC('cartpole_swingup', draw=False)
  with pytest.raises(ValueError, match='1001 frames, not 2000'):
    renders.rollout(env, 2000, np.random.default_rng(0))
