"""What drives predictions, and that nothing else about them changes."""

import numpy as np

from drp_jax.train import evaluate
from experiments import open_loop

_T, _N = 8, evaluate.CONTEXT_STEPS


def _clip():
  rng = np.random.default_rng(0)
  return {
    'image': rng.integers(0, 256, (_T, 4, 4, 3), np.uint8),
    'flow': rng.normal(size=(_T, 4, 4, 2)).astype(np.float16),
    'points': rng.normal(size=(_T, 6, 2)).astype(np.float32),
    'visible': rng.random((_T, 6)) < 0.5,
    'source_id': b'a',
  }


def test_without_later_motion_nothing_moves_after_the_last_frame_seen():
  clip = _clip()
  still = open_loop.without_later_motion(clip)
  assert still.keys() == clip.keys()
  for name in ('image', 'flow', 'points', 'visible'):
    assert still[name].dtype == clip[name].dtype
    np.testing.assert_array_equal(still[name][:_N], clip[name][:_N])
  for t in range(_N, _T):
    np.testing.assert_array_equal(still['image'][t], clip['image'][_N - 1])
    # Where they are in the last frame seen.
    np.testing.assert_array_equal(still['points'][t], clip['points'][_N])
  assert clip['flow'][_N:].any() and not still['flow'][_N:].any()


def test_copies_repeat_the_last_frame_seen():
  clip = _clip()
  (copied,) = open_loop.copies([clip])
  np.testing.assert_array_equal(copied[:_N], clip['image'][:_N])
  assert (copied[_N:] == clip['image'][_N - 1]).all()


def test_partners_are_of_other_videos():
  videos = ['a', 'a', 'a', 'a', 'b', 'c']
  draws = [open_loop.partners(videos, draw).tolist() for draw in range(20)]
  for partners in draws:
    assert all(videos[i] != videos[j] for i, j in enumerate(partners))
  assert len({tuple(partners) for partners in draws}) > 10
  assert draws[3] == open_loop.partners(videos, 3).tolist()
  # Uniform over clips: of those of 'b', four in five are of 'a'.
  of_b = [videos[partners[4]] for partners in draws]
  assert 10 < of_b.count('a') < 20
  assert open_loop.partners(['a', 'a'], 0) is None
