"""Environments whose episodes can be written down by hand.

Workers import this file, so it imports neither JAX nor a simulator.
"""

import ctypes
import os
import pathlib
import signal
import time

import gymnasium
import numpy as np

_PATIENCE = 600.0  # seconds, however busy the machine is


class March(gymnasium.Env):
  """A texture that moves a pixel to the right at every step.

  Step t is rewarded with t, and is a success if t is 2. `picture` tells what an
  episode begins with; `seeds` and `actions`, what was asked for.
  """

  def __init__(self, length, terminates=False):
    self.action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    self.observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    self._length, self._terminates = length, terminates
    self.seeds, self.actions = [], []

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed, options=options)
    self._picture, self._time = picture(seed), 0
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

  def scene(self):
    return {'time': np.int32(self._time)}


class Echo(March):
  """Rewards with the sum of the action."""

  def step(self, action):
    image, _, terminated, truncated, info = super().step(action)
    return image, float(action.sum()), terminated, truncated, info


class Uneven(March):
  """The length of an episode depends on its seed."""

  def __init__(self):
    super().__init__(None)

  def reset(self, *, seed=None, options=None):
    self._length = uneven_length(seed)
    return super().reset(seed=seed, options=options)


class Fragile(gymnasium.Wrapper):
  """Fails at a step of those episodes whose seeds are named.

  How: 'raise' an exception, reward with 'nan', show a 'float' image or a
  'small' one, or 'die' by SIGKILL.
  """

  def __init__(self, env, failures, at_step):
    super().__init__(env)
    self._failures, self._at_step = failures, at_step

  def reset(self, *, seed=None, options=None):
    self._how, self._count = self._failures.get(seed), 0
    return self.env.reset(seed=seed, options=options)

  def step(self, action):
    self._count += 1
    image, reward, *others = self.env.step(action)
    if self._count == self._at_step and self._how == 'die':
      os.kill(os.getpid(), signal.SIGKILL)
    if self._count == self._at_step and self._how == 'raise':
      raise RuntimeError('the physics is bad')
    if self._count == self._at_step and self._how == 'nan':
      reward = float('nan')
    if self._count == self._at_step and self._how == 'float':
      image = np.full((64, 64, 3), np.nan, np.float32)
    if self._count == self._at_step and self._how == 'small':
      image = image[::2, ::2]
    return image, reward, *others


class Hanging(gymnasium.Wrapper):
  """Hangs for ever in those episodes whose seeds are named.

  How: 'sleep', 'loop' in Python, or 'lock', in C code that never lets another
  thread of Python run. Before that it may send SIGTERM to its parent, and to
  itself as what ends a job does.
  """

  def __init__(self, env, hangs, at_step, tell=False):
    """At step 0, `reset` hangs."""
    super().__init__(env)
    self._hangs, self._at_step, self._tell = hangs, at_step, tell

  def reset(self, *, seed=None, options=None):
    self._how, self._count = self._hangs.get(seed), 0
    self._hang_if_due()
    return self.env.reset(seed=seed, options=options)

  def step(self, action):
    self._count += 1
    self._hang_if_due()
    return self.env.step(action)

  def _hang_if_due(self):
    if self._how and self._count == self._at_step:
      if self._tell:
        for pid in os.getppid(), os.getpid():
          os.kill(pid, signal.SIGTERM)
      hang(self._how)


class Endless(March):
  """Has no end of its own, and counts steps in the reward."""

  def __init__(self):
    super().__init__(None)


class Waiting(March):
  """Steps only when a file is there."""

  def __init__(self, file):
    super().__init__(2)
    self._file = pathlib.Path(file)

  def step(self, action):
    end = time.monotonic() + _PATIENCE
    while not self._file.exists():
      if time.monotonic() > end:
        raise RuntimeError('nobody made the file')
      time.sleep(0.01)
    return super().step(action)


class Gray(March):
  """Observes what agents here cannot."""

  def __init__(self):
    super().__init__(2)
    self.observation_space = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)


class Wide(March):
  """Acts by what agents here do not."""

  def __init__(self):
    super().__init__(2)
    self.action_space = gymnasium.spaces.Box(-2, 2, (2,), np.float32)


class Buttons(March):
  """Acts by choosing one of three."""

  def __init__(self):
    super().__init__(2)
    self.action_space = gymnasium.spaces.Discrete(3)


def hang(how):
  """Never returns; see `Hanging`."""
  while True:
    if how == 'sleep':
      time.sleep(1000)
    if how == 'lock':  # PyDLL keeps the lock of the interpreter
      ctypes.PyDLL(None).sleep(1000)


def uneven_length(seed):
  """The length of an episode of `Uneven`: 1, 2, 3 or 4."""
  return 1 + seed % 4


def picture(seed):
  """The first image of a `March` with this seed, [64, 64, 3] uint8."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
