"""A real video with known motion: a textured square over a textured scene."""

import dataclasses

import cv2
import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import video

_SCALE = 4  # the file is larger than the frames read from it
_SIDE, _START, _STEP = 16, np.array([6.0, 10.0]), np.array([1.5, 0.75])


@dataclasses.dataclass(frozen=True)
class Clip:
  """Frames as read back, [T, 64, 64, 3], and what is true of them.

  Attributes:
    path: the file they come from.
    frames: [T, 64, 64, 3] uint8.
    step: [2] motion of the square in pixels per frame, (x, y).
    masks: [T, 64, 64] bool, the square.
  """

  path: str
  frames: np.ndarray
  step: np.ndarray
  masks: np.ndarray

  @property
  def footage(self) -> schema.Footage:
    return schema.Footage(self.frames)


@pytest.fixture(scope='session')
def backends() -> backends_lib.Backends:
  return backends_lib.make_backends(backends_lib.Settings())


@pytest.fixture(scope='session')
def square_clip(tmp_path_factory) -> Clip:
  path = tmp_path_factory.mktemp('square') / 'square.mp4'
  rng = np.random.default_rng(0)
  blur = 1.25 * _SCALE
  scene = _texture(rng, 64 * _SCALE, blur, (120, 90, 70))
  square = _texture(rng, _SIDE * _SCALE, blur, (60, 150, 190))
  frames, masks = [], []
  y, x = np.mgrid[:64, :64]
  for t in range(25):
    corner = _START + t * _STEP
    left, top = (corner * _SCALE).astype(int)
    frame = scene.copy()
    frame[top : top + len(square), left : left + len(square)] = square
    frames.append(frame)
    inside = [
      (v + 0.5 > c) & (v + 0.5 < c + _SIDE)
      for v, c in zip((x, y), corner, strict=True)
    ]
    masks.append(inside[0] & inside[1])
  video.write_video(path, np.stack(frames), fps=25)
  return Clip(str(path), video.read(path, 25), _STEP, np.stack(masks))


@pytest.fixture
def scene() -> np.ndarray:
  """[64, 96, 3] uint8: a textured still, wider than a frame."""
  rng = np.random.default_rng(1)
  return _texture(rng, 96, 1.5, (110, 120, 130))[:64]


def _texture(
  rng: np.random.Generator, size: int, blur: float, color: tuple[int, int, int]
) -> np.ndarray:
  """[size, size, 3] uint8: random blotches of `blur` pixels around a color."""
  noise = rng.standard_normal((size, size, 3)).astype(np.float32)
  noise = cv2.GaussianBlur(noise, None, blur)
  noise *= 35 / noise.std()
  return np.clip(noise + color, 0, 255).astype(np.uint8)
