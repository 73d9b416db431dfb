"""Tests of the flags that several commands share."""

import os
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_COMMANDS = ('inspect_shards', 'show_actions', 'show_attention')


def _run(command, *args):
  return subprocess.run(
    [sys.executable, '-m', f'experiments.{command}', *args],
    cwd=_ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.parametrize('command', [*_COMMANDS, 'show_predictions'])
def test_help_lists_them_with_those_of_the_command(command):
  text = _run(command, '--help').stdout
  for name in ('shards_dir', 'split', 'clips', 'out'):
    assert f'\n  --{name}: ' in text
  assert '<train|validation>' in text


def test_what_is_missing_or_wrong_is_named():
  done = _run('inspect_shards', '--out=nowhere')
  assert done.returncode != 0 and '--shards_dir' in done.stderr
  done = _run('inspect_shards', '--out=a', '--shards_dir=b', '--split=test')
  assert done.returncode != 0 and '--split=test' in done.stderr
