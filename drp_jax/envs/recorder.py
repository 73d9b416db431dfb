"""What leads a simulated body from frame to frame."""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from drp_jax import recordings


class Recorder(gymnasium.Wrapper):
  """Notes the actions of an episode and how the joints moved.

  The environment under it has `simulation` and `body`, as those of this folder
  do. An entry belongs to the frame that a step ends in.
  """

  def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict]:
    """Starts an episode and forgets the last one; see `gymnasium.Env.reset`."""
    result = self.env.reset(**kwargs)
    # After the reset, which may load another model.
    self._model, self._data = self.get_wrapper_attr('simulation')
    assert self.action_space.shape is not None
    nowhere = np.zeros(self.action_space.shape, np.float32)
    self._actions = [nowhere]
    self._velocities = [np.zeros(self._model.nv, np.float32)]
    return result

  def step(
    self, action: np.ndarray
  ) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict]:
    """Takes one step; see `gymnasium.Env.step`."""
    pose, time = self._data.qpos.copy(), self._data.time
    result = self.env.step(action)
    self._actions.append(np.clip(action, -1, 1).astype(np.float32))
    self._velocities.append(
      joint_velocity(self._model, pose, self._data.qpos, self._data.time - time)
    )
    return result

  def recording(self) -> recordings.Recording:
    """Returns what led to the frames of this episode so far."""
    return recordings.Recording(
      np.stack(self._actions),
      np.stack(self._velocities),
      self.get_wrapper_attr('body'),
    )


def joint_velocity(
  model: Any, before: np.ndarray, after: np.ndarray, seconds: float
) -> np.ndarray:
  """Computes the mean velocity of all degrees of freedom between two poses.

  Args:
    model: `mujoco.MjModel`.
    before: [nq] float64, a pose (`qpos`).
    after: [nq] float64, the pose after `seconds`.
    seconds: above 0.

  Returns:
    [V] float32 in the order of `qvel`: m/s of slides, rad/s of hinges; of a
    free joint m/s in the world and rad/s in the body's own frame.
  """
  import mujoco  # after the choice of OpenGL

  velocity = np.zeros(model.nv)
  mujoco.mj_differentiatePos(model, velocity, seconds, before, after)
  return velocity.astype(np.float32)
