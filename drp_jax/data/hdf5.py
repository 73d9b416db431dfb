"""Episodes in HDF5 files, such as robomimic, LIBERO and stable-worldmodel.

A key path names the frames. A `*` in it matches the episodes of a file:
'data/*/obs/agentview_image' of robomimic, 'data/*/obs/agentview_rgb' of LIBERO.
Without a `*` the array is one episode ('observations/images/top' of ALOHA),
unless `ep_len` and `ep_offset` beside it divide it into many ('pixels' of
stable-worldmodel). Frames are read a few at a time.
"""

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from drp_jax import extras, recordings
from drp_jax.data import names, sources, walk

_SUFFIXES = ('.h5', '.hdf5')
_MAX_BYTES = 2**26  # read at once, unless one frame has more       [ours]
_FRAMES = 16  # read at once, or a whole chunk if it has more       [ours]
_LOOKED_AT = 1000  # names in files, to list their arrays of frames [ours]
_NUMBERED = r'(?<=/)[^/]*\d+(?=/)'  # 'demo_12' in 'data/demo_12/obs'


@dataclasses.dataclass(frozen=True)
class _Frames:
  """Frames of one episode, a `sources.Reader` that can be sent to processes.

  Attributes:
    path: path of the file.
    key: key path of the array in it.
    start: number of the episode's first frame in the array.
    num_frames: number of frames of the episode.
    label: class of the episode.
  """

  path: pathlib.Path
  key: str
  start: int
  num_frames: int
  label: int

  def __len__(self) -> int:
    return self.num_frames

  def __iter__(self) -> Iterator[np.ndarray | bytes]:
    with _open(self.path) as file:
      array = file[self.key]
      step = _step(array)
      end = self.start + self.num_frames
      for begin in range(self.start, end, step):
        for frame in array[begin : min(begin + step, end)]:
          yield frame if frame.ndim == 3 else frame.tobytes()


def _recorded(
  path: pathlib.Path, key: str, start: int, count: int
) -> recordings.Recording:
  """Reads the actions of an episode."""
  with _open(path) as file:
    return recordings.of_actions_taken(file[key][start : start + count])


def hdf5_episodes(
  folder: str | os.PathLike, images: str, actions: str = ''
) -> sources.Listing:
  """Lists the episodes in the HDF5 files of a folder and below.

  Args:
    folder: holds files with one of `_SUFFIXES`.
    images: key path of the frames, see the top of this file: an array
      [N, H, W, 3] uint8, or [N] of the bytes of picture files.
    actions: key path of the actions, [N, A] numbers, with a `*` if `images` has
      one; '' for none. Episodes may lack it.

  Returns:
    Records `<file>/<episode>`. If `images` has a `*`, their label is the
    position of their file among all files, since such files hold one task each.

  Raises:
    ValueError: if there is no such folder, no file in it, or no episode.
    MissingExtra: without h5py.
  """
  extras.require("config.source='hdf5'", 'hdf5', 'h5py', 'hdf5plugin')
  keys = _keys('images', images)
  action_keys = _keys('actions', actions) if actions else None
  if action_keys and action_keys.count('*') != keys.count('*'):
    raise ValueError(
      f'config.hdf5.actions={actions!r} must have as many * as'
      f" config.hdf5.images={images!r}, or be '' for no actions."
    )
  tree = walk.Walk(sources.existing_folder(folder))
  files = sources.find_files(tree, lambda n: walk.suffix(n) in _SUFFIXES)
  if not files:
    raise ValueError(
      f'config.path={os.fspath(folder)!r} holds no file; looked for'
      f' {", ".join(_SUFFIXES)} in it and below{sources.first_reasons(tree)}.'
    )
  classes = sorted(files) if '*' in keys else []
  labels = {name: label for label, name in enumerate(classes)}
  videos = []
  for name, path in sorted(files.items()):
    try:
      with _open(path) as file:
        label = labels.get(name, -1)
        videos += _episodes(file, keys, action_keys, name, path, label, tree)
    except (OSError, RuntimeError) as error:  # both are h5py's
      tree.skip(name, _reason(error))
  if not videos:
    raise ValueError(
      f'config.hdf5.images={images!r} names no frames in the {len(files)} files'
      f' of config.path={os.fspath(folder)!r}, which hold frames at'
      f' {_image_keys(files.values())}{sources.first_reasons(tree)}.'
    )
  return sources.make_listing(tree, videos, classes)


def _keys(name: str, path: str) -> list[str]:
  """Splits a key path; raises ValueError if it is invalid."""
  keys = [key for key in path.split('/') if key]
  stars = [key for key in keys[:-1] if key == '*']
  if not keys or len(stars) > 1 or path.count('*') != len(stars):
    raise ValueError(
      f'config.hdf5.{name}={path!r} must be a key path with at most one *'
      " followed by a slash, such as 'data/*/obs/agentview_image'."
    )
  return keys


def _episodes(
  file: Any,
  keys: Sequence[str],
  action_keys: Sequence[str] | None,
  name: str,
  path: pathlib.Path,
  label: int,
  tree: walk.Walk,
) -> list[sources.Record]:
  """Lists the episodes of an open file; notes those without frames."""
  episodes = {name: '*'}  # source id -> what replaces *
  if '*' in keys:
    above = '/'.join(keys[: keys.index('*')])
    episodes = {
      f'{name}/{names.to_text(episode)}': episode
      for episode in _children(file, above)
    }
    if not episodes:
      tree.skip(name, f'no_images: no group in {above!r}')
  found = []
  for source_id, episode in episodes.items():
    key = '/'.join(keys).replace('*', episode)
    action_key = '/'.join(action_keys or ()).replace('*', episode)
    if not hasattr(file.get(action_key or '/'), 'dtype'):
      action_key = ''  # The episode has none.
    problem = _problem(file, key)
    if problem:
      tree.skip(source_id, problem)
      continue
    total = len(file[key])
    for part, start, count in _parts(file, key):
      if start < 0 or count < 0 or start + count > total:
        what = f'frames {start} to {start + count} of {total}'
        tree.skip(source_id + part, f'truncated: {what}')
        continue
      frames = _Frames(path, key, start, count, label)
      recorded = None
      if action_key:
        recorded = functools.partial(_recorded, path, action_key, start, count)
      found.append(sources.Record(source_id + part, frames, recorded=recorded))
  return found


def _parts(file: Any, key: str) -> Iterator[tuple[str, int, int]]:
  """Yields name, first frame and length of the episodes in an array."""
  total = len(file[key])
  beside = file[key].parent
  if 'ep_len' not in beside or 'ep_offset' not in beside:
    yield '', 0, total
    return
  lengths, starts = beside['ep_len'][:], beside['ep_offset'][:]
  for number, (start, count) in enumerate(zip(starts, lengths, strict=True)):
    yield f'/{number:06d}', int(start), int(count)


def _children(file: Any, key: str) -> list[str]:
  group = file.get(key or '/')
  return list(group) if hasattr(group, 'keys') else []


def _problem(file: Any, key: str) -> str:
  """Returns why an array holds no frames; '' if it holds frames."""
  array = file.get(key)
  if not hasattr(array, 'dtype'):
    return f'no_images: no array {key!r}'
  if not _holds_frames(array):
    return (
      f'no_images: {key!r} is {array.dtype}{list(array.shape)}, expected'
      ' uint8[N, H, W, 3] or the bytes of N picture files'
    )
  return ''


def _holds_frames(array: Any) -> bool:
  """Returns whether an array is [N, H, W, 3] uint8 or holds picture files."""
  is_bytes = array.dtype == np.uint8
  match array.ndim:
    case 4:
      return is_bytes and array.shape[-1] == 3
    case 2:  # bytes of pictures, padded to the longest
      return is_bytes
    case 1:
      return array.dtype.kind in 'SO'
  return False


def _image_keys(paths: Iterable[pathlib.Path]) -> list[str]:
  """Finds the key paths of some arrays of frames, episodes written as `*`."""
  found, seen = {}, 0

  def visit(key: str, item: Any) -> bool | None:
    nonlocal seen
    seen += 1
    if getattr(item, 'ndim', 0) == 4 and _holds_frames(item):
      first, *others = re.split(_NUMBERED, key, maxsplit=1)
      found['*'.join((first, *others))] = None
    return True if seen > _LOOKED_AT else None

  for path in paths:
    with contextlib.suppress(OSError), _open(path) as file:
      file.visititems(visit)
  return list(found)


def _step(array: Any) -> int:
  """Returns how many frames to read at once: whole chunks if they are small."""
  chunk = array.chunks[0] if array.chunks else 1
  step = chunk * -(-_FRAMES // chunk)
  frame_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
  return max(1, min(step, _MAX_BYTES // max(1, frame_bytes)))


def _open(path: pathlib.Path) -> Any:
  """Opens a file for reading; raises OSError if it cannot be read."""
  import h5py
  import hdf5plugin  # noqa: F401, registers filters of compressed arrays

  open(path, 'rb').close()  # its errors, unlike h5py's, do not name the folder
  return h5py.File(path, 'r', rdcc_nbytes=_MAX_BYTES, locking='best-effort')


def _reason(error: Exception) -> str:
  text = getattr(error, 'strerror', None) or error
  word = 'no_permission' if isinstance(error, PermissionError) else 'unreadable'
  return f'{word}: {text}'
