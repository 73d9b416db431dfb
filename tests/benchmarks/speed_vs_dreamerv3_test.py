"""What is read of the logs of both, and the commands; neither is run here."""

import json

import pytest

from benchmarks import speed_vs_dreamerv3 as speed


def test_speeds_are_read_while_a_line_is_being_written(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  assert speed.speeds(path, 'fps/policy') == []
  rows = [{'step': 1}, {'fps/policy': 2.5}, {'fps/policy': 3.0}]
  path.write_text('\n'.join(map(json.dumps, rows)) + '\n{"fps/pol')
  assert speed.speeds(path, 'fps/policy') == [2.5, 3.0]


def test_both_train_as_often_on_as_much(tmp_path):
  command = speed.theirs(tmp_path, 'DIR', 'python3')
  ratio = float(command[command.index('--run.train_ratio') + 1])
  assert ratio * 4 == speed.BATCH * speed.LENGTH  # an update every 4 steps
  assert '--config.finetune.train_every=4' in speed.ours(tmp_path)


def test_a_command_that_ends_says_its_last_words(tmp_path):
  command = ['python3', '-c', 'print("no such task")']
  with pytest.raises(RuntimeError, match='theirs: .*no such task'):
    speed.measure('theirs', command, tmp_path / 'run', 1)


def test_table():
  text = speed.table({'ours': [4.0, 6.0, 5.0], 'theirs': [2.0, 2.0, 3.0]})
  assert '| ours | 5.00 | 4.00 to 6.00 |' in text
  assert text.endswith('| ratio | 2.50 | |')
