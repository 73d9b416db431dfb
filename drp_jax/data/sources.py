"""Contract between lists of videos and the code that reads them.

Each source is a module: `folders`, `ssv2`, `tfds_records`, `lerobot`, `hdf5`.
It lists videos and decodes none of them. A `VideoId` names a file, a part of
one or a folder of pictures. A `Record` holds a reader that yields the frames of
one episode of a data set. `drp_jax/preprocess` makes images of both.
"""

import dataclasses
import errno
import functools
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from drp_jax import recordings
from drp_jax.data import schema, walk

VIDEO_SUFFIXES = ('.avi', '.gif', '.mkv', '.mov', '.mp4', '.webm')
PICTURE_SUFFIXES = ('.jpeg', '.jpg', '.png')

# Reads the recording of a video from its data set.
Recorded = Callable[[], recordings.Recording]


@dataclasses.dataclass(frozen=True)
class VideoId:
  """One video: a file, a part of a file, or a folder of pictures.

  Attributes:
    source_id: unique name in the data set: the path relative to the folder,
      with forward slashes, as text (`names.to_text`).
    path: path of the file or the folder.
    label: class of the video, -1 if it has none.
    split: 'train' or 'validation' if the data set assigns it, None to apply the
      split rule of `clips`.
    span: part of the file that is this video, None if it is the whole file.
    group: name shared by videos of the same events, such as an episode that
      several cameras filmed; '' if no other video shows them. A group is held
      out as a whole.
    recorded: reads the data set's recording; None if there is none. There may
      be a file beside the video instead, see `recordings.read`.
  """

  source_id: str
  path: pathlib.Path
  label: int = -1
  split: str | None = None
  span: schema.Span | None = None
  group: str = ''
  recorded: Recorded | None = None

  @functools.cached_property
  def sha256(self) -> str:
    """Digest of the content, computed at the first access.

    It covers the bytes of a file, with the times of a part of it, or the
    digests of a folder's pictures in order.
    """
    if self.path.is_dir():
      content = ''.join(file_sha256(path) for path in pictures(self.path))
    elif self.span is None:
      return file_sha256(self.path)
    else:
      content = f'{_shared_sha256(self.path)} {self.span}'
    return hashlib.sha256(content.encode()).hexdigest()


class Reader(Protocol):
  """Frames of one episode inside a data set, which can be read repeatedly."""

  @property
  def label(self) -> int:
    """Class of the episode, -1 if it has none."""

  def __len__(self) -> int:
    """Returns the number of frames."""

  def __iter__(self) -> Iterator[np.ndarray | bytes]:
    """Yields frames [H, W, 3] uint8 RGB, or the bytes of picture files."""


@dataclasses.dataclass(frozen=True)
class Record:
  """One video inside a data set, without a video file.

  Attributes:
    source_id: as in `VideoId`: the name of the data set, then that of the
      episode.
    reader: yields its frames.
    split: as in `VideoId`.
    group: as in `VideoId`.
    is_local: whether the reader works in this process only, because it holds
      open files.
    recorded: as in `VideoId`.
  """

  source_id: str
  reader: Reader = dataclasses.field(repr=False)
  split: str | None = None
  group: str = ''
  is_local: bool = False
  recorded: Recorded | None = None

  @property
  def label(self) -> int:
    """Class of the video, -1 if it has none."""
    return self.reader.label

  @functools.cached_property
  def sha256(self) -> str:
    """Digest of the frames as they are read, computed at the first access."""
    digest = hashlib.sha256()
    for frame in self.reader:
      is_array = isinstance(frame, np.ndarray)
      digest.update(np.ascontiguousarray(frame) if is_array else frame)
    return digest.hexdigest()


Video = VideoId | Record


@dataclasses.dataclass(frozen=True)
class Listing:
  """Result of a source.

  Attributes:
    videos: videos to cut into clips, sorted by source id.
    not_taken: name below the folder -> reason, see `walk`.
    ignored: suffix -> number of such files, which the source does not use.
    classes: names of the classes in the order of their labels.
  """

  videos: list[Video]
  not_taken: dict[str, str] = dataclasses.field(default_factory=dict)
  ignored: dict[str, int] = dataclasses.field(default_factory=dict)
  classes: list[str] = dataclasses.field(default_factory=list)


def pictures(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Lists the pictures of a folder in natural order: frame_2, frame_10."""
  with os.scandir(folder) as entries:
    found = [e.name for e in entries if is_picture(e.name) and e.is_file()]
  return [pathlib.Path(folder, name) for name in sorted(found, key=_natural)]


def groups(videos: Sequence[Video]) -> Mapping[str, str]:
  """Maps source ids to groups, for videos that belong to one."""
  return {video.source_id: video.group for video in videos if video.group}


def file_sha256(path: pathlib.Path) -> str:
  """Computes the digest of a file's bytes.

  Raises:
    FileNotFoundError: if there is no such file, or if it is not a regular one.
  """
  if not os.path.isfile(path):  # reading a pipe would block
    raise FileNotFoundError(errno.ENOENT, 'no such file', os.fspath(path))
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _shared_sha256(path: pathlib.Path) -> str:
  """Computes, once, the digest of a file that holds many videos."""
  status = path.stat()
  return _known_sha256(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _known_sha256(path: pathlib.Path, size: int, mtime_ns: int) -> str:
  del size, mtime_ns  # part of the key, since a file may be replaced
  return file_sha256(path)


def find_files(
  tree: walk.Walk, wanted: Callable[[str], bool]
) -> dict[str, pathlib.Path]:
  """Walks the tree; returns name -> path of the files whose name is wanted.

  Each file is listed once: by its own name if the walk reaches it, otherwise by
  the first link to it.
  """
  found, links, owners = {}, {}, {}
  for folder in tree:
    real = os.path.realpath(folder.path)
    for kind, files in ((found, folder.files), (links, folder.links)):
      for file in files:
        name = folder.name_of(file)
        if not wanted(name):
          tree.ignore(file)
          continue
        kind[name] = folder.path / file
        if kind is found:
          owners[os.path.join(real, file)] = name
  for name, path in sorted(links.items()):
    owner = owners.setdefault(os.path.realpath(path), name)
    if owner == name:
      found[name] = path
    else:
      tree.skip(name, f'duplicate: the file is listed as {owner}')
  return found


def make_listing(
  tree: walk.Walk, videos: Sequence[Video], classes: Sequence[str] = ()
) -> Listing:
  """Sorts videos, and adds what a walk skipped and ignored."""
  return Listing(
    sorted(videos, key=lambda video: video.source_id),
    dict(sorted(tree.not_taken.items())),
    dict(sorted(tree.ignored.items())),
    list(classes),
  )


def first_reasons(tree: walk.Walk) -> str:
  """Returns text for a message about what was found instead."""
  first = list(tree.not_taken.items())[:3]
  text = '; '.join(f'{name}: {reason}' for name, reason in first)
  return f' ({text})' if text else ''


def existing_folder(folder: str | os.PathLike) -> pathlib.Path:
  """Returns `config.path` as a path.

  Raises:
    ValueError: if it is not a folder.
  """
  folder = pathlib.Path(folder)
  if not os.path.isdir(folder):
    raise ValueError(
      f'config.path={str(folder)!r} is not a folder that exists.'
    )
  return folder


def is_picture(name: str) -> bool:
  """Returns whether a file is a picture, by its name."""
  # Some systems leave dot files beside pictures.
  return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith('.')


def _natural(name: str) -> list[tuple[int, str]]:
  """Returns a key that sorts numbers in names by value, and 01 before 1."""
  return [
    (int(part), part) if part.isdecimal() else (-1, part)
    for part in re.split(r'(\d+)', name)
  ]
