"""An environment whose episodes can be written down by hand."""

import gymnasium
import numpy as np
import pytest


class March(gymnasium.Env):
  """A texture that moves a pixel to the right at every step.

  Step t is rewarded with t, and is a success if t is 2. `seeds` and `actions`
  tell what was asked for.
  """

  def __init__(self, length, terminates=False):
    self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    self._length, self._terminates = length, terminates
    self.seeds, self.actions = [], []

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed, options=options)
    blocks = self.np_random.integers(0, 256, (8, 8, 3), np.uint8)
    self._picture = blocks.repeat(8, 0).repeat(8, 1)
    self._time = 0
    self.seeds.append(seed)
    return self.render(), {'success': False}

  def step(self, action):
    self.actions.append(action)
    self._time += 1
    over = self._time == self._length
    return (
      self.render(),
      float(self._time),
      over and self._terminates,
      over and not self._terminates,
      {'success': self._time == 2},
    )

  def render(self):
    return np.roll(self._picture, self._time, 1)


@pytest.fixture(scope='session')
def march():
  """Makes an environment: `march(length, terminates=False)`."""
  return March
