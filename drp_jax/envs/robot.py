"""Defines what the simulated robots of this folder share."""

from typing import Any

import gymnasium
import numpy as np

IMAGE_SIZE = 64  # [Table 5]
_IMAGE_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)


class Robot(gymnasium.Env):
  """A robot that is seen through a camera.

  Observation: uint8 [64, 64, 3] RGB. Action: float32 [A] in [-1, 1].
  `info['success']` tells of the present step. `reset(seed)` makes the episode a
  function of the seed; without a seed the task's generator runs on.

  Wrappers that repeat actions call `advance` and `render` apart, since an image
  costs far more than a control step.

  A suite implements `_begin`, `_take` and `_image`.
  """

  metadata = {'render_modes': ['rgb_array']}
  render_mode = 'rgb_array'

  def __init__(self, action_size: int, draw: bool):
    """Sets the spaces; if `draw` is false, all images are zeros."""
    self.action_space = gymnasium.spaces.Box(-1, 1, (action_size,), np.float32)
    self.observation_space = gymnasium.spaces.Box(
      0, 255, _IMAGE_SHAPE, np.uint8
    )
    self._draw = draw
    self._over = True

  def reset(
    self, *, seed: int | None = None, options: dict | None = None
  ) -> tuple[np.ndarray, dict]:
    """Starts an episode; see `gymnasium.Env.reset`."""
    super().reset(seed=seed, options=options)
    self._begin(seed)
    self._over = False
    return self.render(), {'success': False}

  def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
    """Takes one control step without rendering.

    Args:
      action: float [A]; what lies outside [-1, 1] is clipped.

    Returns:
      reward, terminated, truncated, info, as `step` gives them.

    Raises:
      RuntimeError: the episode is over, or none was started; or the simulation
        has diverged.
    """
    if self._over:
      raise RuntimeError('The episode is over: call reset().')
    self._over = True  # unless the step is taken
    action = np.clip(np.asarray(action, np.float64), -1, 1)
    reward, terminated, truncated, success = self._take(action)
    self._over = bool(terminated or truncated)
    info = {'success': bool(success)}
    return float(reward), bool(terminated), bool(truncated), info

  def step(
    self, action: np.ndarray
  ) -> tuple[np.ndarray, float, bool, bool, dict]:
    """Takes one control step; see `gymnasium.Env.step`."""
    reward, terminated, truncated, info = self.advance(action)
    return self.render(), reward, terminated, truncated, info

  def render(self) -> np.ndarray:
    """Returns the present image, uint8 [64, 64, 3]; zeros unless `draw`."""
    return self._image() if self._draw else np.zeros(_IMAGE_SHAPE, np.uint8)

  def _begin(self, seed: int | None) -> None:
    """Begins an episode of the suite."""
    raise NotImplementedError

  def _take(self, action: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """Takes a step with `action` [A] float64 in [-1, 1].

    Returns:
      reward, terminated, truncated, success.
    """
    raise NotImplementedError

  def _image(self) -> np.ndarray:
    """Draws the present image, uint8 [64, 64, 3]."""
    raise NotImplementedError
