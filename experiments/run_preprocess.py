r"""Turns videos into shards of atomic actions; see configs/preprocess.py.

On one machine the command runs config.data.num_workers processes. If it was
stopped, the same command resumes.

On many machines with a shared file system, run one job for each shard, in any
order, and again if one failed. Then run one that finishes the data set. With
SLURM:

  sbatch --array=0-999 --wrap='python -m experiments.run_preprocess ... \
      --config.shards=$SLURM_ARRAY_TASK_ID/1000'
  python -m experiments.run_preprocess ... --config.shards=finish/1000

Or use a runner of Apache Beam (extra [beam]; further flags of Beam in
config.beam_options), whose workers must have access to the files and this
project:

  python -m experiments.run_preprocess ... --config.beam_runner=FlinkRunner \
      --config.data.num_shards=1000
"""

import contextlib
import functools
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import ml_collections
from ml_collections import config_flags

from drp_jax import files
from drp_jax.data import embedded, engines, shards
from drp_jax.data import report as report_lib
from drp_jax.preprocess import video
from drp_jax.runs import limits, logger, settings, workdir
from experiments import launch, preprocess_work

_RENDERS = '.renders.json'  # in config.path, holds the settings of its renders


def preprocess(config: ml_collections.ConfigDict) -> dict | None:
  """Fetches or lists videos, extracts atomic actions, writes shards.

  Args:
    config: configs/preprocess.py.

  Returns:
    The report, which is also written beside the shards; None for one job of an
    array, which writes no report.

  Raises:
    ValueError: for settings or folders that are invalid, or that differ from
      those that shards or renders were begun with; the message names the key.
    RuntimeError: if a process died repeatedly, if another build runs in the
      folder, or if the folder is not writable.
    SystemExit: with code 0, on SIGTERM; complete shards are kept.
  """
  limits.check_preprocessing(config)
  for key, folder in (
    ('config.path', config.path),
    ('config.data.shards_dir', config.data.shards_dir),
  ):
    if not folder:
      raise ValueError(f'{key} is empty; it must name a folder.')
  with contextlib.ExitStack() as stack:
    if not config.shards:  # jobs of an array share the folder
      stack.enter_context(workdir.locked(config.data.shards_dir))
    stack.enter_context(_leaving_on_sigterm(config.data.shards_dir))
    return _preprocess(config)


def _preprocess(config: ml_collections.ConfigDict) -> dict | None:
  part, num_shards = parse_shards(config.shards, config.data.num_shards)
  config = config.copy_and_resolve_references()
  config.data.num_shards = num_shards
  moved = preprocess_work.compare(config)
  work = functools.partial(preprocess_work.work, config.to_json())
  if isinstance(part, int):
    work(part, num_shards)
    if not moved:  # otherwise the last job, 'finish', compares all videos
      preprocess_work.record(config)
    return None
  if part != 'finish':
    fetch(config)
  # Fails here, not in every worker, on a wrong setting.
  job = preprocess_work.make_job(config)
  if moved:
    preprocess_work.compare_videos(config, job.listing.videos)
  shards.begin(config.data.shards_dir, job.listing.videos, job.plan, num_shards)
  preprocess_work.record(config)
  if part != 'finish':
    _write_all(work, config, min(num_shards, len(job.listing.videos)))
  report = shards.finish(
    config.data.shards_dir,
    job.listing.videos,
    job.plan,
    num_shards,
    job.listing,
  )
  files.write_json(
    pathlib.Path(config.data.shards_dir) / 'run.json', workdir.describe()
  )
  return report


@contextlib.contextmanager
def _leaving_on_sigterm(shards_dir: str) -> Iterator[None]:
  """Ends the process with code 0 on SIGTERM; its workers end with it.

  There is nothing to save: a shard is written whole, or written again.
  """

  def leave(*_):
    # `timeout` sends it twice; the second must not disturb the shutdown.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(
      f'SIGTERM: complete shards are kept in {shards_dir}; the same command'
      ' resumes.',
      file=sys.stderr,
    )
    raise SystemExit(0)

  in_main = threading.current_thread() is threading.main_thread()
  before = signal.signal(signal.SIGTERM, leave) if in_main else None
  try:
    yield
  finally:
    if in_main:
      signal.signal(signal.SIGTERM, before)


def parse_shards(text: str, num_shards: int) -> tuple[int | str, int]:
  """Reads `config.shards`.

  Args:
    text: '' for all shards; '17/1000' for one; 'finish/1000' to finish the data
      set.
    num_shards: `config.data.num_shards`, used if `text` is empty.

  Returns:
    '', the number of the shard or 'finish'; and the number of shards.

  Raises:
    ValueError: for any other text.
  """
  if not text:
    return '', num_shards
  part, _, total = text.partition('/')
  if total.isdecimal() and int(total):
    if part == 'finish':
      return part, int(total)
    if part.isdecimal() and int(part) < int(total):
      return int(part), int(total)
  raise ValueError(
    f'config.shards={text!r} must be empty, <shard>/<shards> such as '
    "'17/1000' (the first is 0/1000), or 'finish/1000'."
  )


def fetch(config: ml_collections.ConfigDict) -> None:
  """Fills `config.path`, if `config.source` makes its own videos.

  'embedded': real clips of a package in real/, renders of robots in robots/, of
  scripted arms in arms/ and of pushes in pushes/.
  'sim': renders with the simulator's state beside them.
  'pushes': renders of three kinds of motion.
  The motion of every render is written beside it, see `drp_jax/recordings.py`.
  """
  if config.source not in ('embedded', 'sim', 'pushes'):
    return
  # Imported here, because processes that only extract import this file, too.
  from drp_jax.envs import gl, pushes, renders

  gl.load_triton()  # because this process may extract afterwards
  folder, length = pathlib.Path(config.path), config.data.clip_length
  _claim(folder, config)

  def push(folder: pathlib.Path, clips_per_class: int) -> None:
    pushes.write_videos(
      folder, clips_per_class, length, config.seed, video.write_video
    )

  def roll(folder, tasks, clips_per_task, frames, policy, scenes) -> None:
    for task in logger.progress(tasks, 'render', 'task'):
      renders.write_rollouts(
        folder,
        [task],
        clips_per_task,
        frames,
        config.seed,
        video.write_video,
        scenes=scenes,
        policy=policy,
      )

  match config.source:
    case 'pushes':
      push(folder, config.pushes.clips_per_class)
    case 'sim':
      sim = config.sim
      roll(folder, sim.tasks, sim.clips_per_task, sim.frames, sim.policy, True)
    case 'embedded':
      c = config.embedded
      embedded.fetch(folder / 'real')
      if c.opencv_doc:
        embedded.fetch_opencv_doc(folder / 'real')
      robots, arms = folder / 'robots', folder / 'arms'
      roll(robots, c.tasks, c.clips_per_task, c.frames, 'random', False)
      roll(arms, c.arms, c.clips_per_arm, c.frames, 'scripted', False)
      if c.clips_per_push:
        push(folder / 'pushes', c.clips_per_push)


def _claim(folder: pathlib.Path, config: ml_collections.ConfigDict) -> None:
  """Compares the settings of renders with those that the folder was begun with.

  An existing render is not made again, and its name does not contain its seed.
  An older folder without recorded settings is assumed to have today's.

  Raises:
    ValueError: if settings differ; the message names them.
  """
  flat = settings.flat(config)
  own = (f'{config.source}.', 'source', 'seed')
  new = {key: flat[key] for key in flat if key.startswith(own)}
  pushes = config.source == 'pushes' or config.embedded.get('clips_per_push')
  if pushes:  # as long as a clip
    new['data.clip_length'] = config.data.clip_length
  path = folder / _RENDERS
  rendered = any(
    'real' not in video.relative_to(folder).parts
    for video in folder.rglob('*.mp4')
  )
  if rendered and path.exists():
    changed = settings.differences(files.read_json(path), new, {})
    settings.refuse(str(folder), changed, 'config.path', _RENDERS)
  else:
    files.write_json(path, new)


def _write_all(
  work: engines.Work, config: ml_collections.ConfigDict, num_shards: int
) -> None:
  """Writes missing shards, on this machine or on Beam's runner."""
  num_workers = min(config.data.num_workers, num_shards)
  if config.beam_runner:
    options = [str(option) for option in config.beam_options]
    if config.beam_runner == 'DirectRunner':  # by default one thread
      options = [
        f'--direct_num_workers={num_workers}',
        '--direct_running_mode=multi_processing',
        *options,
      ]
    engines.run_beam(work, num_shards, config.beam_runner, options)
  elif num_workers > 1:
    engines.run_processes(work, num_workers)
  else:
    work(0, 1)


def summary(report: dict[str, Any], shards_dir: str) -> str:
  """Summarizes a report in one line."""
  videos, clips = report['split_videos'], report['num_clips']
  parts = [
    f'{clips["train"]} training and {clips["validation"]} validation clips of'
    f' {report["num_videos"]} videos in {shards_dir}'
  ]
  if videos is not None:
    parts.append(
      f'{videos["validation"]} videos give validation clips,'
      f' {report["held_out_videos"]} of them whole'
    )
  unread = [entry['unread'] for entry in report['cut_short']]
  if unread:
    parts.append(
      f'{len(unread)} videos are longer than config.data.max_frames,'
      f' {sum(frames or 0 for frames in unread)} frames were not read'
    )
  cuts = report['cuts'].values()
  if cuts:
    parts.append(f'{sum(cuts)} hard cuts in {len(cuts)} videos')
  not_taken = [{'reason': reason} for reason in report['not_taken'].values()]
  if report['recorded_videos']:
    parts.append(f'{report["recorded_videos"]} videos have recorded actions')
  for entries, what in (
    (report['left_out'], 'videos left out'),
    (not_taken, 'names not taken'),
  ):
    reasons = report_lib.count_reasons(entries)
    parts.append(f'{len(entries)} {what}{f": {reasons}" if reasons else ""}')
  return f'{"; ".join(parts)} (report.json says more).'


def main() -> None:
  config = _CONFIG.value
  report = preprocess(config)
  if report is None:
    print(f'Shard {config.shards} is in {config.data.shards_dir}.')
    return
  if not report['num_clips']['validation']:
    print(
      'WARNING: no clip is held out, so pre-training will have no metrics of'
      ' held-out clips.',
      file=sys.stderr,
    )
  print(summary(report, config.data.shards_dir))


if __name__ == '__main__':  # flags too, since the demo imports this file
  _CONFIG = config_flags.DEFINE_config_file(
    'config', 'configs/preprocess.py', 'Settings.'
  )
  launch.run(main)
