"""Moves cameras and lights of a compiled model.

The compiler turns a position in a body's frame into several numbers. Which of
them the simulation reads depends on what the camera or light tracks, so writing
`cam_pos` alone does not move a camera that tracks. MuJoCo's `mj_setConst`
computes the others too, but it also recomputes the model's extent and loses its
<statistic>.
"""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mount:
  """A body in the model's reference pose, for cameras and lights on it.

  Cameras and lights that track keep their position and direction of that pose,
  relative to the body's origin or to the center of mass of the body's subtree.

  Attributes:
    position: [3] meters, the body's origin in the world.
    rotation: [3, 3], columns are the body's axes in the world.
    center: [3] meters, the center of mass.
  """

  position: np.ndarray
  rotation: np.ndarray
  center: np.ndarray


def find(model: Any, body: int) -> Mount:
  """Computes the reference pose of a body of a `mujoco.MjModel`."""
  import mujoco  # after the choice of OpenGL

  data = mujoco.MjData(model)
  mujoco.mj_kinematics(model, data)
  mujoco.mj_comPos(model, data)
  return Mount(
    position=data.xpos[body].copy(),
    rotation=data.xmat[body].reshape(3, 3).copy(),
    center=data.subtree_com[body].copy(),
  )


def place_camera(
  model: Any,
  camera: int,
  mount: Mount,
  position: np.ndarray,
  euler: np.ndarray | None,
):
  """Moves a camera that does not aim at another body.

  Args:
    model: `mujoco.MjModel`, modified in place.
    camera: index of the camera.
    mount: mount of the camera's body.
    position: [3] meters in the body's frame.
    euler: [3] degrees about the camera's own x, y and z in turn; None keeps
      its direction.
  """
  import mujoco

  offset = mount.rotation @ position
  model.cam_pos[camera] = position
  model.cam_pos0[camera] = offset
  model.cam_poscom0[camera] = mount.position + offset - mount.center
  if euler is not None:
    quaternion, matrix = np.empty(4), np.empty(9)
    mujoco.mju_euler2Quat(quaternion, np.radians(euler), 'xyz')
    mujoco.mju_quat2Mat(matrix, quaternion)
    model.cam_quat[camera] = quaternion
    model.cam_mat0[camera] = (mount.rotation @ matrix.reshape(3, 3)).ravel()


def place_light(model: Any, light: int, mount: Mount, position: np.ndarray):
  """Moves a light; see `place_camera`."""
  offset = mount.rotation @ position
  model.light_pos[light] = position
  model.light_pos0[light] = offset
  model.light_poscom0[light] = mount.position + offset - mount.center
