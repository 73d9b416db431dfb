"""Cameras and lights of a compiled model are moved.

The compiler turns a position in a body's frame into several numbers, of which
the simulation reads one or another by what the camera or light tracks. Writing
`cam_pos` alone moves none that tracks. MuJoCo's own `mj_setConst` computes the
others too, but also the model's extent, and forgets its <statistic>.
"""

import dataclasses
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Mount:
  """A body in the model's reference pose, for cameras and lights upon it.

  Those that track keep their place and direction of that pose: relative to the
  body's origin, or to the center of mass of it and of all that hangs on it.

  Attributes:
    position: [3] meters, of the body's origin in the world.
    rotation: [3, 3], columns are the body's axes in the world.
    center: [3] meters, of mass.
  """

  position: np.ndarray
  rotation: np.ndarray
  center: np.ndarray


def find(model: Any, body: int) -> Mount:
  """Finds where a body of a `mujoco.MjModel` is in the reference pose."""
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
    model: `mujoco.MjModel`, written to.
    camera: its index.
    mount: of the camera's body.
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
