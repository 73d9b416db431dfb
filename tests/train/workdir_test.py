"""The folder of a run: its lock, and what is written before the first step."""

import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from configs import base, finetune_metaworld
from drp_jax.train import build, workdir

_ROOT = pathlib.Path(__file__).parents[2]


def test_the_resolved_config_is_recorded(tmp_path):
  config = base.get_config('debug')
  config.optim.lr = 0.125
  folder = tmp_path / 'runs' / 'first'
  workdir.begin(folder, config)
  recorded = json.loads((folder / 'config.json').read_text())
  assert recorded == json.loads(json.dumps(config.to_dict()))
  assert recorded['optim']['lr'] == 0.125
  assert sorted(os.listdir(folder)) == ['config.json', 'run.json']


def test_a_resumed_run_records_its_own_settings(tmp_path):
  config = base.get_config('debug')
  workdir.begin(tmp_path, config)
  config.finetune.num_steps += 1
  workdir.begin(str(tmp_path), config)
  recorded = json.loads((tmp_path / 'config.json').read_text())
  assert recorded['finetune']['num_steps'] == config.finetune.num_steps


def test_what_the_run_runs_on(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # the commit is the code's, not the folder's
  workdir.begin(tmp_path, base.get_config('debug'))
  run = json.loads((tmp_path / 'run.json').read_text())
  assert run == workdir.describe()
  assert run['jax'] == jax.__version__
  assert (run['platform'], run['devices']) == ('cpu', 4)
  assert run['cpu_cores'] >= 1
  known = (_ROOT / '.git').exists() and shutil.which('git') is not None
  assert (run['commit'] != 'unknown') == known


def test_a_machine_without_git_does_not_know_the_commit(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path))
  assert workdir.describe()['commit'] == 'unknown'


def test_the_commit_of_code_outside_a_repository(tmp_path, monkeypatch):
  monkeypatch.setattr(workdir, '__file__', str(tmp_path / 'a' / 'b' / 'c.py'))
  assert workdir.describe()['commit'] == 'unknown'


_HOLDER = """
import sys, time
from drp_jax.train import workdir
with workdir.locked(sys.argv[1]):
  print('in', flush=True)
  time.sleep(600)
"""


def test_one_process_at_a_time(tmp_path):
  """A lock ends with its process, however that ends; copies have none."""
  holder = subprocess.Popen(
    [sys.executable, '-c', _HOLDER, tmp_path / 'run'],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert holder.stdout.readline() == 'in\n'
    with pytest.raises(
      RuntimeError, match=f"run' is in use by process {holder.pid} on .*: two"
    ):
      with workdir.locked(tmp_path / 'run'):
        pass
    shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
    with workdir.locked(tmp_path / 'copy'):
      pass
  finally:
    holder.kill()
    holder.wait()
  with workdir.locked(tmp_path / 'run'):
    pass
  with workdir.locked(tmp_path / 'run'):
    pass


@pytest.mark.parametrize('folder', ['file/run', '/sys/run'])
def test_a_folder_that_cannot_be_written_to(tmp_path, folder):
  (tmp_path / 'file').touch()
  with pytest.raises(RuntimeError, match='run. cannot be written to: '):
    with workdir.locked(tmp_path / folder):
      pass


def test_a_disk_that_is_full_later_on(tmp_path):
  """Other errors are left as they are."""
  with pytest.raises(RuntimeError, match='No space left.*the same command'):
    with workdir.locked(tmp_path):
      raise OSError(errno.ENOSPC, 'No space left on device')
  with pytest.raises(RuntimeError, match='Read-only.*metrics.jsonl'):
    with workdir.locked(tmp_path):
      path = str(tmp_path / 'metrics.jsonl')
      raise OSError(errno.EROFS, 'Read-only file system', path)
  with pytest.raises(FileNotFoundError):
    with workdir.locked(tmp_path):
      open(tmp_path / 'nothing')
  with pytest.raises(PermissionError):
    with workdir.locked(tmp_path):
      raise PermissionError(errno.EACCES, 'Permission denied', '/elsewhere')


def test_a_config_of_an_older_run_means_what_it_meant(tmp_path):
  """It lacks the key that names the tasks without erasing."""
  config = finetune_metaworld.get_config('debug')
  config.agent, config.task = 'ipv', 'drawer-open'
  old = json.loads(config.to_json())
  del old['image']['no_erasing_in']
  (tmp_path / 'config.json').write_text(json.dumps(old))
  found = workdir.read_config(tmp_path)
  assert not build.system(found, 4, None).model.context_erasing
  assert json.loads(found.to_json()) == json.loads(config.to_json())
  # A value that was chosen stays.
  old['image']['no_erasing_in'] = []
  (tmp_path / 'config.json').write_text(json.dumps(old))
  found = workdir.read_config(tmp_path)
  assert build.system(found, 4, None).model.context_erasing
