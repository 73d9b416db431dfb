"""What is recorded of a frame, against MuJoCo's own and known geometry."""

import numpy as np
import pytest

from drp_jax.envs import gl, scene

SIZE = 32
XML = """
<mujoco>
  <visual><map znear="0.1" zfar="100"/></visual>
  <statistic extent="1"/>
  <worldbody>
    <camera name="other" pos="0 0 9"/>
    <camera name="front" pos="0 -3 1" xyaxes="1 0 0 0 0 1" fovy="90"/>
    <geom name="wall" type="box" pos="0 2 0" size="9 .5 1.3"/>
    <body name="ball" pos="0.5 0 1">
      <freejoint/>
      <geom name="ball" type="sphere" size="0.5"/>
      <site name="patch" type="box" pos="0 -0.5 0" size="0.2 0.1 0.2"/>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope='module')
def physics():
  gl.select_backend()
  from dm_control import mujoco

  physics = mujoco.Physics.from_xml_string(XML)
  yield physics
  physics.free()


@pytest.fixture(scope='module')
def frame(physics):
  return scene.of_physics(physics, 1, SIZE)()


def test_geoms_and_sites_are_where_they_are_seen(frame):
  geom = frame['geom']
  middle = SIZE // 2
  assert geom[0, 0] == -1  # above the wall
  assert geom[middle, 2] == 0
  # A meter is SIZE / 2 / 3 = 5.3 pixels at the ball's center, half a meter to
  # the right; its site is before it.
  assert geom[middle, middle + 3] == 2
  ball = np.argwhere(geom == 1)
  np.testing.assert_allclose(ball.mean(axis=0), [15.5, 18.2], atol=0.5)


def test_depth_is_meters_along_the_axis(frame):
  depth, middle = frame['depth'], SIZE // 2
  assert depth.dtype == np.float32
  np.testing.assert_array_equal(depth[frame['geom'] == -1], 0)
  # A wall across the view: one depth, whatever the angle.
  np.testing.assert_allclose(depth[frame['geom'] == 0], 4.5, rtol=1e-4)
  np.testing.assert_allclose(depth[middle, middle + 3], 2.4, rtol=1e-4)


def test_depth_agrees_with_segments_at_edges(frame):
  """With multisampling an edge would get the depth of the other side."""
  assert frame['depth'][frame['geom'] == 1].max() <= 3.01


def test_poses_and_what_moves(frame):
  np.testing.assert_allclose(
    frame['position'], [[0, 2, 0], [0.5, 0, 1], [0.5, -0.5, 1]]
  )
  np.testing.assert_allclose(frame['rotation'], [np.eye(3)] * 3)
  assert frame['moves'].tolist() == [False, True, True]
  np.testing.assert_allclose(frame['camera_position'], [0, -3, 1])
  np.testing.assert_allclose(
    frame['camera_rotation'], [[1, 0, 0], [0, 0, -1], [0, 1, 0]], atol=1e-6
  )
  np.testing.assert_allclose(frame['focal'], SIZE / 2)


def test_recording_leaves_images_as_they_are(physics):
  before = physics.render(SIZE, SIZE, camera_id=1)
  scene.of_physics(physics, 1, SIZE)()
  np.testing.assert_array_equal(physics.render(SIZE, SIZE, camera_id=1), before)


def test_records_are_of_their_moment(physics):
  record = scene.of_physics(physics, 1, SIZE)
  first = record()
  with physics.reset_context():
    physics.data.qpos[0] = -0.5
  second = record()
  assert first['position'][1, 0] == 0.5
  assert second['position'][1, 0] == -0.5
  assert (first['geom'] != second['geom']).any()


def test_upside_down_is_the_mirror_image(physics):
  model, data = physics.model.ptr, physics.data.ptr

  def draw(upside_down):
    view = scene.View(model, data, 1, SIZE, upside_down)
    with physics.contexts.gl.make_current() as gl_context:
      context = physics.contexts.mujoco.ptr
      return (
        gl_context.call(view.image, context),
        gl_context.call(view.record, context),
      )

  image, frame = draw(False)
  mirrored_image, mirrored = draw(True)
  np.testing.assert_array_equal(image, physics.render(SIZE, SIZE, camera_id=1))
  np.testing.assert_array_equal(mirrored_image[::-1], image)
  np.testing.assert_array_equal(mirrored['geom'][::-1], frame['geom'])
  np.testing.assert_array_equal(mirrored['depth'][::-1], frame['depth'])
  up = frame['camera_rotation'] * [1, -1, 1]
  np.testing.assert_array_equal(mirrored['camera_rotation'], up)
