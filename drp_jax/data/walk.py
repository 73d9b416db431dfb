"""Walks a folder of files, for all sources of videos.

Links are followed. A folder is entered once, however many names lead to it, by
the name with the fewest links in it; ties go to the first name in order. Names
therefore do not depend on the order in which the system lists files, and loops
end. Everything else that is neither a file nor a readable folder is recorded
with its reason: one word for counting, then what happened.

  dangling       a link whose target does not exist
  loop           a link that leads back to itself or to a folder around it
  duplicate      another name of a listed file or folder
  not_a_file     a named pipe, socket or device
  no_permission  an entry that may not be listed or examined
  read_error     any other error of the system
"""

import collections
import errno
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import NamedTuple

from drp_jax.data import names

_SPECIAL = (
  (stat.S_ISFIFO, 'a named pipe (FIFO)'),
  (stat.S_ISSOCK, 'a socket'),
  (stat.S_ISCHR, 'a character device'),
  (stat.S_ISBLK, 'a block device'),
)

_Key = tuple[int, int]  # device and inode of a folder


class Folder(NamedTuple):
  """A folder and the files in it, sorted by name.

  Attributes:
    name: its path below the root as text, with forward slashes; '' is the root.
    path: its path on disk.
    files: names of files, as `os` returns them.
    links: names of links to files.
  """

  name: str
  path: pathlib.Path
  files: list[str]
  links: list[str]

  def name_of(self, file: str) -> str:
    """Returns the path below the root of one of its files, as text."""
    return _join(self.name, file)


class _Way(NamedTuple):
  """A folder that has not been entered yet, or a link to one."""

  name: str
  path: pathlib.Path
  parent: _Key | None


class Walk:
  """One walk; iterate over it once, then read its attributes.

  Attributes:
    not_taken: name -> reason.
    ignored: suffix in lower case -> number of files that the source ignores.
    top_folders: names of the folders in the root as text, whether or not they
      can be listed.
    top_lost: names of the links in the root whose target cannot be examined, so
      it may be a folder.
  """

  def __init__(self, root: str | os.PathLike):
    """Lists nothing yet."""
    self._root = pathlib.Path(root)
    self._seen: dict[_Key, str] = {}
    self._parents: dict[_Key, _Key | None] = {}
    self.not_taken: dict[str, str] = {}
    self.ignored: collections.Counter[str] = collections.Counter()
    self.top_folders: list[str] = []
    self.top_lost: list[str] = []

  def __iter__(self) -> Iterator[Folder]:
    """Yields every folder once.

    Raises:
      ValueError: if the root cannot be listed.
    """
    ways, links = [_Way('', self._root, None)], []
    while ways or links:
      if not ways:  # names with one more link follow after all others
        ways, links = sorted(links, reverse=True), []
      way = ways.pop()
      key = self._enter(way)
      entries = None if key is None else self._list(way)
      if entries is None:
        continue
      files, file_links, folders = [], [], []
      for entry in sorted(entries, key=lambda entry: entry.name):
        kind = self._kind(way, entry)
        below = _Way(_join(way.name, entry.name), way.path / entry.name, key)
        if not way.name and kind in ('folder', 'folder link'):
          self.top_folders.append(below.name)
        elif not way.name and kind == 'lost link':
          self.top_lost.append(below.name)
        if kind == 'file':
          files.append(entry.name)
        elif kind == 'file link':
          file_links.append(entry.name)
        elif kind == 'folder':
          folders.append(below)
        elif kind == 'folder link':
          links.append(below)
      # A link's own subtree is walked before the next link of its round.
      ways += folders[::-1]
      yield Folder(way.name, way.path, files, file_links)

  def skip(self, name: str, reason: str) -> None:
    """Records why an entry is not taken."""
    self.not_taken[name] = reason

  def ignore(self, file: str) -> None:
    """Counts a file that the source ignores."""
    self.ignored[names.to_text(suffix(file))] += 1

  def _enter(self, way: _Way) -> _Key | None:
    """Marks a folder as seen; None, recorded, if it cannot be entered."""
    try:
      status = os.stat(way.path)
    except OSError as error:
      self.skip(way.name, _reason(error))
      return None
    key = status.st_dev, status.st_ino
    if key not in self._seen:
      self._seen[key], self._parents[key] = way.name, way.parent
      return key
    known = self._seen[key] or '.'
    around = way.parent
    while around is not None and around != key:
      around = self._parents[around]
    if around is None:
      self.skip(way.name, f'duplicate: the folder is listed as {known}')
    else:
      self.skip(way.name, f'loop: leads back to {known}')
    return None

  def _list(self, way: _Way) -> list[os.DirEntry] | None:
    try:
      with os.scandir(way.path) as entries:
        return list(entries)
    except OSError as error:
      if not way.name:
        raise ValueError(
          f'config.path={str(self._root)!r} cannot be listed: {error.strerror}.'
        ) from error
      self.skip(way.name, _reason(error))
      return None

  def _kind(self, way: _Way, entry: os.DirEntry) -> str:
    """Returns the kind of an entry; records other than files and folders."""
    name = _join(way.name, entry.name)
    link = entry.is_symlink()
    try:
      mode = entry.stat().st_mode if link else _mode(entry)
    except OSError as error:
      self.skip(name, _reason(error))
      return 'lost link' if link else 'none'
    if stat.S_ISDIR(mode):
      return 'folder link' if link else 'folder'
    if stat.S_ISREG(mode):
      return 'file link' if link else 'file'
    what = [text for test, text in _SPECIAL if test(mode)]
    self.skip(name, f'not_a_file: {what[0] if what else "of unknown kind"}')
    return 'none'


def suffix(name: str) -> str:
  """Returns the suffix of a name in lower case, such as '.mp4', or ''."""
  return os.path.splitext(name)[1].lower()


def _mode(entry: os.DirEntry) -> int:
  """Returns the type of an entry that is not a link, usually without a call."""
  if entry.is_file(follow_symlinks=False):
    return stat.S_IFREG
  if entry.is_dir(follow_symlinks=False):
    return stat.S_IFDIR
  return entry.stat(follow_symlinks=False).st_mode


def _join(folder: str, name: str) -> str:
  name = names.to_text(name)
  return f'{folder}/{name}' if folder else name


def _reason(error: OSError) -> str:
  if error.errno == errno.ELOOP:
    return 'loop: a link that leads back to itself'
  if isinstance(error, PermissionError):
    return f'no_permission: {error.strerror}'
  if isinstance(error, FileNotFoundError | NotADirectoryError):
    return 'dangling: its target does not exist'
  return f'read_error: {error.strerror}'
