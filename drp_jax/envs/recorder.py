"""Records the actions and joint velocities of a simulated body."""

from typing import Any, SupportsFloat

import gymnasium
import numpy as np

from drp_jax import recordings


class Recorder(gymnasium.Wrapper):
  """Wrapper that records the actions and joint velocities of an episode.

  The wrapped environment has `simulation` and `body`, like all environments of
  this folder. An entry belongs to the frame in which its step ends.
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
    """Returns the actions and velocities that led to this episode's frames."""
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
    [V] float32 in the order of `qvel`: m/s for slides, rad/s for hinges; for a
    free joint m/s in the world and rad/s in the body's frame.
  """
  import mujoco  # after the choice of OpenGL

  velocity = np.zeros(model.nv)
  mujoco.mj_differentiatePos(model, velocity, seconds, before, after)
  return velocity.astype(np.float32)
