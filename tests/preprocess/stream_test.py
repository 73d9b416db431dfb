"""Acting sees what a data set holds."""

import dataclasses

import numpy as np
import pytest

from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import extract, stream


def _run(extractor, frames, episode=0, scene=None):
  """Steps through an episode; leaves stacked over time."""
  steps = []
  for t in range(len(frames)):
    now = scene and {name: array[t : t + 1] for name, array in scene.items()}
    steps.append(extractor.step(frames[t : t + 1], [t == 0], [episode], now))
  return {name: np.concatenate([s[name] for s in steps]) for name in steps[0]}


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
  extractor = stream.StreamingExtractor(backends, 8)
  out = extractor.step(square_clip.frames[:2], [True, True], [0, 1])
  expected = {
    'flow': ((2, 64, 64, 2), np.float16),
    'points': ((2, 8, 2), np.float32),
    'visible': ((2, 8), np.bool_),
    'window_step': ((2,), np.int32),
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
  fresh = stream.StreamingExtractor(
    backends_lib.make_backends(backends_lib.Settings()), 8, 3, seed=5
  )
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
  extractor = stream.StreamingExtractor(backends, 8)
  buffer = np.empty_like(square_clip.frames[:1])
  for t in range(4):
    buffer[:] = square_clip.frames[t]
    out = extractor.step(buffer, [t == 0], [0])
    np.testing.assert_array_equal(out['flow'][0], expected['flow'][t])


def test_a_still_scene_is_no_error(backends):
  frame = np.full((64, 64, 3), 90, np.uint8)
  frames = np.stack([frame] * 3)
  out = _run(stream.StreamingExtractor(backends, 8), frames)
  np.testing.assert_array_equal(out['flow'], 0)
  assert np.all((out['points'] >= 0) & (out['points'] <= 63))


def test_an_episode_has_to_begin(backends):
  frames = np.zeros((2, 64, 64, 3), np.uint8)
  extractor = stream.StreamingExtractor(backends, 8)
  with pytest.raises(ValueError, match='is_first=False .* episode 4;'):
    extractor.step(frames, [True, False], [3, 4])


def test_episodes_of_a_batch_are_what_each_is_alone(square_clip, backends):
  """To the bit, though they begin, and choose points, at different times."""
  forth, back = square_clip.frames[:11], square_clip.frames[::-1][:9]
  extractor = stream.StreamingExtractor(backends, 8, window=4, seed=3)
  alone = [
    _run(stream.StreamingExtractor(backends, 8, 4, 3), forth, episode=6),
    _run(stream.StreamingExtractor(backends, 8, 4, 3), back, episode=2),
  ]
  for t in range(11):
    rows = [0] if t < 2 else [0, 1]  # the second begins two frames later
    if t % 2:
      rows = rows[::-1]  # no place in the batch is anyone's own
    out = extractor.step(
      np.stack([forth[t] if row == 0 else back[t - 2] for row in rows]),
      [t == (0, 2)[row] for row in rows],
      [(6, 2)[row] for row in rows],
    )
    for i, row in enumerate(rows):
      for name, array in out.items():
        expected = alone[row][name][t - (0, 2)[row]]
        np.testing.assert_array_equal(array[i], expected, err_msg=name)


def test_flow_and_tracker_are_called_once_for_all(square_clip, backends):
  calls = []

  def flow(start, end):
    calls.append(('flow', len(start), len(end)))
    return backends.flow(start, end)

  class Tracker:
    over_clip, begin = backends.tracker.over_clip, backends.tracker.begin

    def step(self, states, footage):
      calls.append(('tracker', len(states), len(footage)))
      return backends.tracker.step(states, footage)

  made = dataclasses.replace(backends, flow=flow, tracker=Tracker())
  extractor = stream.StreamingExtractor(made, 4)
  for t in range(3):
    extractor.step(square_clip.frames[t : t + 3], [t == 0] * 3, [0, 1, 2])
  expected = [('flow', 3, 3), ('tracker', 3, 3)]  # at the same time
  assert sorted(calls[:2]) == sorted(calls[2:]) == expected


def test_episodes_that_are_left_out_are_over(square_clip, backends):
  extractor = stream.StreamingExtractor(backends, 8)
  frames = square_clip.frames
  extractor.step(frames[:2], [True, True], [0, 1])
  extractor.step(frames[1:2], [False], [0])
  with pytest.raises(ValueError, match='episode 1;'):
    extractor.step(frames[2:4], [False, False], [0, 1])


def test_a_simulator_s_truth_while_acting():
  """A box of two meters' distance moves a pixel a frame; nothing else does."""
  frames, scene = np.zeros((4, 64, 64, 3), np.uint8), _marching_box(4)
  made = backends_lib.make_backends(
    backends_lib.Settings(flow='sim', mask='sim', tracker='sim')
  )
  out = _run(stream.StreamingExtractor(made, 8), frames, scene=scene)
  for t in range(1, 4):
    box = scene['geom'][t - 1] == 0
    flow = out['flow'][t].astype(np.float32)
    np.testing.assert_allclose(flow[box], [[1, 0]] * box.sum(), atol=1e-2)
    np.testing.assert_array_equal(flow[~box], 0)
    x, y = out['points'][t].round().astype(int).T
    assert box[y, x].all() and out['visible'][t].all()
  moved = out['points'][2] - out['points'][1]
  np.testing.assert_allclose(moved, [[1, 0]] * 8, atol=1e-3)


def test_a_simulator_s_truth_needs_scenes():
  made = backends_lib.make_backends(
    backends_lib.Settings(flow='sim', mask='sim', tracker='sim')
  )
  extractor = stream.StreamingExtractor(made, 8)
  frames = np.zeros((2, 64, 64, 3), np.uint8)
  with pytest.raises(ValueError, match=r"config\.extract\.\w+='sim' needs"):
    _run(extractor, frames)


def _marching_box(count):
  """Scenes of `envs/scene.py`: focal 16, so a meter is 8 pixels at 2 m."""
  geom = np.full((count, 64, 64), -1, np.int16)
  for t in range(count):
    geom[t, 20:30, 10 + t : 22 + t] = 0
  x = np.arange(count) / 8
  return {
    'geom': geom,
    'depth': np.where(geom == 0, 2, 0).astype(np.float32),
    'position': np.stack([x, 0 * x, 0 * x - 2], -1).astype(np.float32)[:, None],
    'rotation': np.tile(np.eye(3, dtype=np.float32), (count, 1, 1, 1)),
    'moves': np.ones((count, 1), bool),
    'camera_position': np.zeros((count, 3), np.float32),
    'camera_rotation': np.tile(np.eye(3, dtype=np.float32), (count, 1, 1)),
    'focal': np.full(count, 16, np.float32),
  }
