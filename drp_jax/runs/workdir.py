"""The folder of a run: its lock, and what it says about the run.

`config.json` holds the settings and `run.json` the commit, versions and devices
that the run was begun with, `inputs.json` what it read from elsewhere. They are
rewritten until the first checkpoint, since nothing that is kept was made with
them. From then on a start with other settings is refused, except for what
`drp_jax/runs/settings.py` permits; each permitted change is a line of
`changes.jsonl`.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import ml_collections

from drp_jax import files
from drp_jax.runs import lock, settings

CHANGES_FILE = 'changes.jsonl'

_log = logging.getLogger(__name__)

# What a full, protected or broken disk answers with.
_DISK_ERRORS = (
  errno.ENOSPC,
  errno.EDQUOT,
  errno.EFBIG,
  errno.EROFS,
  errno.EACCES,
  errno.EPERM,
  errno.ENOTDIR,
  errno.EIO,
)


@contextlib.contextmanager
def locked(workdir: str | pathlib.Path) -> Iterator[None]:
  """Makes the folder and keeps other processes out of it.

  A process that dies, however it does, leaves no lock behind that would keep
  out the next one on its machine; see `drp_jax/runs/lock.py`.

  Args:
    workdir: of the run; also the folder of a build of shards.

  Raises:
    RuntimeError: if a process is in it, naming that, or if the folder or what
      is in it cannot be written; also for a disk that is full later on.
  """
  folder = pathlib.Path(workdir)
  with _writable(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with lock.held(folder):
      yield


@contextlib.contextmanager
def _writable(folder: pathlib.Path) -> Iterator[None]:
  """Says what to do about a disk that is full, or not to be written to."""
  try:
    yield
  except OSError as error:
    name = os.fspath(error.filename or folder)
    inside = os.path.abspath(name).startswith(os.path.abspath(folder))
    if not inside or error.errno not in _DISK_ERRORS:
      raise
    raise RuntimeError(
      f'{str(folder)!r} cannot be written to: {error.strerror}'
      f' ({name!r}). What was saved is whole: once there is space, or the'
      ' folder may be written to, the same command goes on.'
    ) from error


@dataclasses.dataclass(frozen=True)
class Start:
  """A start of a run that was compared with the ones before it.

  Attributes:
    config: settings of this start, as JSON.
    run: `describe` and the stage.
    inputs: content of what is read from elsewhere, see `inputs.contents`.
    step: of the newest checkpoint; None if there is none.
    changes: permitted changes since the last start, key to old and new value.
  """

  config: Mapping[str, Any]
  run: Mapping[str, Any]
  inputs: Mapping[str, Any]
  step: int | None
  changes: Mapping[str, tuple[Any, Any]]

  def record(self, workdir: str | pathlib.Path) -> None:
    """Writes down what is new, before anything else is written.

    Args:
      workdir: of the run, or of this process (`parallel.own_folder`).
    """
    folder = pathlib.Path(workdir)
    if self.step is None:
      (folder / CHANGES_FILE).unlink(missing_ok=True)
    for name, value in (
      ('config.json', self.config),
      ('run.json', self.run),
      ('inputs.json', self.inputs),
    ):
      path = folder / name
      if self.step is None or not path.exists():
        files.write_json(path, value)
    if self.changes:
      path = folder / CHANGES_FILE
      lines = path.read_bytes() if path.exists() else b''
      for key, (old, new) in sorted(self.changes.items()):
        line = {'step': self.step, 'key': key, 'old': old, 'new': new}
        lines += json.dumps(line).encode() + b'\n'
      files.write(path, lines)


def compare(
  workdir: str | pathlib.Path,
  config: ml_collections.ConfigDict,
  stage: str,
  step: int | None,
  inputs: Mapping[str, Any],
  defaults: ml_collections.ConfigDict | None = None,
) -> Start:
  """Compares a start with what its folder was begun with; writes nothing.

  Args:
    workdir: of the run.
    config: settings of this start.
    stage: 'pretrain' or 'finetune'.
    step: of the newest checkpoint; None for a run that has none yet, and so may
      be begun with other settings.
    inputs: from `inputs.contents`.
    defaults: values of settings that the folder does not record because they
      are newer than it is. Without them, those settings are not compared.

  Returns:
    What `Start.record` writes.

  Raises:
    ValueError: if a setting or an input differs that must not, naming it; or if
      a record is damaged.
  """
  folder = pathlib.Path(workdir)
  run = {'stage': stage, **describe()}
  start = Start(json.loads(config.to_json()), run, inputs, step, {})
  if step is None:
    return start
  if not (folder / 'config.json').exists():
    _log.warning(
      '%r holds a checkpoint but no config.json: it is taken for a run with the'
      ' settings of this command.',
      str(folder),
    )
    return start
  began_with = _read(folder / 'run.json')
  if began_with.get('stage', stage) != stage:
    raise ValueError(
      f'{str(folder)!r} is the workdir of another stage'
      f' ({began_with["stage"]}). Choose another --workdir.'
    )
  changed = settings.differences(
    settings.flat(read_config(folder)),
    settings.flat(config),
    settings.flat(defaults) if defaults else {},
  )
  free, others = _same_inputs(_read(folder / 'inputs.json'), inputs, changed)
  settings.refuse(
    str(folder),
    {**settings.without(changed, (*settings.MAY_CHANGE, *free)), **others},
    '--workdir',
  )
  facts = settings.differences(_facts(folder, began_with), run, {})
  return dataclasses.replace(
    start,
    changes={
      **{f'config.{key}': pair for key, pair in changed.items()},
      **{f'run.{key}': pair for key, pair in facts.items()},
    },
  )


# Settings that configs of older runs lack, and what held before there was one.
_SINCE = {
  'image.local_start': False,
  'image.no_erasing_in': ('drawer-open',),
  'behavior.continuation': False,
  'loss.continuation': 1.0,
}


def read_config(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
  """Reads the settings of a run's newest start.

  What is newer than the run is as it was without it.

  Raises:
    ValueError: if there is no `config.json`, or it is damaged.
  """
  path = pathlib.Path(workdir) / 'config.json'
  if not path.is_file():
    raise ValueError(
      f'{str(workdir)!r} is no workdir of a run: it holds no config.json.'
    )
  config = _read(path)
  for change in read_changes(workdir):
    scope, *sections, name = change['key'].split('.')
    if scope == 'config':
      section = config
      for part in sections:
        section = section.setdefault(part, {})
      section[name] = change['new']
  for key, value in _SINCE.items():
    section, _, name = key.rpartition('.')
    config.get(section, {}).setdefault(name, value)
  return ml_collections.ConfigDict(config)


def read_changes(workdir: str | pathlib.Path) -> list[dict[str, Any]]:
  """Reads the permitted changes since a run was begun.

  Returns:
    'step' of the checkpoint it was resumed from, 'key' ('config.remat', or
    'run.devices'), 'old' and 'new' value, in the order of time.

  Raises:
    ValueError: if the file is damaged.
  """
  path = pathlib.Path(workdir) / CHANGES_FILE
  lines = path.read_bytes().splitlines() if path.exists() else []
  try:
    changes = [json.loads(line) for line in lines]
    return [
      {name: change[name] for name in ('step', 'key', 'old', 'new')}
      for change in changes
    ]
  except (ValueError, KeyError, TypeError) as error:
    raise _damaged(
      ValueError(f'{str(path)!r} is damaged: {error!r}.')
    ) from error


def _same_inputs(
  old: Mapping[str, Any],
  new: Mapping[str, Any],
  changed: Mapping[str, tuple[Any, Any]],
) -> tuple[list[str], dict[str, tuple[Any, Any]]]:
  """Compares inputs by content.

  Returns:
    Keys whose path is free to change, since the content is the same; and what
    differs in content, as of settings.
  """
  free, others = list(settings.CHECKOUTS), {}
  for key in sorted(old.keys() & new.keys()):
    if old[key] == new[key]:
      free.append(key)
    elif key == 'init_from' and key not in changed:
      # That pre-training went on. What was loaded lies in our own checkpoint.
      continue
    elif isinstance(old[key], dict):
      pairs = settings.differences(old[key], new[key], {})
      others |= {f'{key}: {name}': pair for name, pair in pairs.items()}
    else:
      others[f'{key}: sha256'] = old[key], new[key]
  return free, others


def _facts(
  folder: pathlib.Path, began_with: Mapping[str, Any]
) -> dict[str, Any]:
  """What the newest start ran on: `run.json` and the changes since."""
  changes = read_changes(folder)
  return {
    **began_with,
    **{
      change['key'].removeprefix('run.'): change['new']
      for change in changes
      if change['key'].startswith('run.')
    },
  }


def _read(path: pathlib.Path) -> dict[str, Any]:
  """Reads a record; an empty one if there is none."""
  if not path.exists():
    return {}
  try:
    return files.read_json(path)
  except ValueError as error:
    raise _damaged(error) from error


def _damaged(error: ValueError) -> ValueError:
  return ValueError(
    f'{error} Put back a copy; or delete the file, and the run is resumed with'
    ' the settings of the command, whatever they are.'
  )


def describe() -> dict[str, Any]:
  """Commit, versions and hardware, for results."""
  root = pathlib.Path(__file__).parents[2]
  commit = 'unknown'
  if (root / '.git').exists() and shutil.which('git'):
    git = subprocess.run(
      ['git', 'describe', '--always', '--dirty'],
      cwd=root,
      capture_output=True,
      text=True,
      check=False,
    )
    commit = git.stdout.strip() or commit
  return {
    'commit': commit,
    'jax': jax.__version__,
    'python': platform.python_version(),
    'platform': jax.default_backend(),
    'devices': jax.device_count(),
    'cpu_cores': os.cpu_count(),
    'machine': platform.machine(),
  }
