"""What is measured of memory; the debug preset, compiled once."""

import json

import jax
import numpy as np
import pytest

from benchmarks import memory, steps


@pytest.mark.slow
def test_the_plan_of_a_step_holds_its_state_and_more():
  row = memory.measure_in_process('pretrain', 'debug', False, True)
  state = steps.make_step('pretrain', 'float32', 'debug').state
  nbytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
  np.testing.assert_allclose(row['state_gib'], nbytes / 2**30)
  frames = np.prod(row['batch']) * 64 * 64 * 3
  assert row['step_gib'] > frames / 2**30
  assert row['rss_gib'] is None and row['batch'] == [4, 25]


def test_table_of_what_was_measured_and_of_what_was_only_compiled():
  row = dict(
    stage='dmcr',
    preset='nano',
    remat=False,
    batch=[6, 16],
    state_gib=0.1,
    step_gib=1.234,
    rss_gib=2.0,
    step_seconds=0.5,
  )
  compiled = row | dict(remat=True, rss_gib=None, step_seconds=None)
  lines = memory.table([row, compiled]).splitlines()
  assert lines[2] == '| dmcr, nano | 6 x 16 | 0.10 | 1.23 | 2.00 | 0.50 |'
  assert lines[3] == '| dmcr, nano, remat | 6 x 16 | 0.10 | 1.23 | - | - |'
  json.dumps([row, compiled], allow_nan=False)
