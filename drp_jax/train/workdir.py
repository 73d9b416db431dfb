"""The folder of a run: its lock, and what it says about the run."""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import jax
import ml_collections

from drp_jax import files

LOCK_FILE = '.lock'

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

  A process that dies, however it does, leaves no lock behind.

  Args:
    workdir: of the run; also the folder of a build of shards.

  Raises:
    RuntimeError: if a process is in it, naming that, or if the folder or what
      is in it cannot be written; also for a disk that is full later on.
  """
  folder = pathlib.Path(workdir)
  with _writable(folder), contextlib.ExitStack() as stack:
    folder.mkdir(parents=True, exist_ok=True)
    # Never deleted: between open and lock it could be another file.
    file = stack.enter_context(open(folder / LOCK_FILE, 'a+'))
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise RuntimeError(
        f'{str(folder)!r} is in use by {file.read().strip() or "a process"}:'
        ' two runs in one folder would overwrite each other. Wait for it, end'
        ' it, or choose another folder.'
      ) from error
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}\n')
    file.flush()
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


def begin(workdir: str | pathlib.Path, config: ml_collections.ConfigDict):
  """Records the resolved config and what the run runs on, atomically.

  Writes `config.json` and `run.json` (commit, versions, devices).
  """
  folder = pathlib.Path(workdir)
  folder.mkdir(parents=True, exist_ok=True)
  files.write_json(folder / 'config.json', json.loads(config.to_json()))
  files.write_json(folder / 'run.json', describe())


# Settings that configs of older runs lack, and what held before there was one.
_SINCE = {'image.no_erasing_in': ('drawer-open',)}


def read_config(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
  """Reads what `begin` recorded; what is newer is as it was without it.

  Raises:
    ValueError: if there is no `config.json`.
  """
  path = pathlib.Path(workdir) / 'config.json'
  if not path.is_file():
    raise ValueError(
      f'{str(workdir)!r} is no workdir of a run: it holds no config.json.'
    )
  config = ml_collections.ConfigDict(json.loads(path.read_text('utf-8')))
  for key, value in _SINCE.items():
    section, _, name = key.rpartition('.')
    if name not in config[section]:
      config[section][name] = value
  return config


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
