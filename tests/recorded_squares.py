"""Videos of a square that goes where its recording says."""

import pathlib

import numpy as np

from drp_jax import recordings
from drp_jax.preprocess import video

_SIDE = 20  # pixels of the square


def write(
  path: pathlib.Path,
  num_frames: int,
  rate: int = 24,
  seed: int = 0,
  axes: int = 1,
  body: str = 'square',
) -> recordings.Recording:
  """Writes a video and what moved in it.

  Args:
    path: of the video.
    num_frames: N.
    rate: frames per second.
    seed: of motion and texture.
    axes: 1, the square moves to the sides; 2, up and down as well.
    body: its name.

  Returns:
    The recording beside the video. Its action [N, axes] is how many pixels the
    square went, 1 to 3 or back, and its velocity the same in pixels per second.
  """
  rng = np.random.default_rng(seed)
  step = rng.choice([-3, -2, -1, 1, 2, 3], (num_frames, axes))
  step[0] = 0
  place = np.full((num_frames, 2), 22)
  for t in range(1, num_frames):
    there = place[t - 1, :axes] + step[t]
    step[t] *= np.where((there < 2) | (there > 42), -1, 1)
    place[t, :axes] += place[t - 1, :axes] + step[t] - 22
  texture = rng.integers(90, 250, (5, 5, 3), np.uint8)
  square = texture.repeat(4, 0).repeat(4, 1)
  frames = np.full((num_frames, 64, 64, 3), 60, np.uint8)
  for (x, y), frame in zip(place, frames, strict=True):
    frame[y : y + _SIDE, x : x + _SIDE] = square
  video.write_video(path, frames, rate)
  action = step.astype(np.float32)
  recording = recordings.Recording(action, rate * action, body)
  recordings.write(path, recording)
  return recording
