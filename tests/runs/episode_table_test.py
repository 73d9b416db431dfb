"""The record of evaluation episodes, and what a kill does to it."""

import numpy as np
import pytest

from drp_jax.runs import episode_table


def _rows(step, count=2):
  return [
    {
      'step': step,
      'env_step': 2 * step,
      'episode': i,
      'seed': 100 + i,
      'return': 0.1 * (i + 1) * step,
      'success': i % 2,
      'length': 500,
    }
    for i in range(count)
  ]


@pytest.fixture
def folder(tmp_path):
  """After evaluations at steps 10, 20 and 30."""
  episode_table.resume(tmp_path, -1)
  for step in (10, 20, 30):
    episode_table.append(tmp_path, _rows(step))
  return tmp_path


def _steps(folder):
  return [int(row['step']) for row in episode_table.read(folder)]


def test_rows_are_read_as_they_were_written(folder):
  text = (folder / episode_table.FILE).read_text()
  assert text.startswith(
    'step,env_step,episode,seed,return,success,length\n10,20,0,100,1.0,0,500\n'
  )
  rows = episode_table.read(folder)
  assert _steps(folder) == [10, 10, 20, 20, 30, 30]
  # Not a digit is lost.
  returns = [float(row['return']) for row in rows]
  expected = [row['return'] for step in (10, 20, 30) for row in _rows(step)]
  np.testing.assert_array_equal(returns, expected)


def test_a_restarted_run_drops_what_it_will_repeat(folder):
  episode_table.resume(folder, 20)
  assert _steps(folder) == [10, 10, 20, 20]
  episode_table.append(folder, _rows(30, count=1))
  assert _steps(folder) == [10, 10, 20, 20, 30]
  episode_table.resume(folder, -1)
  assert _steps(folder) == []
  assert len((folder / episode_table.FILE).read_text().splitlines()) == 1


def test_a_torn_row_is_left_out(folder):
  path = folder / episode_table.FILE
  whole = path.read_bytes()
  path.write_bytes(whole[:-3])
  assert _steps(folder) == [10, 10, 20, 20, 30]
  episode_table.resume(folder, 30)
  episode_table.append(folder, _rows(40))
  assert _steps(folder) == [10, 10, 20, 20, 30, 40, 40]


def test_a_bit_that_flips_costs_a_row_and_no_run(folder, caplog):
  path = folder / episode_table.FILE
  whole = path.read_bytes()
  start = whole.index(b'\n') + 1
  for index in range(start, len(whole) - 1):
    flipped = bytearray(whole)
    flipped[index] ^= 1 << index % 8
    path.write_bytes(flipped)
    caplog.clear()
    rows = episode_table.read(folder)
    assert len(rows) == 6 or 'eval.csv, line ' in caplog.text
    episode_table.resume(folder, 30)
    kept = path.read_bytes()
    # Rows of a later evaluation alone are dropped.
    assert kept == flipped or len(rows) == 6


def test_a_damaged_row_keeps_its_bytes(folder, caplog):
  path = folder / episode_table.FILE
  path.write_bytes(path.read_bytes().replace(b'20,40,1', b'20,4\xb0,1'))
  episode_table.resume(folder, 20)
  assert b'20,4\xb0,1' in path.read_bytes()
  assert _steps(folder) == [10, 10, 20]
  assert 'eval.csv, line 5 is damaged and left out' in caplog.text


def test_a_row_has_no_other_columns(folder):
  with pytest.raises(ValueError, match='hours'):
    episode_table.append(folder, [{**_rows(40)[0], 'hours': 1}])
