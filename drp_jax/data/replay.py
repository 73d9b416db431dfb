"""Replay buffer: whole episodes in append-only files.

Steps lie one after another as records in the files of chunk_files.py. A
checkpoint holds only `state()`: where the episodes lie, and their checksums.
Because records are never changed, any saved state can be gone back to, as long
as its files are there; so files are deleted only when none of the last few
saved states needs them.
"""

import contextlib
import logging
import os
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from drp_jax.data import chunk_files, fixed_point, schema, segments

# States that stay restorable: no fewer than the checkpoints that are kept.
KEPT_STATES = 3
FLOW_DTYPES = ('float16', 'int8')
_FORMAT = 2  # of states and files
_GIGABYTE = 1e9

_log = logging.getLogger(__name__)


class _Episode(NamedTuple):
  """Where an episode lies, and what it must read as.

  Attributes:
    start: its first step, counted over all that was ever added.
    length: its steps.
    checksum: CRC-32 of its records.
  """

  start: int
  length: int
  checksum: int


class Replay:
  """Episodes on disk, sampled in segments.

  What was written by another process is compared with its checksum when it is
  first drawn from. An episode that is no longer what it was is dropped with a
  warning, and training goes on without it. Not for use from two threads at
  once.
  """

  def __init__(
    self,
    folder: str | os.PathLike,
    fields: dict[str, schema.Field],
    capacity: int,
    flow_dtype: str,
    chunk_steps: int = 1024,
    state: Mapping[str, Any] | None = None,
  ):
    """Starts empty, or where `state` was saved (see `restore`).

    Chunk files in the folder that do not belong to it are deleted.

    Args:
      folder: of the chunk files, and of nothing else.
      fields: what a step holds, for example `schema.replay_fields`.
      capacity: steps; beyond it the oldest episodes are dropped.
      flow_dtype: how a field `flow` is stored, whatever its type outside:
        'float16', or 'int8' in steps of 1/8 pixel within +-15.875.
      chunk_steps: records of one file.
      state: what `state()` returned, or None.

    Raises:
      ValueError: if capacity or chunk_steps are not positive, there is no such
        flow_dtype, or as `restore`.
    """
    if capacity < 1 or chunk_steps < 1:
      raise ValueError(
        f'config.replay.capacity={capacity} and chunk_steps={chunk_steps} '
        'must be at least 1.'
      )
    if flow_dtype not in FLOW_DTYPES:
      raise ValueError(
        f'config.replay.flow_dtype={flow_dtype!r} must be one of {FLOW_DTYPES}.'
      )
    self._folder = pathlib.Path(folder)
    self._fields = fields
    self._capacity = capacity
    self._fixed_point = flow_dtype == 'int8'
    self._record = np.dtype(
      [
        (name, flow_dtype if name == 'flow' else field.dtype, field.shape)
        for name, field in fields.items()
      ]
    )
    files = chunk_files.ChunkFiles(self._folder, self._record, chunk_steps)
    self._files = files
    self._episodes: list[_Episode] = []  # by age
    self._cursor = 0  # steps ever added
    self._saved: list[int] = []  # oldest step that each saved state needs
    self._unchecked: set[_Episode] = set()  # of other processes, not yet drawn
    self._num_corrupt = 0
    if state is not None:
      self._load(state)
    self._files.delete_all_but(self._oldest(), self._cursor)
    self._drop_oldest()

  @property
  def num_episodes(self) -> int:
    """Whole episodes that can be sampled."""
    return len(self._episodes)

  @property
  def num_steps(self) -> int:
    """Steps of the whole episodes."""
    return sum(episode.length for episode in self._episodes)

  @property
  def num_corrupt(self) -> int:
    """Episodes dropped because their files had changed."""
    return self._num_corrupt

  def describe(self) -> str:
    """What a log should say at a run's start: where, and how much."""
    size = self._record.itemsize
    return (
      f'Replay: {self.num_steps} steps of {size} bytes in '
      f'{str(self._folder)!r}; at config.replay.capacity={self._capacity} '
      f'{self._gigabytes():.2f} GB on disk. RAM holds one batch, beside what '
      'the page cache keeps.'
    )

  def add_episode(self, steps: Mapping[str, np.ndarray]) -> None:
    """Appends one whole episode.

    Args:
      steps: field name to [T, ...], exactly the fields of this replay.
        `is_first` is true at entry 0 and nowhere else, `is_last` at T-1.

    Raises:
      ValueError: if a field is missing, unknown, of another shape or type, not
        finite, or a flag where it should not be. Nothing is added.
      RuntimeError: if it cannot be written, as on a full disk. Nothing is
        added.
    """
    records = self._to_records(steps)
    with self._writing():
      self._files.append(self._cursor, records)
    checksum = zlib.crc32(records.view(np.uint8))
    self._episodes.append(_Episode(self._cursor, len(records), checksum))
    self._cursor += len(records)
    self._drop_oldest()

  def sample(
    self,
    rng: np.random.Generator,
    batch_size: int,
    length: int,
    prioritize_ends: bool = False,
    across_ends: bool = False,
  ) -> dict[str, np.ndarray]:
    """Draws segments by one of the two rules of `drp_jax/data/segments.py`.

    Where an episode is shorter than a segment, all segments run across the ends
    of episodes: every entry is each stored step with the same probability.
    Otherwise each segment lies within one episode.

    Args:
      rng: advanced by the draws; by more of them if an episode turns out to be
        corrupt.
      batch_size: B.
      length: T, steps of a segment.
      prioritize_ends: see `segments.within_episodes`, which alone reads it.
      across_ends: run across the ends of episodes although all are as long as a
        segment.

    Returns:
      Field name to [B, T, ...]; copies. `is_first` is true at entry 0, and
      where an episode begins after the end of another one.

    Raises:
      ValueError: if there is no whole episode.
    """
    drawn = self._draw(rng, batch_size, length, prioritize_ends, across_ends)
    # Each field's type holds its shape, which comes after the two axes.
    batch = {
      name: np.empty((batch_size, length), self._record[name])
      for name in self._fields
    }
    for index, pieces in enumerate(drawn):
      entry = 0
      for piece in pieces:
        start = self._episodes[piece.episode].start + piece.offset
        records = self._files.read(start, piece.length)
        for name, array in batch.items():
          array[index, entry : entry + piece.length] = records[name]
        entry += piece.length
    batch['is_first'][:, 0] = True
    if 'flow' in batch and self._fixed_point:
      batch['flow'] = fixed_point.decode(batch['flow'])
    return batch

  def state(self) -> dict[str, Any]:
    """Flushes to disk and returns what a checkpoint must hold, as JSON values.

    The last `KEPT_STATES` results, and what was restored from, stay
    restorable; files that none of them needs are deleted.

    Raises:
      RuntimeError: if the disk cannot be written to.
    """
    with self._writing():
      self._files.sync()
    self._saved = [*self._saved, self._oldest()][-KEPT_STATES:]
    self._delete_unneeded()
    return {
      'format': _FORMAT,
      'fields': self._describe_fields(),
      'chunk_steps': self._files.chunk_steps,
      'episodes': [list(episode) for episode in self._episodes],
      'cursor': self._cursor,
      'corrupt': self._num_corrupt,
    }

  @classmethod
  def restore(
    cls,
    folder: str | os.PathLike,
    fields: dict[str, schema.Field],
    state: Mapping[str, Any],
    capacity: int,
    flow_dtype: str,
  ) -> 'Replay':
    """Goes back to what `state()` returned; all that came after is dropped.

    Sizes of files are checked here, their contents when first drawn from, since
    reading all of them may take minutes.

    Raises:
      ValueError: if the state was saved with other fields, or a chunk file is
        missing or too short.
    """
    return cls(
      folder, fields, capacity, flow_dtype, state['chunk_steps'], state
    )

  def _load(self, state: Mapping[str, Any]) -> None:
    name = f'replay in {str(self._folder)!r}'
    if state.get('format') != _FORMAT:
      raise ValueError(
        f'{name}: the checkpoint holds it in format {state.get("format", 1)},'
        f' which this version does not read; it reads {_FORMAT}. Go on with the'
        ' commit that run.json names, or in a new workdir.'
      )
    saved, wanted = state['fields'], self._describe_fields()
    for field in sorted(saved.keys() | wanted.keys()):
      if saved.get(field) != wanted.get(field):
        key = ' by config.replay.flow_dtype' if field == 'flow' else ''
        raise ValueError(
          f'{name}: field {field!r} was saved as {saved.get(field)}, expected '
          f'{wanted.get(field)}{key}.'
        )
    self._episodes = [_Episode(*episode) for episode in state['episodes']]
    self._unchecked = set(self._episodes)
    self._cursor = state['cursor']
    self._num_corrupt = state['corrupt']
    self._saved = [self._oldest()]
    for episode in self._episodes:
      for path, size in self._files.too_short(episode.start, episode.length):
        raise ValueError(
          f'{name}: {path.name}, which the checkpoint needs, is missing or'
          f' shorter than {size} bytes; {_describe(episode)} lies there.'
        )

  def _describe_fields(self) -> dict[str, str]:
    """Types and shapes as they are stored."""
    types = {name: self._record[name] for name in self._fields}
    return {n: f'{t.base}{list(t.shape)}' for n, t in types.items()}

  def _to_records(self, steps: Mapping[str, np.ndarray]) -> np.ndarray:
    """Checks an episode and brings it into the form of the files, [T]."""
    what = 'replay episode'
    length = np.size(steps.get('is_first', ()))
    fields = {
      name: schema.Field((length, *field.shape), field.dtype)
      for name, field in self._fields.items()
    }
    schema.check(dict(steps), fields, what)
    unknown = sorted(steps.keys() - fields.keys())
    if unknown:
      raise ValueError(f'{what}: field(s) {unknown} are unknown.')
    for name, entry in (('is_first', 0), ('is_last', length - 1)):
      where = np.flatnonzero(steps[name]).tolist()
      if where != [entry]:
        raise ValueError(
          f'{what}: {name} must be true at entry {entry} of {length} alone, '
          f'not at {where[:5]}.'
        )
    records = np.empty(length, self._record)
    for name, field in self._fields.items():
      array = np.asarray(steps[name])
      if field.dtype.kind == 'f' and not np.isfinite(array).all():
        raise ValueError(f'{what}: field {name!r} is not finite.')
      if name == 'flow' and self._fixed_point:
        array = fixed_point.encode(array)
      records[name] = array
    return records

  def _draw(
    self,
    rng: np.random.Generator,
    count: int,
    length: int,
    prioritize_ends: bool,
    across_ends: bool,
  ) -> list[list[segments.Piece]]:
    """Draws segments of episodes that are what was written."""
    while True:
      if not self._episodes:
        raise ValueError(
          f'The replay in {str(self._folder)!r} holds no whole episode to draw'
          ' from.'
        )
      lengths = np.array([episode.length for episode in self._episodes])
      if across_ends or lengths.min() < length:
        drawn = segments.across_ends(rng, lengths, count, length)
      else:
        drawn = segments.within_episodes(
          rng, lengths, count, length, prioritize_ends
        )
      unchecked = self._unchecked.intersection(
        self._episodes[piece.episode] for pieces in drawn for piece in pieces
      )
      corrupt = [e for e in sorted(unchecked) if not self._is_intact(e)]
      self._unchecked -= unchecked
      if not corrupt:
        return drawn
      self._drop_corrupt(corrupt)

  def _is_intact(self, episode: _Episode) -> bool:
    try:
      records = self._files.read(episode.start, episode.length)
    except OSError:
      return False
    return zlib.crc32(records.view(np.uint8)) == episode.checksum

  def _drop_corrupt(self, episodes: list[_Episode]) -> None:
    for episode in episodes:
      self._episodes.remove(episode)
      self._num_corrupt += 1
      _log.warning(
        'Replay in %r: %s in %s is not what was written, and is dropped; %d '
        'episodes are left.',
        str(self._folder),
        _describe(episode),
        ', '.join(
          path.name for path in self._files.paths(episode.start, episode.length)
        ),
        len(self._episodes),
      )

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Says what to do about a disk that cannot be written to."""
    try:
      yield
    except OSError as error:
      raise RuntimeError(
        f'The replay cannot be written to {str(self._folder)!r}: '
        f'{error.strerror}. It grows to {self._gigabytes():.2f} GB, less with '
        'a smaller config.replay.capacity. With space the run goes on from '
        'its last checkpoint.'
      ) from error

  def _gigabytes(self) -> float:
    """Size of the files once the capacity is reached."""
    return self._capacity * self._record.itemsize / _GIGABYTE

  def _drop_oldest(self) -> None:
    excess = self.num_steps - self._capacity
    while excess > 0 and len(self._episodes) > 1:
      episode = self._episodes.pop(0)
      self._unchecked.discard(episode)
      excess -= episode.length
    self._delete_unneeded()

  def _delete_unneeded(self) -> None:
    """Deletes files older than what is sampled or may be restored."""
    self._files.delete_before(min([self._oldest(), *self._saved]))

  def _oldest(self) -> int:
    """The first step of the oldest episode."""
    return self._episodes[0].start if self._episodes else self._cursor


def _describe(episode: _Episode) -> str:
  return f'the episode of {episode.length} steps at step {episode.start}'
