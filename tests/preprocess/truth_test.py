"""Exact flow, masks and tracks: by hand, where everything is known.

That they are true of MuJoCo's renders is in simulator_test.py.
"""

import os

import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.preprocess import truth

SIZE, FOCAL, BOX, FLOOR = 32, 16.0, 0, 1
DEPTH = 2.0  # of the box: a meter is 8 pixels there
# The box covers columns 10-14 and rows 20-22 of the first frame.
ROWS, COLUMNS = slice(20, 23), slice(10, 15)


def _frame(box=(0.0, 0.0), turn=0.0, camera=(0.0, 0.0), covered=False):
  """A box before a floor below the sky; meters, right and up; radians.

  What is drawn is the first frame's, so only poses tell of motion, save that
  something may cover the box.
  """
  geom = np.full((SIZE, SIZE), -1, np.int16)
  depth = np.zeros((SIZE, SIZE), np.float32)
  geom[16:], depth[16:] = FLOOR, 8.0
  if not covered:
    geom[ROWS, COLUMNS], depth[ROWS, COLUMNS] = BOX, DEPTH
  c, s = np.cos(turn), np.sin(turn)
  return {
    'geom': geom,
    'depth': depth,
    'position': np.float32([[*box, -DEPTH], [0, 0, 0]]),
    'rotation': np.float32([[[c, -s, 0], [s, c, 0], [0, 0, 1]], np.eye(3)]),
    'moves': np.array([True, False]),
    'camera_position': np.float32([*camera, 0]),
    'camera_rotation': np.float32(np.eye(3)),
    'focal': np.float32(FOCAL),
  }


def _footage(*scenes):
  image = np.zeros((len(scenes), SIZE, SIZE, 3), np.uint8)
  return schema.Footage(
    image, {name: np.stack([s[name] for s in scenes]) for name in scenes[0]}
  )


def test_flow_of_what_moves_and_of_nothing_else():
  start = _footage(_frame(), _frame())
  end = _footage(_frame(box=(0.5, 0.25)), _frame())
  flow = truth.flow(start, end)
  assert flow.shape == (2, SIZE, SIZE, 2)
  np.testing.assert_allclose(
    flow[0, ROWS, COLUMNS], [4, -2] + np.zeros([3, 5, 2])
  )
  rest = flow[0].copy()
  rest[ROWS, COLUMNS] = 0
  np.testing.assert_allclose(rest, 0, atol=1e-5)
  np.testing.assert_allclose(flow[1], 0, atol=1e-5)


def test_flow_of_a_moving_camera_falls_with_distance():
  flow = truth.flow(_footage(_frame()), _footage(_frame(camera=(1.0, 0.0))))[0]
  np.testing.assert_allclose(flow[:16], 0, atol=1e-5)  # the sky
  np.testing.assert_allclose(flow[30, :, 0], -2, atol=1e-5)  # 8 m away
  np.testing.assert_allclose(flow[21, 12], [-8, 0], atol=1e-5)  # 2 m away


def test_flow_of_a_turn_is_around_the_geom_s_center():
  """A quarter anticlockwise: what is right of the center comes above it."""
  center = (SIZE - 1) / 2  # the box's origin is on the optical axis
  quarter = _footage(_frame(turn=np.pi / 2))
  flow = truth.flow(_footage(_frame()), quarter)[0]
  x, y = 13 - center, 21 - center
  np.testing.assert_allclose(flow[21, 13], [y - x, -x - y], atol=1e-5)


def test_a_mirrored_image_has_mirrored_flow():
  """Rows from the bottom up, as `envs.scene.View` describes them."""
  start, end = _frame(), _frame(box=(0.5, 0.25), camera=(0.2, -0.1), turn=0.3)
  plain = truth.flow(_footage(start), _footage(end))[0]
  for frame in (start, end):
    for name in ('geom', 'depth'):
      frame[name] = frame[name][::-1]
    frame['camera_rotation'] = np.float32(np.diag([1, -1, 1]))
  mirrored = truth.flow(_footage(start), _footage(end))[0]
  np.testing.assert_allclose(mirrored[::-1] * [1, -1], plain, atol=1e-4)


def test_what_passes_behind_the_camera_has_no_flow():
  gone = _frame()
  gone['position'] = gone['position'] + np.float32([0, 0, 2 * DEPTH])
  flow = truth.flow(_footage(_frame()), _footage(gone))[0]
  np.testing.assert_array_equal(flow[21, 12], 0)


def test_mask_is_what_can_move_or_everything():
  mask = truth.mask(_footage(_frame(), _frame(covered=True)))
  assert mask[ROWS, COLUMNS].all() and mask.sum() == 15
  assert truth.mask(_footage(_frame(covered=True), _frame())).all()


def test_points_are_followed_out_of_sight_and_back():
  footage = _footage(
    _frame(),
    _frame(box=(0.125, 0)),
    _frame(covered=True),
    _frame(box=(9, 0)),
    _frame(),
  )
  points = np.float32([[12.25, 20.75], [3, 4], [3, 30]])  # box, sky, floor
  tracks, seen = truth.follow(footage, points)
  np.testing.assert_allclose(tracks[:, 1:], points[1:] + np.zeros([5, 2, 2]))
  assert seen[:, 1:].all()
  np.testing.assert_allclose(tracks[:3, 0, 0], [12.25, 13.25, 12.25], atol=1e-5)
  assert tracks[3, 0, 0] > SIZE
  assert seen[:, 0].tolist() == [True, True, False, False, True]


def test_the_back_of_a_thing_is_hidden_by_its_front():
  behind = _frame()
  behind['position'] = behind['position'] - np.float32([0, 0, 1])
  point = np.float32([[12, 21]])
  # The image still shows the box where it was, a meter before the point.
  footage = _footage(_frame(), behind)
  tracks, seen = truth.follow(footage, point)
  assert np.linalg.norm(tracks[1] - point) < 3
  assert seen[:, 0].tolist() == [True, False]


def test_the_tracker_keeps_what_is_lost_and_steps_as_it_follows():
  boxes = [(0, 0), (0.5, 0), (9, 0), (0.25, 0)]
  footage = _footage(*(_frame(box=box) for box in boxes))
  # In the second frame the point is where the image shows the floor.
  footage.scene['geom'][1] = BOX
  footage.scene['depth'][1] = DEPTH
  tracker, points = truth.Tracker(), np.float32([[12, 21]])
  tracks, visible = tracker.over_clip(footage)(points)
  assert tracks.dtype == np.float32
  # Out of the image in the third, it stays where it was (A12).
  np.testing.assert_allclose(tracks[:, 0, 0], [12, 16, 16, 14], atol=1e-5)
  assert visible[:, 0].tolist() == [True, True, False, False]
  states = tracker.begin(footage[:1], points[None])
  for t in range(1, 4):
    states, moved, found = tracker.step(states, footage[t : t + 1])
    np.testing.assert_array_equal(moved, tracks[t : t + 1])
    assert found.tolist() == [[t != 2]]


def test_a_video_alone_is_refused():
  video = schema.Footage(np.zeros((2, SIZE, SIZE, 3), np.uint8))
  with pytest.raises(ValueError, match=r"config\.extract\.flow='sim' needs"):
    truth.flow(video[:1], video[1:])
  with pytest.raises(ValueError, match=r'config\.extract\.mask'):
    truth.mask(video)
  with pytest.raises(ValueError, match=r'config\.extract\.tracker'):
    truth.Tracker().over_clip(video)


def test_load_reads_the_scene_beside_a_video(tmp_path):
  path = tmp_path / 'metaworld_drawer-open_0001.mp4'
  assert truth.load(path) is None
  scene = _footage(_frame(), _frame()).scene
  np.savez_compressed(
    tmp_path / 'metaworld_drawer-open_0001.scene.npz', **scene
  )
  loaded = truth.load(path)
  assert loaded.keys() == scene.keys()
  for name, array in scene.items():
    np.testing.assert_array_equal(loaded[name], array)


def test_a_scene_with_objects_is_not_run(tmp_path):
  """A pickle in a file from a stranger could run code."""
  np.savez(tmp_path / 'a.scene.npz', geom=np.array([{}], dtype=object))
  with pytest.raises(ValueError, match='allow_pickle'):
    truth.load(tmp_path / 'a.mp4')


def test_a_scene_is_beside_the_video_or_beside_what_its_link_leads_to(tmp_path):
  for folder in ('far', 'here'):
    (tmp_path / folder).mkdir()
  np.savez(tmp_path / 'far' / 'a.scene.npz', focal=1.0)
  (tmp_path / 'far' / 'a.mp4').touch()
  link = tmp_path / 'here' / 'b.mp4'
  link.symlink_to('../far/a.mp4')
  assert truth.load(tmp_path / 'far' / 'a.mp4')['focal'] == 1
  assert truth.load(link)['focal'] == 1
  np.savez(tmp_path / 'here' / 'b.scene.npz', focal=2.0)
  assert truth.load(link)['focal'] == 2
  assert truth.load(tmp_path / 'far' / 'c.mp4') is None
  os.mkfifo(tmp_path / 'far' / 'd.scene.npz')  # is not waited for
  assert truth.load(tmp_path / 'far' / 'd.mp4') is None
