"""Joins of unlike shots are found; what moves, shakes or flashes is no cut."""

import numpy as np
import pytest

from drp_jax.data import cuts


def _shot(seed, num_frames=30, speed=1):
  """A textured square that crosses a textured ground, [N, 64, 64, 3]."""
  rng = np.random.default_rng(seed)

  def texture(side):
    colors = rng.integers(0, 256, 3) * rng.uniform(0.4, 1.0, (8, 8, 1))
    return np.kron(colors, np.ones((side // 8, side // 8, 1))).astype(np.uint8)

  frames = np.repeat(texture(64)[None], num_frames, 0)
  square, corner, step = texture(24), rng.integers(0, 41, 2), rng.normal(size=2)
  step *= 2 * speed / np.linalg.norm(step)
  for frame in frames:
    top, left = np.abs((corner.astype(int) + 40) % 80 - 40)
    frame[top : top + 24, left : left + 24] = square
    corner = corner + step
  return frames


def _shaking(frames, rng):
  """The camera jumps by up to 8 pixels at every frame."""
  return np.stack(
    [np.roll(f, tuple(rng.integers(-8, 9, 2)), (0, 1)) for f in frames]
  )


def _sweeping(frames, _):
  """The camera turns by half the picture within three frames."""
  middle = len(frames) // 2
  shift = 16 * np.clip(np.arange(len(frames)) - middle, 0, 3)
  return np.stack(
    [np.roll(f, s, 1) for f, s in zip(frames, shift, strict=True)]
  )


def _flashing(frames, rng):
  """Two frames, one after the other, are far brighter."""
  frames = frames.copy()
  at = rng.integers(3, len(frames) - 5)
  frames[at : at + 2] = np.minimum(frames[at : at + 2], 135) + 120
  return frames


def _exposing(frames, _):
  """The light changes over ten frames to two fifths."""
  share = np.interp(np.arange(len(frames)), (10, 20), (1.0, 0.4))
  return (frames * share[:, None, None, None]).astype(np.uint8)


def _same(frames, _):
  return frames


@pytest.mark.parametrize('speed', [1, 6])
@pytest.mark.parametrize(
  'change', [_same, _shaking, _sweeping, _flashing, _exposing]
)
def test_shots_without_a_cut(change, speed):
  """At most one of a hundred may be cut."""
  rng = np.random.default_rng(0)
  found = [
    bool(cuts.find_cuts(change(_shot(seed, speed=speed), rng)))
    for seed in range(100)
  ]
  assert sum(found) <= 1


def test_joins_of_unlike_shots():
  rng = np.random.default_rng(0)
  hits = 0
  for seed in range(0, 200, 2):
    cut = int(rng.integers(5, 20))
    joined = np.concatenate([_shot(seed, cut), _shot(seed + 1, 10)])
    hits += cuts.find_cuts(joined) == [cut]
  assert hits >= 90


def test_several_cuts_of_one_video():
  shots = [np.full((n, 64, 64, 3), level, np.uint8)
           for n, level in ((9, 0), (4, 200), (7, 60), (1, 250))]  # fmt: skip
  assert cuts.find_cuts(np.concatenate(shots)) == [9, 13, 20]


@pytest.mark.parametrize('num_frames', range(5))
def test_few_frames(num_frames):
  assert cuts.find_cuts(_shot(0, num_frames)) == []
