"""Stores records one after another in append-only files.

Files are read and written, never held, so the memory of the process does not
grow with them, and what stays in RAM is for the page cache to decide.
"""

import os
import pathlib
from collections.abc import Iterator

import numpy as np


class ChunkFiles:
  """Holds the files of one folder, `chunk_steps` records each, from 0 on.

  A place is the number of a record, counted over all records ever written.

  Attributes:
    chunk_steps: records of one file.
  """

  def __init__(self, folder: pathlib.Path, record: np.dtype, chunk_steps: int):
    """Makes the folder, which holds nothing else, if it is not there."""
    self._folder = folder
    self._record = record
    self.chunk_steps = chunk_steps
    self._dirty: set[int] = set()  # files written since the last `sync`
    self._first = 0  # the oldest file that may be on disk
    folder.mkdir(parents=True, exist_ok=True)

  def append(self, start: int, records: np.ndarray) -> None:
    """Writes records [length] from place `start` on, and drops what follows.

    Raises:
      OSError: if they cannot be written.
    """
    for number, offset, part in self._parts(start, records):
      self._dirty.add(number)
      path = self._path(number)
      path.touch()
      with open(path, 'r+b') as file:
        file.seek(offset)
        file.truncate()  # what a killed process wrote
        file.write(part)

  def read(self, start: int, length: int) -> np.ndarray:
    """Reads records [length] from place `start` on.

    Raises:
      OSError: if a file is not there, too short, or on a bad disk.
    """
    records = np.empty(length, self._record)
    for number, offset, part in self._parts(start, records):
      path = self._path(number)
      with open(path, 'rb', buffering=0) as file:
        file.seek(offset)
        if file.readinto(part) != len(part):
          raise OSError(f'{str(path)!r} is shorter than it was.')
    return records

  def sync(self) -> None:
    """Waits until all that was written is on the disk."""
    for number in sorted(self._dirty):
      _sync(self._path(number))
    _sync(self._folder)  # the names of new files
    self._dirty.clear()

  def paths(self, start: int, length: int) -> list[pathlib.Path]:
    """Returns the files in which `length` records from `start` on lie."""
    return [self._path(number) for number in self._numbers(start, length)]

  def too_short(
    self, start: int, length: int
  ) -> Iterator[tuple[pathlib.Path, int]]:
    """Yields files that do not hold these records, and bytes they should."""
    for number in self._numbers(start, length):
      path = self._path(number)
      rows = start + length - number * self.chunk_steps
      size = min(rows, self.chunk_steps) * self._record.itemsize
      if not path.is_file() or path.stat().st_size < size:
        yield path, size

  def delete_all_but(self, start: int, end: int) -> None:
    """Deletes every file that holds nothing of the places [start, end)."""
    needed = set(self.paths(start, end - start))
    for path in self._folder.glob('chunk-*.bin'):
      if path not in needed:
        path.unlink()
    self._first = start // self.chunk_steps

  def delete_before(self, start: int) -> None:
    """Deletes the files whose last place is before `start`."""
    oldest = start // self.chunk_steps
    for number in range(self._first, oldest):
      self._dirty.discard(number)
      self._path(number).unlink(missing_ok=True)
    self._first = oldest

  def _parts(
    self, start: int, records: np.ndarray
  ) -> Iterator[tuple[int, int, np.ndarray]]:
    """Cuts records from place `start` on where files end.

    Yields:
      Number of the file, offset in it and the bytes that belong there.
    """
    done = 0
    while done < len(records):
      number, row = divmod(start + done, self.chunk_steps)
      part = records[done : done + self.chunk_steps - row]
      yield number, row * self._record.itemsize, part.view(np.uint8)
      done += len(part)

  def _numbers(self, start: int, length: int) -> range:
    end = start + length
    return range(start // self.chunk_steps, -(-end // self.chunk_steps))

  def _path(self, number: int) -> pathlib.Path:
    return self._folder / f'chunk-{number:08d}.bin'


def _sync(path: pathlib.Path) -> None:
  """Waits until a file or folder is on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
