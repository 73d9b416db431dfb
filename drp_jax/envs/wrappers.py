"""Wrappers between an agent and an environment."""

from typing import Any

import gymnasium
import numpy as np


class ActionRepeat(gymnasium.Wrapper):
  """Applies every action to `repeat` control steps and sums their rewards.

  This holds in every episode, not only in the first. The steps stop early if
  the episode ends. `success` is true if it was true at any of the steps. Only
  the last step is rendered, so `env` needs `advance`, which all environments of
  this folder have.
  """

  def __init__(self, env: Any, repeat: int):
    """Wraps `env`; raises ValueError unless `repeat` is positive."""
    super().__init__(env)
    if repeat < 1:
      raise ValueError(f'config.env.action_repeat is 1 or more, not {repeat}.')
    self._repeat = repeat

  def step(
    self, action: np.ndarray
  ) -> tuple[np.ndarray, float, bool, bool, dict]:
    """Takes one agent step; see `gymnasium.Env.step`."""
    advance = self.env.get_wrapper_attr('advance')
    total, success = 0.0, False
    terminated, truncated, info = False, False, {}
    for _ in range(self._repeat):
      reward, terminated, truncated, info = advance(action)
      total += reward
      success = success or info['success']
      if terminated or truncated:
        break
    info = {**info, 'success': success}
    image: Any = self.env.render()
    return image, total, terminated, truncated, info
