"""Acting sees what a data set holds."""

import numpy as np
import pytest

from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import extract, stream


def _run(extractor, frames, episode=0):
  """Steps through an episode; leaves stacked over time."""
  steps = [
    extractor.step(frame, t == 0, episode) for t, frame in enumerate(frames)
  ]
  return {name: np.stack([s[name] for s in steps]) for name in steps[0]}


def test_streaming_equals_the_clip(square_clip, backends):
  frames = square_clip.frames
  rng = np.random.default_rng(0)
  clip = extract.extract_clip(
    square_clip.footage, backends, rng, num_keypoints=8
  )
  out = _run(stream.StreamingExtractor(backends, 8), frames)
  assert out['flow'].dtype == np.float16
  np.testing.assert_array_equal(out['flow'], clip['flow'])
  np.testing.assert_array_equal(out['window_step'], [0, *range(24)])
  # From the same points, the clip's tracker goes the same way.
  track_fn = backends.tracker.over_clip(square_clip.footage)
  tracks, visible = track_fn(out['points'][1])
  np.testing.assert_array_equal(out['points'][1:], tracks[:-1])
  np.testing.assert_array_equal(out['visible'][1:], visible[:-1])


def test_types_and_zeros_of_the_first_step(square_clip, backends):
  out = stream.StreamingExtractor(backends, 8).step(square_clip.frames[0], True)
  expected = {
    'flow': ((64, 64, 2), np.float16),
    'points': ((8, 2), np.float32),
    'visible': ((8,), np.bool_),
    'window_step': ((), np.int32),
  }
  assert {k: (v.shape, v.dtype) for k, v in out.items()} == expected
  assert not any(np.any(value) for value in out.values())


def test_points_are_chosen_anew_when_a_window_ends(square_clip, backends):
  extractor = stream.StreamingExtractor(backends, 8, window=5)
  out = _run(extractor, square_clip.frames[:13])
  np.testing.assert_array_equal(
    out['window_step'], [0, *range(5), *range(5), *range(2)]
  )
  for t in range(2, 13):
    jump = np.abs(out['points'][t] - out['points'][t - 1]).max()
    assert (jump > 5) == (out['window_step'][t] == 0)
  assert out['visible'][[1, 6, 11]].all()


def test_points_are_on_what_moves(square_clip, backends):
  out = _run(stream.StreamingExtractor(backends, 32, 6), square_clip.frames)
  for t in range(1, 25):
    x, y = out['points'][t].round().astype(int).T
    assert square_clip.masks[t - 1][y, x].mean() > 0.7


def test_an_episode_does_not_depend_on_what_came_before(square_clip, backends):
  frames = square_clip.frames[:8]
  used = stream.StreamingExtractor(backends, 8, window=3, seed=5)
  _run(used, square_clip.frames[9:20], episode=0)
  fresh = stream.StreamingExtractor(backends_lib.make_backends(), 8, 3, seed=5)
  first, again = _run(used, frames, episode=1), _run(fresh, frames, episode=1)
  for name in first:
    np.testing.assert_array_equal(first[name], again[name])
  other = _run(used, frames, episode=2)
  assert not np.array_equal(first['points'], other['points'])
  np.testing.assert_array_equal(first['flow'], other['flow'])


def test_frames_may_be_overwritten_by_the_caller(square_clip, backends):
  expected = _run(
    stream.StreamingExtractor(backends, 8), square_clip.frames[:4]
  )
  extractor, buffer = (
    stream.StreamingExtractor(backends, 8),
    np.empty_like(square_clip.frames[0]),
  )
  for t in range(4):
    buffer[:] = square_clip.frames[t]
    out = extractor.step(buffer, t == 0)
    np.testing.assert_array_equal(out['flow'], expected['flow'][t])


def test_a_still_scene_is_no_error(backends):
  frame = np.full((64, 64, 3), 90, np.uint8)
  out = _run(stream.StreamingExtractor(backends, 8), [frame] * 3)
  np.testing.assert_array_equal(out['flow'], 0)
  assert np.all((out['points'] >= 0) & (out['points'] <= 63))


def test_an_episode_has_to_begin(backends):
  frame = np.zeros((64, 64, 3), np.uint8)
  with pytest.raises(ValueError, match='is_first'):
    stream.StreamingExtractor(backends, 8).step(frame, False)
