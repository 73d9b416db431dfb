"""Shards of clips: a TFDS data set in ArrayRecord files, without TensorFlow.

`write_shards` is what preprocessing runs: restartable, in any number of
processes or machines that share a file system, since a shard depends on no
other and its files appear whole. `finish` writes what holds for all of them.
`builder.AtomicActions` is the same data set as a TFDS builder, for tools that
speak TFDS. Both share `shard_files.features`, and `tfds.builder_from_directory`
reads what either wrote.

TFDS needs two things said to stay clear of TensorFlow: the file format, and
`encoding='bytes'` (also ten times faster and bit exact, where the default makes
int64 of uint8). Images are stored raw and flow as float16;
benchmarks/storage.py has the numbers of the alternatives.
"""

import bisect
import collections
import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from drp_jax import extras
from drp_jax.data import clips, hold_out, report, schema, shard_files, sources

with extras.brings('data', __name__):
  import tensorflow_datasets as tfds

_log = logging.getLogger(__name__)

# (videos done by this process, its videos in all, source id of the last one)
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Share:
  """Share of one process: the shards s with s mod num_workers == worker.

  With `num_workers = num_shards`, shard `worker` alone.

  Attributes:
    worker: which of `num_workers` processes this is.
    num_workers: processes that write into the folder.
  """

  worker: int = 0
  num_workers: int = 1


ALL = Share()


def write_shards(
  shards_dir: str | os.PathLike,
  videos: Iterable[sources.Video],
  cutter: clips.Cutter,
  num_shards: int,
  share: Share = ALL,
  progress: Progress | None = None,
) -> dict[str, Any] | None:
  """Writes the shards that are not there yet.

  Video i in the order of source ids goes to shard i mod `num_shards`, whoever
  writes it, and a shard is written to a temporary file and renamed. So a run
  that was killed goes on after its last whole shard, and the bytes do not
  depend on how often it was killed, on the order of `videos` or on the number
  of workers. A worker that is alone also calls `finish`.

  Args:
    shards_dir: folder of this data set and of nothing else.
    videos: what to cut; must be the same at every restart.
    cutter: how to cut; its plan is checked against what the folder was begun
      with.
    num_shards: at most; never more than videos.
    share: which of them this process writes.
    progress: called after every video of this worker.

  Returns:
    The report (see `report.merge`), or None if there are other workers: then
    `finish`, or this function as the only worker, comes when all have ended.

  Raises:
    ValueError: if the folder was begun with another plan or other videos, or
      if no training clip came out.
  """
  shards_dir, plan = pathlib.Path(shards_dir), cutter.plan
  videos, num_shards = begin(shards_dir, videos, plan, num_shards, share.worker)
  whole = hold_out.first_splits(videos, plan)
  mine = range(share.worker, num_shards, share.num_workers)
  total = sum(len(videos[shard::num_shards]) for shard in mine)
  done = 0
  for shard in mine:
    members = videos[shard::num_shards]
    if not report.is_done(shards_dir, shard):
      tally = report.Tally()
      with shard_files.shard_writers(
        shards_dir, shard, num_shards, plan
      ) as writers:
        for offset, video in enumerate(members, start=1):
          split = whole.get(video.source_id)
          _write_video(video, cutter, split, writers, tally)
          if progress is not None:
            progress(done + offset, total, video.source_id)
      # Last, since it says that the files of both splits are whole.
      report.mark_done(shards_dir, shard, tally, share.worker)
    done += len(members)
  if share.num_workers > 1:  # Who of them is the last, none can know for sure.
    return None
  return _finish(shards_dir, videos, plan, num_shards, None)


def finish(
  shards_dir: str | os.PathLike,
  videos: Iterable[sources.Video],
  plan: clips.ClipPlan,
  num_shards: int,
  listing: sources.Listing | None = None,
) -> dict[str, Any]:
  """Writes the TFDS metadata and report.json once all shards are there.

  Moves whole videos from split to split where one is empty, see `hold_out`.

  Args:
    shards_dir: as in `write_shards`, like the others.
    videos: what was cut.
    plan: how.
    num_shards: at most.
    listing: where the videos are from, for the report.

  Returns:
    The report, see `report.merge`.

  Raises:
    ValueError: if the folder was begun with another plan or other videos, a
      shard is missing, or no training clip came out.
  """
  shards_dir = pathlib.Path(shards_dir)
  videos, num_shards = begin(shards_dir, videos, plan, num_shards)
  missing = [s for s in range(num_shards) if not report.is_done(shards_dir, s)]
  if missing:
    some = ', '.join(map(str, missing[:20])) + ', ...' * (len(missing) > 20)
    raise ValueError(
      f'config.data.shards_dir={os.fspath(shards_dir)!r} lacks {len(missing)} '
      f'of {num_shards} shards: {some}. Run them again.'
    )
  return _finish(shards_dir, videos, plan, num_shards, listing)


def open_split(
  shards_dir: str | os.PathLike, split: str, clip_length: int | None
) -> Sequence[clips.Example]:
  """Opens one split for random access.

  Args:
    shards_dir: what `write_shards` finished.
    split: 'train' or 'validation'.
    clip_length: frames that each clip must have, `config.data.clip_length` of
      the model that reads them; None if there is no model.

  Returns:
    A data source: `len(source)`, `source[i] -> dict` with the names of
    `features`; texts come as bytes. Every record has a checksum; one that is
    not what was written raises a ValueError that names its file.

  Raises:
    ValueError: if the folder is missing, unfinished, damaged, of another format
      version, has no such split, or holds other fields than the schema or
      clips of another length.
  """
  where = f'config.data.shards_dir={os.fspath(shards_dir)!r}'
  shards_dir = pathlib.Path(shards_dir)
  if not shards_dir.is_dir():
    raise ValueError(f'{where} is not a folder that exists.')
  if not (shards_dir / shard_files.LAST_FILE).is_file():
    raise ValueError(
      f'{where} holds no finished shards (no {shard_files.LAST_FILE}); run '
      'preprocessing again, it goes on where it was.'
    )
  try:
    builder = tfds.builder_from_directory(os.fspath(shards_dir))
  except Exception as error:  # of a JSON file that is damaged, of many kinds
    raise ValueError(
      f'{where}: {shard_files.LAST_FILE} or features.json is damaged'
      f' ({type(error).__name__}: {error}); delete both and run preprocessing'
      ' again, it writes them anew.'
    ) from error
  if str(builder.info.version) != schema.FORMAT_VERSION:
    raise ValueError(
      f'{where} has format version {builder.info.version}, this code reads '
      f'{schema.FORMAT_VERSION}; write the shards anew.'
    )
  if split not in builder.info.splits:
    raise ValueError(
      f'{where} has no split {split!r}, only {sorted(builder.info.splits)}.'
    )
  missing = [
    path.name
    for path in builder.info.splits[split].filepaths
    if not path.exists()
  ]
  if missing:
    raise ValueError(f'{where} lacks the files {missing}.')
  source = _Clips(builder, split, where)
  example = source[0]
  num_frames = len(example['image']) if 'image' in example else 0
  fields = schema.clip_fields(num_frames)
  if 'action' in example:  # older shards have none of the recorded fields
    fields |= schema.recorded_fields(num_frames)
  schema.check(example, fields, f'{where}, {split}')
  if clip_length not in (None, num_frames):
    raise ValueError(
      f'config.data.clip_length={clip_length}, but the clips of {where} have'
      f' {num_frames} frames: they were written with'
      f' config.data.clip_length={num_frames}. Set the one of the model to'
      f' {num_frames}, or preprocess again with {clip_length}.'
    )
  return source


class _Clips(Sequence):
  """A split of TFDS whose errors name the file."""

  def __init__(self, builder: tfds.core.DatasetBuilder, split: str, where: str):
    info = builder.info.splits[split]
    self._ends = np.cumsum(info.shard_lengths).tolist()
    self._paths = [pathlib.Path(path) for path in info.filepaths]
    self._where = where
    self._source = builder.as_data_source(split)

  def __len__(self) -> int:
    return self._ends[-1]

  # Slices, which no reader asks for, are left out of what a Sequence has.
  # pyrefly: ignore [bad-override]
  def __getitem__(self, index: int) -> clips.Example:
    if not 0 <= index < len(self):
      raise IndexError(f'Clip {index} of {len(self)}.')
    try:
      return self._source[index]
    except Exception as error:  # those of ArrayRecord are of many kinds
      shard = bisect.bisect_right(self._ends, index)
      raise ValueError(
        f'{self._where}: clip {index} in {self._paths[shard].name!r} cannot be'
        f' read ({error}). The file is damaged: delete it and'
        f' progress/{shard:05d}.json, and run preprocessing again; it writes'
        ' that shard anew.'
      ) from error


def begin(
  shards_dir: str | os.PathLike,
  videos: Iterable[sources.Video],
  plan: clips.ClipPlan,
  num_shards: int,
  worker: int = 0,
) -> tuple[list[sources.Video], int]:
  """Writes the plan, or compares it with what the folder was begun with.

  Args:
    shards_dir: as in `write_shards`, like the others.
    videos: what to cut.
    plan: how.
    num_shards: at most.
    worker: which process this is.

  Returns:
    The videos in the order of source ids, and how many shards they go to.

  Raises:
    ValueError: if the folder was begun with another plan or other videos.
  """
  videos = in_order(videos)
  if num_shards < 1:
    raise ValueError(f'config.data.num_shards={num_shards} must be at least 1.')
  num_shards = min(num_shards, len(videos))
  report.begin(pathlib.Path(shards_dir), plan, videos, num_shards, worker)
  return videos, num_shards


def in_order(videos: Iterable[sources.Video]) -> list[sources.Video]:
  """Sorts videos by their source ids.

  Raises:
    ValueError: if there is none, or two have the same id.
  """
  videos = sorted(videos, key=lambda video: video.source_id)
  if not videos:
    raise ValueError('There is no video to cut into clips.')
  for one, other in zip(videos[:-1], videos[1:], strict=True):
    if one.source_id == other.source_id:
      raise ValueError(f'Two videos have the source id {one.source_id!r}.')
  return videos


def _write_video(
  video: sources.Video,
  cutter: clips.Cutter,
  whole: str | None,
  writers: dict[str, Callable[[clips.Example], None]],
  tally: report.Tally,
) -> None:
  counts = collections.Counter()
  in_two = []

  def read(video: sources.Video) -> schema.Footage:
    footage = cutter.read_frames(video)
    tally.add_footage(video, footage)
    in_two.append(clips.tail(len(footage), cutter.plan, footage.cuts) > 0)
    return footage

  try:
    for split, example in clips.examples(
      video, cutter.plan, read, cutter.extract, clips.SPLITS, whole
    ):
      if example is not None:
        writers[split](example)
        counts[split] += 1
      tally.add_clip(split, example)
    tally.add_video(video, counts, video.split is None and not any(in_two))
  except clips.UnusableVideo as error:
    _log.warning('%s is left out: %s', video.source_id, error)
    tally.leave_out(video, str(error))


def _finish(
  shards_dir: pathlib.Path,
  videos: Sequence[sources.Video],
  plan: clips.ClipPlan,
  num_shards: int,
  listing: sources.Listing | None,
) -> dict[str, Any]:
  """Writes the TFDS metadata, then the report, which marks the end."""
  hold_out.settle(shards_dir, videos, plan, num_shards)
  merged = report.merge(shards_dir, plan, num_shards, listing)
  split_infos = []
  for split in clips.SPLITS:
    paths = [
      shard_files.shard_path(shards_dir, split, shard, num_shards)
      for shard in range(num_shards)
    ]
    lengths = report.shard_lengths(shards_dir, split, num_shards)
    if not sum(lengths):  # TFDS takes empty shards, but not an empty split.
      for path in paths:
        path.unlink(missing_ok=True)
      continue
    split_infos.append(
      tfds.core.SplitInfo(
        name=split,
        shard_lengths=lengths,
        num_bytes=sum(path.stat().st_size for path in paths),
        filename_template=shard_files.template(shards_dir),
      )
    )
  for leftover in ('*.tmp', 'progress/*.tmp'):  # of writers that were killed
    for path in shards_dir.glob(leftover):
      path.unlink(missing_ok=True)
  shard_files.write_metadata(shards_dir, plan, split_infos)
  report.write_report(shards_dir, merged, worker=0)
  return merged
