"""Tests of DreamerV3's returns and of their range."""

import jax
import numpy as np

from drp_jax.systems.dreamerv3 import returns


def test_lambda_return_by_hand():
  """What arrives counts: 1 + 0.5 (0.5 * 9 + 0.5 * (2 + 0.25 * 4)) = 4."""
  reward = np.array([7.0, 1.0, 2.0], np.float32)
  value = np.array([8.0, 9.0, 4.0], np.float32)
  live = np.array([0.3, 0.5, 0.25], np.float32)
  ret = returns.lambda_return(reward, value, live, 0.5)
  np.testing.assert_allclose(ret, [4.0, 3.0])


def test_nothing_is_returned_from_beyond_the_end_of_an_episode():
  rng = np.random.default_rng(0)
  reward, value = rng.normal(size=(2, 6, 3)).astype(np.float32)
  live = np.full((6, 3), 0.9, np.float32)
  live[3] = 0.0
  ret = returns.lambda_return(reward, value, live, 0.95)
  reward[4:], value[3:] = 100.0, 100.0
  late = returns.lambda_return(reward, value, live, 0.95)
  np.testing.assert_array_equal(late[:3], ret[:3])
  assert np.all(late[3:] != ret[3:])


def test_the_range_follows_percentiles():
  seen = np.arange(101.0, dtype=np.float32)[np.newaxis]
  old = {'low': np.float32(1.0), 'high': np.float32(-2.0)}
  new = returns.follow(old, seen, 0.1, None)
  np.testing.assert_allclose(new['low'], 0.9 * 1.0 + 0.1 * 5.0, rtol=1e-6)
  np.testing.assert_allclose(new['high'], 0.9 * -2.0 + 0.1 * 95.0, rtol=1e-6)


def test_returns_of_all_devices_count():
  seen = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
  old = returns.initial_range()
  one = returns.follow(old, seen, 0.5, None)
  four = jax.vmap(lambda x: returns.follow(old, x, 0.5, 'i'), axis_name='i')(
    seen
  )
  for name, x in one.items():
    np.testing.assert_allclose(four[name], np.full(4, x), rtol=1e-6)


def test_the_last_step_of_an_episode_has_its_value_alone():
  """By hand: 1 + 0.5 * 9 = 5.5, whatever the next episode is worth."""
  reward = np.array([7.0, 1.0, 2.0, 3.0], np.float32)
  value = np.array([8.0, 9.0, 4.0, 6.0], np.float32)
  live = np.full(4, 0.5, np.float32)
  last = np.array([False, True, False, False])
  ret = returns.lambda_return(reward, value, live, 0.5, last)
  np.testing.assert_allclose(ret[::2], [5.5, 6.0])
  none = returns.lambda_return(reward, value, live, 0.5, last & False)
  plain = returns.lambda_return(reward, value, live, 0.5)
  np.testing.assert_array_equal(none, plain)
