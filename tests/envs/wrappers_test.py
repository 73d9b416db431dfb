"""Tests of the wrappers."""

import gymnasium
import numpy as np
import pytest

from drp_jax.envs import dmc, wrappers


class Counter(gymnasium.Env):
  """Rewards 1, 2, 3, ...; success at step 3 only; ends after 5."""

  def __init__(self):
    self.num_renders = 0

  def reset(self, *, seed=None, options=None):
    super().reset(seed=seed, options=options)
    self.t = 0
    return self.render(), {'success': False}

  def advance(self, action):
    del action
    self.t += 1
    return float(self.t), False, self.t == 5, {'success': self.t == 3}

  def render(self):
    self.num_renders += 1
    return self.t if hasattr(self, 't') else 0


def test_sums_rewards_and_stops_at_the_end_in_every_episode():
  env = wrappers.ActionRepeat(Counter(), 2)
  for _ in range(2):
    env.reset()
    steps = [env.step(0) for _ in range(3)]
    assert [step[0] for step in steps] == [2, 4, 5]
    assert [step[1] for step in steps] == [3, 7, 5]
    assert [step[3] for step in steps] == [False, False, True]
    assert [step[4]['success'] for step in steps] == [False, True, False]


def test_renders_once_per_agent_step():
  counter = Counter()
  env = wrappers.ActionRepeat(counter, 4)
  env.reset()
  env.step(0)
  assert counter.num_renders == 2


def test_equals_single_steps_of_a_real_task():
  plain = dmc.DMC('cartpole_swingup', draw=False)
  repeated = wrappers.ActionRepeat(dmc.DMC('cartpole_swingup', draw=False), 2)
  plain.reset(seed=1)
  repeated.reset(seed=1)
  for action in np.random.default_rng(0).uniform(-1, 1, [10, 1]):
    single = plain.step(action)[1] + plain.step(action)[1]
    assert repeated.step(action)[1] == single


def test_repeat_is_positive():
  with pytest.raises(ValueError, match='action_repeat'):
    wrappers.ActionRepeat(Counter(), 0)
