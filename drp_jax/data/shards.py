"""Shards of clips: a TFDS data set in ArrayRecord files, without TensorFlow.

`write_shards` is what preprocessing runs: restartable, in any number of
processes or machines that share a file system, since a shard depends on no
other and its files appear whole. `finish` writes what holds for all of them.
`AtomicActions` is the same data set as a TFDS builder, for tools that speak
TFDS. Both share `features`, and `tfds.builder_from_directory` reads what either
wrote.

TFDS needs two things said to stay clear of TensorFlow: the file format, and
`encoding='bytes'` (also ten times faster and bit exact, where the default makes
int64 of uint8). Images are stored raw and flow as float16;
benchmarks/storage.py has the numbers of the alternatives.
"""

import bisect
import contextlib
import functools
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import dataset_info, example_serializer

from drp_jax.data import clips, report, schema, sources

_log = logging.getLogger(__name__)

NAME = 'atomic_actions'
_FORMAT = 'array_record'
_LAST_FILE = 'dataset_info.json'  # of those that TFDS needs

# (videos done by this process, its videos in all, source id of the last one)
Progress = Callable[[int, int, str], None]


def features(num_frames: int) -> tfds.features.FeaturesDict:
  """Features of one example: `schema.clip_fields` and where it came from.

  `first_frame` and `num_frames` are the range in the video, `label` is -1 for
  none, `sha256` is of the video file, `extractor` a JSON text of names and
  versions.
  """
  arrays = {
    name: tfds.features.Tensor(
      shape=field.shape, dtype=field.dtype, encoding='bytes'
    )
    for name, field in schema.clip_fields(num_frames).items()
  }
  return tfds.features.FeaturesDict(
    {
      **arrays,
      'source_id': tfds.features.Text(),
      'first_frame': tfds.features.Scalar(np.int64),
      'num_frames': tfds.features.Scalar(np.int64),
      'label': tfds.features.Scalar(np.int64),
      'sha256': tfds.features.Text(),
      'extractor': tfds.features.Text(),
    }
  )


class AtomicActions(tfds.core.GeneratorBasedBuilder):
  """The clips of a set of videos as a TFDS builder.

  Holds the same examples as `write_shards` with the same arguments, in TFDS's
  own order, and writes no report.
  """

  VERSION = tfds.core.Version(schema.FORMAT_VERSION)

  def __init__(
    self,
    data_dir: str | os.PathLike,
    videos: Iterable[sources.Video],
    plan: clips.ClipPlan,
    read_frames: clips.ReadFrames,
    extract: clips.Extract,
  ):
    self._videos = _sorted(videos)
    self._plan = plan
    self._read_frames = read_frames
    self._extract = extract
    super().__init__(data_dir=os.fspath(data_dir), file_format=_FORMAT)

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self, features=features(self._plan.clip_length)
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # The videos are local.
    splits = {video.split for video in self._videos} - {None}
    if None in {video.split for video in self._videos}:
      tail = self._plan.validation_fraction
      splits |= set(clips.SPLITS if tail else ('train',))
    return {s: self._generate_examples(s) for s in clips.SPLITS if s in splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, Any]]:
    for video in self._videos:
      try:
        for _, example in clips.examples(
          video, self._plan, self._read_frames, self._extract, (split,)
        ):
          if example is not None:
            yield f'{video.source_id}:{example["first_frame"]}', example
      except clips.UnusableVideo as error:
        _log.warning('%s is left out: %s', video.source_id, error)


def write_shards(
  shards_dir: str | os.PathLike,
  videos: Iterable[sources.Video],
  plan: clips.ClipPlan,
  read_frames: clips.ReadFrames,
  extract: clips.Extract,
  num_shards: int,
  worker: int = 0,
  num_workers: int = 1,
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
    plan: how to cut, checked against what the folder was begun with.
    read_frames: see `clips.ReadFrames`.
    extract: see `clips.Extract`.
    num_shards: at most; never more than videos.
    worker: which of `num_workers` processes this is; it writes the shards s
      with s mod num_workers == worker. With `num_workers = num_shards`, shard
      `worker` alone.
    num_workers: processes that write into this folder.
    progress: called after every video of this worker.

  Returns:
    The report (see `report.merge`), or None if there are other workers: then
    `finish`, or this function as the only worker, comes when all have ended.

  Raises:
    ValueError: if the folder was begun with another plan or other videos, or
      if no training clip came out.
  """
  shards_dir = pathlib.Path(shards_dir)
  videos, num_shards = _begin(shards_dir, videos, plan, num_shards, worker)
  mine = range(worker, num_shards, num_workers)
  total = sum(len(videos[shard::num_shards]) for shard in mine)
  done = 0
  for shard in mine:
    members = videos[shard::num_shards]
    if not report.is_done(shards_dir, shard):
      tally = report.Tally()
      with _shard_writers(shards_dir, shard, num_shards, plan) as writers:
        for offset, video in enumerate(members, start=1):
          _write_video(video, plan, read_frames, extract, writers, tally)
          if progress is not None:
            progress(done + offset, total, video.source_id)
      # Last, since it says that the files of both splits are whole.
      report.mark_done(shards_dir, shard, tally, worker)
    done += len(members)
  if num_workers > 1:  # Who of them is the last, none can know for sure.
    return None
  return _finish(shards_dir, plan, num_shards)


def finish(
  shards_dir: str | os.PathLike,
  videos: Iterable[sources.Video],
  plan: clips.ClipPlan,
  num_shards: int,
) -> dict[str, Any]:
  """Writes the TFDS metadata and report.json once all shards are there.

  Args:
    shards_dir: as in `write_shards`, like the others.
    videos: what was cut.
    plan: how.
    num_shards: at most.

  Returns:
    The report, see `report.merge`.

  Raises:
    ValueError: if the folder was begun with another plan or other videos, a
      shard is missing, or no training clip came out.
  """
  shards_dir = pathlib.Path(shards_dir)
  _, num_shards = _begin(shards_dir, videos, plan, num_shards, worker=0)
  missing = [s for s in range(num_shards) if not report.is_done(shards_dir, s)]
  if missing:
    some = ', '.join(map(str, missing[:20])) + ', ...' * (len(missing) > 20)
    raise ValueError(
      f'config.data.shards_dir={os.fspath(shards_dir)!r} lacks {len(missing)} '
      f'of {num_shards} shards: {some}. Run them again.'
    )
  return _finish(shards_dir, plan, num_shards)


def open_split(
  shards_dir: str | os.PathLike, split: str
) -> Sequence[clips.Example]:
  """Opens one split for random access.

  Args:
    shards_dir: what `write_shards` finished.
    split: 'train' or 'validation'.

  Returns:
    A data source: `len(source)`, `source[i] -> dict` with the names of
    `features`; texts come as bytes. Every record has a checksum; one that is
    not what was written raises a ValueError that names its file.

  Raises:
    ValueError: if the folder is missing, unfinished, damaged, of another format
      version, has no such split, or holds other fields than the schema.
  """
  where = f'config.data.shards_dir={os.fspath(shards_dir)!r}'
  shards_dir = pathlib.Path(shards_dir)
  if not shards_dir.is_dir():
    raise ValueError(f'{where} is not a folder that exists.')
  if not (shards_dir / _LAST_FILE).is_file():
    raise ValueError(
      f'{where} holds no finished shards (no {_LAST_FILE}); run '
      'preprocessing again, it goes on where it was.'
    )
  try:
    builder = tfds.builder_from_directory(os.fspath(shards_dir))
  except Exception as error:  # of a JSON file that is damaged, of many kinds
    raise ValueError(
      f'{where}: {_LAST_FILE} or features.json is damaged'
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
  schema.check(example, schema.clip_fields(num_frames), f'{where}, {split}')
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


def _begin(
  shards_dir: pathlib.Path,
  videos: Iterable[sources.Video],
  plan: clips.ClipPlan,
  num_shards: int,
  worker: int,
) -> tuple[list[sources.Video], int]:
  """Checks and writes the plan; returns sorted videos, number of shards."""
  videos = _sorted(videos)
  if num_shards < 1:
    raise ValueError(f'config.data.num_shards={num_shards} must be at least 1.')
  num_shards = min(num_shards, len(videos))
  report.begin(shards_dir, plan, videos, num_shards, worker)
  return videos, num_shards


def _sorted(videos: Iterable[sources.Video]) -> list[sources.Video]:
  videos = sorted(videos, key=lambda video: video.source_id)
  if not videos:
    raise ValueError('There is no video to cut into clips.')
  for one, other in zip(videos[:-1], videos[1:], strict=True):
    if one.source_id == other.source_id:
      raise ValueError(f'Two videos have the source id {one.source_id!r}.')
  return videos


def _template(shards_dir: pathlib.Path) -> tfds.core.ShardedFileTemplate:
  return tfds.core.ShardedFileTemplate(
    data_dir=shards_dir, dataset_name=NAME, filetype_suffix=_FORMAT
  )


def _shard_path(
  shards_dir: pathlib.Path, split: str, shard: int, num_shards: int
) -> pathlib.Path:
  template = _template(shards_dir).replace(split=split)
  path = template.sharded_filepath(shard_index=shard, num_shards=num_shards)
  return pathlib.Path(path)


@contextlib.contextmanager
def _shard_writers(
  shards_dir: pathlib.Path,
  shard: int,
  num_shards: int,
  plan: clips.ClipPlan,
) -> Iterator[dict[str, Callable[[clips.Example], None]]]:
  """Yields split -> function that appends an example to that split's shard."""
  spec = features(plan.clip_length)
  serializer = example_serializer.ExampleSerializer(spec.get_serialized_info())
  paths = {
    split: _shard_path(shards_dir, split, shard, num_shards)
    for split in clips.SPLITS
  }
  # Whoever else writes this shard at the same time (a machine thought dead)
  # writes the same bytes, but must not write them into our file.
  temporary = {
    s: path.with_name(f'{path.name}.{report.process_id()}.tmp')
    for s, path in paths.items()
  }
  with contextlib.ExitStack() as stack:
    writers = {}
    for split, path in temporary.items():
      # One record per group, so that a clip is read without its neighbours.
      writer = array_record_module.ArrayRecordWriter(
        os.fspath(path), 'group_size:1'
      )
      stack.callback(writer.close)
      writers[split] = functools.partial(_append, writer, serializer, spec)
    yield writers
  for split, path in paths.items():
    os.replace(temporary[split], path)


def _append(
  writer: array_record_module.ArrayRecordWriter,
  serializer: example_serializer.ExampleSerializer,
  spec: tfds.features.FeaturesDict,
  example: clips.Example,
) -> None:
  record = serializer.get_tf_example(spec.encode_example(example))
  # Otherwise the order of the fields differs from process to process, and with
  # it the bytes of a shard.
  writer.write(record.SerializeToString(deterministic=True))


def _write_video(
  video: sources.Video,
  plan: clips.ClipPlan,
  read_frames: clips.ReadFrames,
  extract: clips.Extract,
  writers: dict[str, Callable[[clips.Example], None]],
  tally: report.Tally,
) -> None:
  try:
    for split, example in clips.examples(
      video, plan, read_frames, extract, clips.SPLITS
    ):
      if example is not None:
        writers[split](example)
      tally.add_clip(split, example)
    tally.add_video(video)
  except clips.UnusableVideo as error:
    _log.warning('%s is left out: %s', video.source_id, error)
    tally.leave_out(video, str(error))


def _finish(
  shards_dir: pathlib.Path, plan: clips.ClipPlan, num_shards: int
) -> dict[str, Any]:
  """Writes the TFDS metadata, then the report, which marks the end."""
  merged = report.merge(shards_dir, plan, num_shards)
  split_infos = []
  for split in clips.SPLITS:
    paths = [
      _shard_path(shards_dir, split, shard, num_shards)
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
        filename_template=_template(shards_dir),
      )
    )
  for leftover in ('*.tmp', 'progress/*.tmp'):  # of writers that were killed
    for path in shards_dir.glob(leftover):
      path.unlink(missing_ok=True)
  _write_metadata(shards_dir, plan, split_infos)
  report.write_report(shards_dir, merged, worker=0)
  return merged


def _write_metadata(
  shards_dir: pathlib.Path,
  plan: clips.ClipPlan,
  split_infos: list[tfds.core.SplitInfo],
) -> None:
  """What `tfds.folder_dataset.write_metadata` writes, but whole or not at all.

  That function writes in place, so a kill may leave half a file.
  """
  info = tfds.core.DatasetInfo(
    builder=dataset_info.DatasetIdentity(
      name=NAME,
      version=tfds.core.Version(schema.FORMAT_VERSION),
      data_dir=os.fspath(shards_dir),
      module_name='',
    ),
    features=features(plan.clip_length),
  )
  info.set_file_format(_FORMAT)
  info.set_splits(tfds.core.splits.SplitDict(split_infos))
  unfinished = shards_dir / '.metadata'
  unfinished.mkdir(exist_ok=True)
  info.write_to_directory(unfinished)
  # Last the one that `open_split` looks for.
  written = sorted(unfinished.iterdir(), key=lambda p: p.name == _LAST_FILE)
  for path in written:
    os.replace(path, shards_dir / path.name)
  unfinished.rmdir()
