"""The scene of a frame in a simulator, for exact flow, masks and tracks.

A visible point of a rigid body keeps its coordinates in that body's frame. The
distance and the geom of every pixel, with the poses of all geoms and of the
camera, therefore determine where every visible point is in any other frame.

One frame is a dict of arrays, where G is the number of geoms and sites:

  geom             [H, W] int16, index into the arrays below; -1 if there is
                   neither geom nor site: the sky, and what is not rigid
  depth            [H, W] float32, meters along the optical axis; 0 where geom
                   is -1. Compressed, a frame takes 0.8 to 3 kB. float16 would
                   save 40 % and move the walker's flow by up to 0.02 pixels
  position         [G, 3] float32, meters, in the world
  rotation         [G, 3, 3] float32, columns are the axes in the world
  moves            [G] bool, false if it is fixed to the world
  camera_position  [3] float32
  camera_rotation  [3, 3] float32; columns are right, up, backwards, in a
                   mirrored image as well
  focal            [] float32, pixels
"""

from collections.abc import Callable
from typing import Any

import numpy as np

Record = Callable[[], dict[str, np.ndarray]]


class View:
  """A fixed camera of a model, rendered with MuJoCo's functions.

  Its methods render into a context that the caller has made current.
  """

  def __init__(
    self, model: Any, data: Any, camera: int, size: int, upside_down: bool
  ):
    """Prepares to render a camera.

    Args:
      model: `mujoco.MjModel`.
      data: `mujoco.MjData`; its state at the time of rendering is drawn.
      camera: index of the camera in the model.
      size: side of the images in pixels.
      upside_down: whether rows run from the bottom to the top, which mirrors
        the image.
    """
    import mujoco  # after the choice of OpenGL

    self._mujoco = mujoco
    self._model, self._data, self._index = model, data, camera
    self._upside_down = upside_down
    self._rect = mujoco.MjrRect(0, 0, size, size)
    self._options = mujoco.MjvOption()
    self._scene = mujoco.MjvScene(model, maxgeom=1000)
    self._camera = mujoco.MjvCamera()
    self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
    self._camera.fixedcamid = camera

  def image(self, context: Any) -> np.ndarray:
    """Draws the image, [H, W, 3] uint8 RGB, into a `mujoco.MjrContext`."""
    return self._draw(context, segments=False)[0]

  def record(self, context: Any) -> dict[str, np.ndarray]:
    """Renders depth and segments; returns a frame as described above."""
    # Both from one rendering without multisampling. A separate depth image
    # disagrees with the segments at a tenth of the walker's pixels.
    colors, depth = self._draw(context, segments=True)
    geom = self._geom_of_color()[colors.astype(int) @ [1, 2**8, 2**16]]
    model, data = self._model, self._data
    bodies = np.concatenate([model.geom_bodyid, model.site_bodyid])
    camera_rotation = data.cam_xmat[self._index].reshape(3, 3).copy()
    if self._upside_down:
      camera_rotation[:, 1] *= -1
    half_angle = np.radians(model.cam_fovy[self._index]) / 2
    rotation = np.concatenate([data.geom_xmat, data.site_xmat])
    return {
      'geom': geom,
      'depth': np.where(geom < 0, 0, depth).astype(np.float32),
      'position': np.asarray(
        np.concatenate([data.geom_xpos, data.site_xpos]), np.float32
      ),
      'rotation': rotation.reshape(-1, 3, 3).astype(np.float32),
      'moves': model.body_weldid[bodies] != 0,
      'camera_position': np.array(data.cam_xpos[self._index], np.float32),
      'camera_rotation': np.array(camera_rotation, np.float32),
      'focal': np.array(self._rect.height / 2 / np.tan(half_angle), np.float32),
    }

  def _draw(
    self, context: Any, segments: bool
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns colors [H, W, 3] uint8 and depth [H, W] float, meters."""
    mujoco, scene = self._mujoco, self._scene
    scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = segments
    scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = segments
    mujoco.mjv_updateScene(
      self._model,
      self._data,
      self._options,
      None,
      self._camera,
      mujoco.mjtCatBit.mjCAT_ALL.value,
      scene,
    )
    height, width = self._rect.height, self._rect.width
    colors = np.empty((height, width, 3), np.uint8)
    buffer = np.empty((height, width), np.float32)
    mujoco.mjr_render(self._rect, scene, context)
    mujoco.mjr_readPixels(colors, buffer, self._rect, context)
    if not self._upside_down:  # OpenGL's first row is the lowest
      colors, buffer = colors[::-1], buffer[::-1]
    # The buffer is 0 at the near plane and 1 at the far one.
    planes, extent = self._model.vis.map, self._model.stat.extent
    near, ratio = planes.znear * extent, planes.znear / planes.zfar
    return colors, near / (1 - buffer.astype(np.float64) * (1 - ratio))

  def _geom_of_color(self) -> np.ndarray:
    """Maps colors of segments to geoms or, after all geoms, sites; int16."""
    kinds = self._mujoco.mjtObj
    first = {kinds.mjOBJ_GEOM: 0, kinds.mjOBJ_SITE: self._model.ngeom}
    out = np.full(self._scene.ngeom + 1, -1, np.int16)
    for drawn in self._scene.geoms[: self._scene.ngeom]:
      if drawn.segid >= 0 and drawn.objtype in first:
        out[drawn.segid + 1] = first[drawn.objtype] + drawn.objid
    return out


def of_physics(physics: Any, camera: int, size: int) -> Record:
  """Makes a function that records a frame of a dm_control `Physics`.

  Args:
    physics: rendered in its OpenGL context, with any look.
    camera: index of the camera in the model.
    size: side of the images in pixels.

  Returns:
    `record()`.
  """
  model, data = physics.model.ptr, physics.data.ptr
  view = View(model, data, camera, size, upside_down=False)

  def record() -> dict[str, np.ndarray]:
    with physics.contexts.gl.make_current() as gl_context:
      return gl_context.call(view.record, physics.contexts.mujoco.ptr)

  return record
