"""Two processes take steps in turns; here, both of this checkout."""

import pathlib

import pytest

from benchmarks import speed_vs_commit as speed

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize('stage', speed.STAGES)
def test_both_sides_take_steps(stage):
  row = speed.measure(str(_ROOT), stage, 'debug', 'drp', None, turns=2)
  assert len(row['ratios']) == 2
  assert all(seconds > 0 for seconds in row['seconds'].values())
  held = row['temporaries_gib']
  assert held['before'] == held['now'] > 0


def test_table_of_ratios_turn_by_turn():
  row = dict(
    stage='pretrain',
    preset='nano',
    agent='drp',
    batch_size=None,
    seconds=dict(before=0.6, now=0.4),
    temporaries_gib=dict(before=0.36, now=0.3),
    ratio=1.5,
    ratios=[1.25, 1.5, 1.75],
  )
  *_, line = speed.table([row]).splitlines()
  assert line == (
    '| pretrain, nano drp | 0.600, 0.400 | 1.50 | 1.25 to 1.75 | 0.36, 0.30 |'
  )
