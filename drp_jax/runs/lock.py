"""The lock that keeps a second process out of a folder.

`flock` where the file system has it: the kernel drops that lock when its
process ends. Elsewhere (Lustre mounted without it, some NFS) a file that only
one process can create says who holds the folder. Such a file outlives a process
that is killed, so the next process on the same machine checks whether its owner
is alive; it cannot check that of another machine.
"""

import contextlib
import errno
import fcntl
import json
import logging
import os
import pathlib
import platform
from collections.abc import Iterator
from typing import Any

LOCK_FILE = '.lock'
OWNER_FILE = '.lock_owner'  # exists where there is no flock, while it is held

# What a file system without flock answers with. ENOTSUP is EOPNOTSUPP on Linux.
_NO_FLOCK = (
  errno.ENOSYS,
  errno.ENOLCK,
  errno.EOPNOTSUPP,
  errno.ENOTSUP,
)

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def held(folder: pathlib.Path) -> Iterator[None]:
  """Holds the lock of a folder, which must exist.

  Raises:
    RuntimeError: if another process holds it; the error names that process.
    OSError: if the lock files cannot be written.
  """
  with contextlib.ExitStack() as stack:
    # Never deleted: between open and lock it could be another file.
    file = stack.enter_context(open(folder / LOCK_FILE, 'a+'))
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      file.seek(0)
      raise _in_use(folder, file.read().strip() or 'a process') from error
    except OSError as error:
      if error.errno not in _NO_FLOCK:
        raise
      stack.enter_context(_owned(folder))
      _log.warning(
        'The file system of %r has no flock (%s): the file %s in it keeps other'
        ' processes out instead.',
        str(folder),
        error.strerror,
        OWNER_FILE,
      )
    file.truncate(0)
    file.write(f'process {os.getpid()} on {platform.node()}\n')
    file.flush()
    yield


@contextlib.contextmanager
def _owned(folder: pathlib.Path) -> Iterator[None]:
  """Creates the file that names the owner, and deletes it at the end."""
  path = folder / OWNER_FILE
  try:
    _create(path)
  except FileExistsError:
    _remove_stale(folder, path)
    try:
      _create(path)
    except FileExistsError as error:  # a third process was faster
      raise _in_use(folder, 'another process') from error
  try:
    yield
  finally:
    path.unlink(missing_ok=True)


def _create(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
  try:
    pid = os.getpid()
    owner = {
      'pid': pid,
      'host': platform.node(),
      'machine': _machine(),
      'started': _started(pid),
      # A copy of the folder has another inode: it belongs to nobody.
      'inode': os.fstat(descriptor).st_ino,
    }
    os.write(descriptor, json.dumps(owner).encode())
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def _remove_stale(folder: pathlib.Path, path: pathlib.Path) -> None:
  """Removes the file of an owner that has ended.

  Raises:
    RuntimeError: if the owner is alive, or may be.
  """
  content, inode = _read(path)
  owner = _owner(content)
  if owner is None:
    raise RuntimeError(
      f'{str(path)!r} says that a process uses this folder, but not which one.'
      ' If there is none, delete that file.'
    )
  who = f'process {owner["pid"]} on {owner["host"]}'
  if owner['inode'] == inode:
    if owner['host'] != platform.node() or owner['machine'] != _machine():
      raise RuntimeError(
        f'{str(folder)!r} is in use by {who}, as far as this machine can tell:'
        ' its file system has no flock, and only that machine knows whether'
        ' the process still runs. If it has ended (or the machine was'
        f' restarted), delete {str(path)!r}.'
      )
    if _started(owner['pid']) == owner['started'] and _alive(owner['pid']):
      raise _in_use(folder, who)
  # Renamed before it is deleted, since another process may do the same at this
  # moment and already hold the folder.
  taken = path.with_name(f'{path.name}.{platform.node()}-{os.getpid()}')
  try:
    os.rename(path, taken)
  except FileNotFoundError:
    return
  if taken.read_bytes() != content:
    os.link(taken, path)
    taken.unlink()
    raise _in_use(folder, 'another process')
  taken.unlink()


def _read(path: pathlib.Path) -> tuple[bytes, int]:
  """Content and inode; nothing if the file is gone by now."""
  try:
    with open(path, 'rb') as file:
      return file.read(), os.fstat(file.fileno()).st_ino
  except FileNotFoundError:
    return b'', 0


def _owner(content: bytes) -> dict[str, Any] | None:
  try:
    owner = json.loads(content)
  except ValueError:
    return None
  keys = {'pid', 'host', 'machine', 'started', 'inode'}
  whole = isinstance(owner, dict) and keys <= owner.keys()
  return owner if whole and isinstance(owner['pid'], int) else None


def _machine() -> str:
  """Tells apart machines and containers of one name, and their restarts."""
  try:
    boot = pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip()
    return f'{boot} {os.readlink("/proc/self/ns/pid")}'
  except OSError:  # no Linux
    return ''


def _started(pid: int) -> int | None:
  """When a process began, in ticks; None if that cannot be known."""
  try:
    stat = pathlib.Path(f'/proc/{pid}/stat').read_text('utf-8', 'replace')
  except OSError:
    return None
  return int(stat.rpartition(')')[2].split()[19])  # after the name


def _alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True


def _in_use(folder: pathlib.Path, who: str) -> RuntimeError:
  return RuntimeError(
    f'{str(folder)!r} is in use by {who}: two runs in one folder would'
    ' overwrite each other. Wait for it, end it, or choose another folder.'
  )
