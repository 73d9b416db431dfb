"""The benchmark of acting, on an environment that costs nothing."""

import functools

import marching
import numpy as np
import pytest

from benchmarks import acting
from drp_jax.envs import driver


@pytest.fixture(scope='module')
def measured():
  config = acting.config_of('dmcr', 'debug', 30)
  config.env.num_envs = 2
  make_env = functools.partial(marching.March, 30)
  return config, *acting.act(config, lambda: driver.Driver(make_env, 2))


def test_steps_per_second_fit_the_time_of_their_parts(measured):
  """Two environments: both take a step in about the sum of the medians."""
  _, speed, frames = measured
  assert frames.shape == (31, 64, 64, 3)
  parts = [speed[part] for part in acting.PARTS]
  assert min(parts) > 0
  assert 0 < speed['steps_per_second'] <= 2.5 * 1e3 / sum(parts)
  assert speed['worker_mb'] > 10


def test_the_overhead_is_that_of_steps_after_the_first(measured):
  config, _, frames = measured
  overhead = acting.extraction_overhead(config, frames)
  assert 0 < overhead['cpu'] <= overhead['cpu_max']
  assert overhead['cpu_mean'] <= overhead['cpu_max']
  assert overhead['wall'] > 0.5 * overhead['cpu']


def test_tables_hold_every_number():
  speed = {'steps_per_second': 12.34, 'worker_mb': 210.0}
  speed |= dict(zip(acting.PARTS, (1.0, 2.0, 3.0), strict=True))
  overhead = {'wall': 9.0, 'cpu': 8.0, 'cpu_mean': 8.5, 'cpu_max': 60.0}
  results = {
    suite: {'acting': {1: speed, 2: speed}, 'extraction': overhead}
    for suite in ('dmcr', 'metaworld')
  }
  text = acting.table(results)
  assert text.count('| 12.3 | 1.0 | 2.0 | 3.0 | 210 |') == 4
  assert text.count('| 9.0 | 8.0 | 8.5 | 60.0 |') == 2
  assert np.all([f'| {suite}, 2 |' in text for suite in results])
