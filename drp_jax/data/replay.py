"""Replay buffer: whole episodes in append-only files.

Steps lie one after another in chunk files of `chunk_steps` records, mapped into
memory, so the page cache decides what stays in RAM and a killed process loses
nothing it wrote. A checkpoint holds only `state()`: where the episodes lie.
Because records are never changed, any saved state can be gone back to, as long
as its files are there; so files are deleted only when none of the last few
saved states needs them.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from drp_jax.data import schema

# States that stay restorable: no fewer than the checkpoints that are kept.
KEPT_STATES = 3
# Each mapped file costs a file descriptor, of which a process has 1024.
_MAX_OPEN = 256


class Replay:
  """Episodes on disk, sampled in segments.

  One stream of steps: an episode is what `add` receives from a step with
  `is_first` to one with `is_last`. Only whole episodes are sampled. Not for use
  from two threads at once.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    fields: dict[str, schema.Field],
    capacity: int,
    chunk_steps: int = 1024,
    state: Mapping[str, Any] | None = None,
  ):
    """Starts empty, or where `state` was saved (see `restore`).

    Chunk files in the folder that do not belong to it are deleted.

    Args:
      folder: of the chunk files, and of nothing else.
      fields: what a step holds, for example `schema.replay_fields`.
      capacity: steps; beyond it the oldest episodes are dropped.
      chunk_steps: records of one file.
      state: what `state()` returned, or None.

    Raises:
      ValueError: if capacity or chunk_steps are not positive, or as `restore`.
    """
    if capacity < 1 or chunk_steps < 1:
      raise ValueError(
        f'config.replay.capacity={capacity} and chunk_steps={chunk_steps} '
        'must be at least 1.'
      )
    self._folder = pathlib.Path(folder)
    self._fields = fields
    self._capacity = capacity
    self._chunk_steps = chunk_steps
    self._record = np.dtype([(n, f.dtype, f.shape) for n, f in fields.items()])
    self._episodes: list[tuple[int, int]] = []  # (first step, length), by age
    self._open_start = 0  # first step of the unfinished episode
    self._cursor = 0  # steps ever added
    self._first_chunk = 0  # the oldest that is on disk
    self._saved: list[int] = []  # oldest chunk that each saved state needs
    self._chunks: dict[int, np.memmap] = {}  # open files, in order of opening
    self._dirty: set[int] = set()  # chunks written since the last state
    self._folder.mkdir(parents=True, exist_ok=True)
    if state is not None:
      self._load(state)
    self._delete_others()

  @property
  def num_episodes(self) -> int:
    """Whole episodes that can be sampled."""
    return len(self._episodes)

  @property
  def num_steps(self) -> int:
    """Steps of the whole episodes."""
    return sum(length for _, length in self._episodes)

  def add(self, step: Mapping[str, Any]) -> None:
    """Appends one step.

    Args:
      step: field name to array, exactly the fields of this replay.

    Raises:
      ValueError: if a field is missing, unknown or of another shape or type,
        or if `is_first` and `is_last` do not alternate.
    """
    schema.check(dict(step), self._fields, 'replay step')
    unknown = sorted(step.keys() - self._fields.keys())
    if unknown:
      raise ValueError(f'replay step: field(s) {unknown} are unknown.')
    inside = self._cursor > self._open_start
    if bool(step['is_first']) == inside:
      raise ValueError(
        'replay step: is_first=True inside an episode that no is_last ended.'
        if inside
        else 'replay step: an episode must begin with is_first=True.'
      )
    number, row = divmod(self._cursor, self._chunk_steps)
    if row == 0:
      self._create(number)
    chunk = self._chunk(number)
    for name in self._fields:
      chunk[name][row] = step[name]
    self._dirty.add(number)
    self._cursor += 1
    if step['is_last']:
      self._episodes.append((self._open_start, self._cursor - self._open_start))
      self._open_start = self._cursor
      self._drop_oldest()

  def sample(
    self,
    rng: np.random.Generator,
    batch_size: int,
    length: int,
    prioritize_ends: bool = False,
  ) -> dict[str, np.ndarray]:
    """Draws segments: the episode uniformly, then the start in it.

    Args:
      rng: advanced by two draws of `batch_size` numbers.
      batch_size: B.
      length: T, steps of a segment. Shorter episodes are not drawn.
      prioritize_ends: as IPV in Meta-World, start = min(U{0..n}, n - T) in an
        episode of n steps, so that its end comes up more often (about 10 % of
        the draws with n = 501, T = 50). Otherwise uniform.

    Returns:
      Field name to [B, T, ...]; copies. `is_first` is true at entry 0.

    Raises:
      ValueError: if no whole episode has `length` steps.
    """
    long = [e for e in self._episodes if e[1] >= length]
    if not long:
      longest = max((n for _, n in self._episodes), default=0)
      raise ValueError(
        f'No whole episode has length={length} steps '
        f'(config.replay.segment_length): of {len(self._episodes)} the '
        f'longest has {longest}.'
      )
    begins, totals = np.array(long)[rng.integers(len(long), size=batch_size)].T
    last = totals - length
    # Both upper ends are included.
    draws = rng.integers(0, (totals if prioritize_ends else last) + 1)
    starts = begins + np.minimum(draws, last)
    batch = {
      name: np.empty((batch_size, length, *field.shape), field.dtype)
      for name, field in self._fields.items()
    }
    for index, start in enumerate(starts.tolist()):
      self._read(start, {name: array[index] for name, array in batch.items()})
    batch['is_first'][:, 0] = True
    return batch

  def state(self) -> dict[str, Any]:
    """Flushes to disk and returns what a checkpoint must hold, as JSON values.

    The last `KEPT_STATES` results, and what was restored from, stay
    restorable; files that none of them needs are deleted.
    """
    for number in sorted(self._dirty):
      self._chunk(number).flush()
    self._dirty.clear()
    self._saved = [*self._saved, self._oldest_chunk()][-KEPT_STATES:]
    self._delete_unneeded()
    return {
      'fields': _describe(self._fields),
      'chunk_steps': self._chunk_steps,
      'episodes': [list(episode) for episode in self._episodes],
      'open_start': self._open_start,
      'cursor': self._cursor,
    }

  @classmethod
  def restore(
    cls,
    folder: str | os.PathLike,
    fields: dict[str, schema.Field],
    state: Mapping[str, Any],
    capacity: int,
  ) -> 'Replay':
    """Goes back to what `state()` returned; all that came after is dropped.

    The unfinished episode is kept too: the next `add` continues it.

    Raises:
      ValueError: if the state was saved with other fields, or a chunk file is
        missing or of the wrong size.
    """
    return cls(folder, fields, capacity, state['chunk_steps'], state)

  def _load(self, state: Mapping[str, Any]) -> None:
    wanted = _describe(self._fields)
    for name in sorted(state['fields'].keys() | wanted.keys()):
      if state['fields'].get(name) != wanted.get(name):
        raise ValueError(
          f'replay in {str(self._folder)!r}: field {name!r} was saved as '
          f'{state["fields"].get(name)}, expected {wanted.get(name)}.'
        )
    self._episodes = [(start, length) for start, length in state['episodes']]
    self._open_start = state['open_start']
    self._cursor = state['cursor']
    self._first_chunk = self._oldest_chunk()
    self._saved = [self._first_chunk]
    size = self._chunk_steps * self._record.itemsize
    for number in self._needed_chunks():
      path = self._path(number)
      if not path.is_file() or path.stat().st_size != size:
        raise ValueError(
          f'replay in {str(self._folder)!r}: {path.name}, which the '
          f'checkpoint needs, is missing or not {size} bytes long.'
        )

  def _delete_others(self) -> None:
    """Deletes chunk files that this replay does not need."""
    needed = {self._path(number) for number in self._needed_chunks()}
    for path in self._folder.glob('chunk-*.bin'):
      if path not in needed:
        path.unlink()

  def _needed_chunks(self) -> range:
    return range(self._oldest_chunk(), -(-self._cursor // self._chunk_steps))

  def _oldest_chunk(self) -> int:
    start = self._episodes[0][0] if self._episodes else self._open_start
    return start // self._chunk_steps

  def _drop_oldest(self) -> None:
    excess = self.num_steps - self._capacity
    while excess > 0 and len(self._episodes) > 1:
      excess -= self._episodes.pop(0)[1]
    self._delete_unneeded()

  def _delete_unneeded(self) -> None:
    """Deletes chunks older than what is sampled or may be restored."""
    oldest = min([self._oldest_chunk(), *self._saved])
    for number in range(self._first_chunk, oldest):
      self._chunks.pop(number, None)
      self._dirty.discard(number)
      self._path(number).unlink(missing_ok=True)
    self._first_chunk = oldest

  def _read(self, start: int, out: dict[str, np.ndarray]) -> None:
    """Copies steps from `start` on into `out`, whose arrays are [T, ...]."""
    length = len(out['is_first'])
    done = 0
    while done < length:
      number, row = divmod(start + done, self._chunk_steps)
      count = min(length - done, self._chunk_steps - row)
      chunk = self._chunk(number)
      for name, array in out.items():
        array[done : done + count] = chunk[name][row : row + count]
      done += count

  def _path(self, number: int) -> pathlib.Path:
    return self._folder / f'chunk-{number:08d}.bin'

  def _chunk(self, number: int) -> np.memmap:
    """The records of one file, [chunk_steps]."""
    if number not in self._chunks:
      if len(self._chunks) >= _MAX_OPEN:
        # Unmapping keeps what was written: it is in the page cache.
        self._chunks.pop(next(iter(self._chunks)))
      self._chunks[number] = np.memmap(
        self._path(number), self._record, 'r+', shape=(self._chunk_steps,)
      )
    return self._chunks[number]

  def _create(self, number: int) -> None:
    """Makes a file with all its space, so that a full disk shows here."""
    size = self._chunk_steps * self._record.itemsize
    with open(self._path(number), 'wb') as file:
      if hasattr(os, 'posix_fallocate'):
        # A write to a map of a file with holes would die of SIGBUS instead.
        os.posix_fallocate(file.fileno(), 0, size)
      file.truncate(size)


def _describe(fields: dict[str, schema.Field]) -> dict[str, str]:
  return {n: f'{f.dtype}{list(f.shape)}' for n, f in fields.items()}
