"""The benchmark of environments on a small one, and its table."""

import dataclasses
import json

import pytest

from benchmarks import envs

SUBJECT = envs.Subject('dmcr', 'cartpole_swingup', 256, 32)


@pytest.fixture(scope='module')
def row():
  measured = envs.measure(SUBJECT, repeats=3, new_repeats=1)
  return {**dataclasses.asdict(SUBJECT), **measured}


def test_all_columns_are_measured_in_milliseconds(row):
  for name in envs.COLUMNS:
    assert set(row[name]) == {'wall', 'cpu'}
    assert 0 < row[name]['wall'] < 60_000
  json.dumps(row, allow_nan=False)


def test_median_of_what_was_taken():
  taken = []
  assert envs._timed(lambda: sum(range(100_000)), taken) == 4_999_950_000
  assert 1e-5 < taken[0]['wall'] < 1


def test_table_names_what_was_measured(row):
  plain = {**row, 'suite': 'metaworld', 'task': 'reach'}
  head, _, first, second = envs.table([row, plain]).splitlines()
  assert first.startswith('| dmcr cartpole_swingup | 256 | 32 | ')
  assert second.startswith('| metaworld reach | 256 | - | ')
  assert head.count('|') == first.count('|') == second.count('|')


def test_all_subjects_differ():
  assert len(set(envs.SUBJECTS)) == len(envs.SUBJECTS)
