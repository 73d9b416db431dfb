"""The folder of a run: its lock, and what is written before the first step."""

import errno
import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest

from configs import base, finetune_metaworld, preprocess
from drp_jax.runs import lock, settings, workdir
from drp_jax.systems import registry

_ROOT = pathlib.Path(__file__).parents[2]


def _start(folder, config, step=None, **other):
  """A start of a run: compares, then records."""
  arguments = {'stage': 'pretrain', 'inputs': {}, **other}
  start = workdir.compare(folder, config, step=step, **arguments)
  start.record(folder)


def _files(folder):
  return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_resolved_config_is_recorded(tmp_path):
  config = base.get_config('debug')
  config.optim.lr = 0.125
  folder = tmp_path / 'runs' / 'first'
  _start(folder, config)
  recorded = json.loads((folder / 'config.json').read_text())
  assert recorded == json.loads(json.dumps(config.to_dict()))
  assert recorded['optim']['lr'] == 0.125
  assert sorted(os.listdir(folder)) == [
    'config.json',
    'inputs.json',
    'run.json',
  ]


def test_until_the_first_checkpoint_any_settings_will_do(tmp_path):
  """A start that failed, for a wrong setting say, binds nobody."""
  config = base.get_config('debug')
  _start(tmp_path, config)
  config.task = 'walker_stand'
  _start(tmp_path, config, stage='finetune')
  assert workdir.read_config(tmp_path).task == 'walker_stand'
  assert json.loads((tmp_path / 'run.json').read_text())['stage'] == 'finetune'


# Every setting of a run, by what may become of it.
_KEYS = sorted(settings.flat(base.get_config('debug')))
_COMMITTED = [
  k for k in _KEYS if k not in (*settings.MAY_CHANGE, *settings.CHECKOUTS)
]


def _changed(key):
  """The config with another value of `key`, and that value."""
  config = base.get_config('debug')
  *sections, name = key.split('.')
  section = config
  for part in sections:
    section = section[part]
  value = section[name]
  match value:
    case bool():
      new = not value
    case int() | float():
      new = value + 1
    case str():
      new = value + 'x'
    case tuple():
      new = (*value, 'x')
    case None:
      new = ('sky',)
  with section.ignore_type():
    section[name] = new
  return config, json.loads(json.dumps(value)), json.loads(json.dumps(new))


@pytest.mark.parametrize('key', _COMMITTED)
def test_any_other_setting_is_refused_and_nothing_is_written(tmp_path, key):
  _start(tmp_path, base.get_config('debug'))
  before = _files(tmp_path)
  config, old, new = _changed(key)
  with pytest.raises(ValueError) as error:
    workdir.compare(tmp_path, config, 'pretrain', 8, {})
  assert f'config.{key} {old!r} -> {new!r}. Choose' in str(error.value)
  assert f'{str(tmp_path)!r} was begun with other settings' in str(error.value)
  assert 'another --workdir' in str(error.value)
  assert 'recorded in its config.json' in str(error.value)
  assert _files(tmp_path) == before


@pytest.mark.parametrize('key', [k for k in _KEYS if k in settings.MAY_CHANGE])
def test_a_permitted_change_is_recorded_with_its_step(tmp_path, key):
  _start(tmp_path, base.get_config('debug'))
  before = (tmp_path / 'config.json').read_bytes()
  config, old, new = _changed(key)
  _start(tmp_path, config, step=8)
  assert (tmp_path / 'config.json').read_bytes() == before
  expected = {'step': 8, 'key': f'config.{key}', 'old': old, 'new': new}
  assert workdir.read_changes(tmp_path) == [expected]
  assert settings.flat(workdir.read_config(tmp_path)) == settings.flat(config)
  _start(tmp_path, config, step=9)  # the same again: no other line
  assert workdir.read_changes(tmp_path) == [expected]
  _start(tmp_path, base.get_config('debug'), step=9)  # and back
  assert workdir.read_changes(tmp_path)[1:] == [
    {'step': 9, 'key': f'config.{key}', 'old': new, 'new': old}
  ]


def test_what_may_change_is_there_to_be_changed():
  """The list names settings that exist, and none twice."""
  known = {*_KEYS, *settings.flat(preprocess.get_config())}
  assert set(settings.MAY_CHANGE) <= known
  assert set(settings.PLACES) <= known
  assert len(set(settings.MAY_CHANGE)) == len(settings.MAY_CHANGE)
  assert not set(settings.MAY_CHANGE) & set(settings.PLACES)


def test_all_differences_are_named(tmp_path):
  config = base.get_config('debug')
  _start(tmp_path, config)
  config.task, config.seed, config.remat = 'walker_stand', 7, True
  with pytest.raises(ValueError) as error:
    workdir.compare(tmp_path, config, 'pretrain', 8, {})
  text = "config.seed 0 -> 7; config.task 'walker_run' -> 'walker_stand'. "
  assert f': {text}' in str(error.value)
  other = base.get_config('paper')
  with pytest.raises(ValueError, match=r'; and \d+ more\. Choose'):
    workdir.compare(tmp_path, other, 'pretrain', 8, {})


def test_another_stage_is_refused(tmp_path):
  config = base.get_config('debug')
  _start(tmp_path, config)
  with pytest.raises(ValueError, match=r'another stage \(pretrain\)'):
    workdir.compare(tmp_path, config, 'finetune', 8, {})


def test_a_setting_that_the_workdir_does_not_know_has_its_default(tmp_path):
  config = base.get_config('debug')
  _start(tmp_path, config)
  path = tmp_path / 'config.json'
  old = json.loads(path.read_text())
  del old['behavior']['lam'], old['diswm'], old['remat']
  old['behavior']['no_longer'] = 1  # a setting that is gone
  path.write_text(json.dumps(old))
  defaults = base.get_config('debug')
  _start(tmp_path, config, step=4, defaults=defaults)
  config.behavior.lam = 0.5
  with pytest.raises(ValueError, match=r'config\.behavior\.lam 0\.95 -> 0\.5'):
    workdir.compare(tmp_path, config, 'pretrain', 4, {}, defaults)
  config.behavior.lam, config.remat = 0.95, True
  _start(tmp_path, config, step=4, defaults=defaults)
  assert workdir.read_config(tmp_path).remat is True


def test_a_workdir_of_before_resumes(tmp_path):
  """It has no inputs.json, and its run.json no stage."""
  config = base.get_config('debug')
  (tmp_path / 'config.json').write_text(config.to_json())
  (tmp_path / 'run.json').write_text(json.dumps({'jax': '0.1'}))
  _start(tmp_path, config, step=4, inputs={'init_from': {'step': 1}})
  assert json.loads((tmp_path / 'run.json').read_text()) == {'jax': '0.1'}
  recorded = json.loads((tmp_path / 'inputs.json').read_text())
  assert recorded == {'init_from': {'step': 1}}
  (first, *_) = workdir.read_changes(tmp_path)
  assert first['key'].startswith('run.')
  config.seed = 1
  with pytest.raises(ValueError, match=r'config\.seed 0 -> 1'):
    workdir.compare(tmp_path, config, 'finetune', 4, {})


def test_another_machine_is_recorded(tmp_path, monkeypatch):
  config = base.get_config('debug')
  _start(tmp_path, config)
  monkeypatch.setattr(jax, 'device_count', lambda: 64)
  for _ in range(2):
    _start(tmp_path, config, step=4)
  assert workdir.read_changes(tmp_path) == [
    {'step': 4, 'key': 'run.devices', 'old': 4, 'new': 64}
  ]
  assert json.loads((tmp_path / 'run.json').read_text())['devices'] == 4


_SHARDS = {'num_clips': {'train': 9}, 'flow_scale': 1.5}


def test_inputs_may_move_but_not_become_others(tmp_path):
  config = base.get_config('debug')
  config.data.shards_dir = 'here'
  _start(tmp_path, config, inputs={'data.shards_dir': _SHARDS})
  other = {**_SHARDS, 'flow_scale': 2.5}
  with pytest.raises(
    ValueError, match=r'config\.data\.shards_dir: flow_scale 1\.5 -> 2\.5'
  ):
    workdir.compare(tmp_path, config, 'pretrain', 8, {'data.shards_dir': other})
  config.data.shards_dir = 'there'
  with pytest.raises(ValueError, match=r"shards_dir 'here' -> 'there'"):
    workdir.compare(tmp_path, config, 'pretrain', 8, {'data.shards_dir': other})
  with pytest.raises(ValueError, match=r"shards_dir 'here' -> 'there'"):
    workdir.compare(tmp_path, config, 'pretrain', 8, {})
  _start(tmp_path, config, step=8, inputs={'data.shards_dir': _SHARDS})
  assert workdir.read_config(tmp_path).data.shards_dir == 'there'


def test_a_pre_training_that_went_on_is_the_same_place(tmp_path):
  """What was loaded of it lies in the run's own checkpoint."""
  config = base.get_config('debug')
  config.init_from = 'runs/pretrain'
  begun, later = {'step': 4, 'sha256': 'a'}, {'step': 8, 'sha256': 'b'}
  _start(tmp_path, config, stage='finetune', inputs={'init_from': begun})
  _start(
    tmp_path, config, step=3, stage='finetune', inputs={'init_from': later}
  )
  assert json.loads((tmp_path / 'inputs.json').read_text()) == {
    'init_from': begun
  }
  config.init_from = 'runs/other'
  with pytest.raises(ValueError, match='init_from'):
    workdir.compare(tmp_path, config, 'finetune', 3, {'init_from': later})
  _start(
    tmp_path, config, step=3, stage='finetune', inputs={'init_from': begun}
  )


@pytest.mark.parametrize('name', ['config.json', 'run.json', 'inputs.json'])
@pytest.mark.parametrize('content', [b'{"a": \xff}', b'{', b'[]'])
def test_a_damaged_record_is_an_error_that_names_it(tmp_path, name, content):
  config = base.get_config('debug')
  _start(tmp_path, config)
  (tmp_path / name).write_bytes(content)
  with pytest.raises(
    ValueError, match=f'{name}. is damaged: .*Put back a copy'
  ):
    workdir.compare(tmp_path, config, 'pretrain', 8, {})
  (tmp_path / name).unlink()
  _start(tmp_path, config, step=8)
  assert (tmp_path / name).exists()


def test_a_checkpoint_without_settings_takes_those_of_the_command(
  tmp_path, caplog
):
  _start(tmp_path, base.get_config('debug'), step=8)
  assert 'holds a checkpoint but no config.json' in caplog.text
  assert workdir.read_config(tmp_path).preset == 'debug'


def test_what_the_run_runs_on(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)  # the commit is the code's, not the folder's
  _start(tmp_path, base.get_config('debug'))
  run = json.loads((tmp_path / 'run.json').read_text())
  assert run == {'stage': 'pretrain', **workdir.describe()}
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
from drp_jax.runs import workdir
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
    with (
      pytest.raises(
        RuntimeError, match=f"run' is in use by process {holder.pid} on .*: two"
      ),
      workdir.locked(tmp_path / 'run'),
    ):
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


_NO_FLOCK = [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP]
_HOLDER_WITHOUT_FLOCK = (
  """
import fcntl, os
def refuse(*_):
  raise OSError({code}, os.strerror({code}))
fcntl.flock = refuse
"""
  + _HOLDER
)


@pytest.fixture(params=_NO_FLOCK, ids=lambda code: errno.errorcode[code])
def without_flock(request, monkeypatch):
  """A file system without flock; its error."""

  def refuse(*_):
    raise OSError(request.param, os.strerror(request.param))

  monkeypatch.setattr(fcntl, 'flock', refuse)
  return request.param


def _hold(folder, code):
  holder = subprocess.Popen(
    [sys.executable, '-c', _HOLDER_WITHOUT_FLOCK.format(code=code), folder],
    cwd=_ROOT,
    stdout=subprocess.PIPE,
    text=True,
  )
  assert holder.stdout.readline() == 'in\n'
  return holder


def _enter(folder):
  with workdir.locked(folder):
    pass


def test_a_file_system_without_flock(tmp_path, without_flock, caplog):
  """A file keeps others out, until its process ends, however it does."""
  run = tmp_path / 'run'
  holder = _hold(run, without_flock)
  try:
    with pytest.raises(
      RuntimeError, match=f"run' is in use by process {holder.pid} on .*: two"
    ):
      _enter(run)
    shutil.copytree(run, tmp_path / 'copy')
    _enter(tmp_path / 'copy')
  finally:
    holder.kill()
    holder.wait()
  assert (run / lock.OWNER_FILE).exists()  # it was killed
  caplog.clear()
  with workdir.locked(run):
    assert (run / lock.OWNER_FILE).exists()
    with pytest.raises(RuntimeError, match=f'in use by process {os.getpid()} '):
      _enter(run)
  assert not (run / lock.OWNER_FILE).exists()
  said = [r for r in caplog.records if 'has no flock' in r.message]
  assert len(said) == 1 and lock.OWNER_FILE in said[0].message


@pytest.mark.parametrize('name', ['host', 'machine'])
def test_a_lock_of_another_machine_says_what_to_do(
  tmp_path, without_flock, name
):
  del without_flock
  with workdir.locked(tmp_path):
    path = tmp_path / lock.OWNER_FILE
    content = path.read_text()
  path.touch()
  owner = {**json.loads(content), 'inode': path.stat().st_ino, name: 'other'}
  path.write_text(json.dumps(owner))
  with pytest.raises(
    RuntimeError, match=f'in use by process {os.getpid()} on .*delete .*owner'
  ):
    _enter(tmp_path)
  assert json.loads(path.read_text()) == owner
  path.unlink()
  _enter(tmp_path)


def test_a_process_of_the_same_number_is_another(tmp_path, without_flock):
  """After a while the system gives the number of a dead process again."""
  del without_flock
  with workdir.locked(tmp_path):
    path = tmp_path / lock.OWNER_FILE
    content = path.read_text()
  path.touch()
  owner = json.loads(content)
  owner |= {'started': owner['started'] - 1, 'inode': path.stat().st_ino}
  path.write_text(json.dumps(owner))
  _enter(tmp_path)


@pytest.mark.parametrize('content', ['', '{', '[]', '{"pid": 1}'])
def test_a_lock_file_that_says_nothing(tmp_path, without_flock, content):
  del without_flock
  (tmp_path / lock.OWNER_FILE).write_text(content)
  with pytest.raises(RuntimeError, match='not which one.*delete that file'):
    _enter(tmp_path)


def test_other_errors_of_the_lock_are_not_hidden(tmp_path, monkeypatch):
  def refuse(*_):
    raise OSError(errno.EBADF, os.strerror(errno.EBADF))

  monkeypatch.setattr(fcntl, 'flock', refuse)
  with pytest.raises(OSError, match='descriptor'):
    _enter(tmp_path)


@pytest.mark.parametrize('folder', ['file/run', '/sys/run'])
def test_a_folder_that_cannot_be_written_to(tmp_path, folder):
  (tmp_path / 'file').touch()
  with (
    pytest.raises(RuntimeError, match='run. cannot be written to: '),
    workdir.locked(tmp_path / folder),
  ):
    pass


def test_a_disk_that_is_full_later_on(tmp_path):
  """Other errors are left as they are."""
  with (
    pytest.raises(RuntimeError, match='No space left.*the same command'),
    workdir.locked(tmp_path),
  ):
    raise OSError(errno.ENOSPC, 'No space left on device')
  with (
    pytest.raises(RuntimeError, match='Read-only.*metrics.jsonl'),
    workdir.locked(tmp_path),
  ):
    path = str(tmp_path / 'metrics.jsonl')
    raise OSError(errno.EROFS, 'Read-only file system', path)
  with pytest.raises(FileNotFoundError), workdir.locked(tmp_path):
    (tmp_path / 'nothing').read_bytes()
  with pytest.raises(PermissionError), workdir.locked(tmp_path):
    raise PermissionError(errno.EACCES, 'Permission denied', '/elsewhere')


def test_a_config_of_an_older_run_means_what_it_meant(tmp_path):
  """It lacks the key that names the tasks without erasing."""
  config = finetune_metaworld.get_config('debug')
  config.agent, config.task = 'ipv', 'drawer-open'
  old = json.loads(config.to_json())
  del old['image']['no_erasing_in']
  (tmp_path / 'config.json').write_text(json.dumps(old))
  found = workdir.read_config(tmp_path)
  assert not registry.build(found, 4, None).system.model.context_erasing
  assert json.loads(found.to_json()) == json.loads(config.to_json())
  # A value that was chosen stays.
  old['image']['no_erasing_in'] = []
  (tmp_path / 'config.json').write_text(json.dumps(old))
  found = workdir.read_config(tmp_path)
  assert registry.build(found, 4, None).system.model.context_erasing
