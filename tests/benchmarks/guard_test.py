"""The guard is timed against steps that have none."""

import pytest

from benchmarks import guard


def test_table():
  row = {
    'stage': 'pretrain',
    'preset': 'nano',
    'guarded': 0.51,
    'bare': 0.5,
    'ratio': [1.02, 0.9, 1.1],
  }
  text = guard.table([row])
  assert text.endswith('| pretrain, nano | 510 | 500 | 1.020 | 0.90 to 1.10 |')


@pytest.mark.slow
def test_both_steps_run():
  found = guard.measure('pretrain', 'debug', 2)
  assert found['guarded'] > 0 and found['bare'] > 0
  assert found['ratio'][1] <= found['ratio'][0] <= found['ratio'][2]
