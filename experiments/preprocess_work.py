"""The work of one process of preprocessing: list, read, extract, write.

It is separate from the command, because processes of a pool, jobs of an array
and workers of Beam import it, and none of them needs a simulator.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import ml_collections
import numpy as np

from configs import preprocess
from drp_jax import files, recordings
from drp_jax.data import (
  clips,
  cuts,
  folders,
  hdf5,
  lerobot,
  report,
  schema,
  shards,
  sources,
  ssv2,
  tfds_records,
)
from drp_jax.preprocess import (
  backends,
  extract,
  frame_count,
  isolated,
  truth,
  video,
)
from drp_jax.runs import logger, settings

_RECORD = 'config.json'  # in the folder of the shards
_MAX_BYTES = 2**31  # memory limit of decoding a video            [ours]


@dataclasses.dataclass(frozen=True)
class Job:
  """Arguments of `shards.write_shards` that all workers share."""

  listing: sources.Listing
  plan: clips.ClipPlan
  read_frames: clips.ReadFrames
  extract: clips.Extract


def make_job(config: ml_collections.ConfigDict) -> Job:
  """Lists the videos and loads the back-ends.

  Args:
    config: configs/preprocess.py.

  Raises:
    ValueError: for invalid settings or folders; the message names the key.
  """
  names = (config.extract.flow, config.extract.mask, config.extract.tracker)
  estimators = backends.make_backends(
    backends.Settings(**config.extract.to_dict())
  )
  rate = f', {config.data.fps:g} a second' if config.data.fps else ''
  shape = 'center square' if config.data.centre_crop else 'whole frame'
  plan = clips.ClipPlan(
    clip_length=config.data.clip_length,
    clip_stride=config.data.clip_stride,
    validation_fraction=config.data.validation_fraction,
    hold_out=config.data.hold_out,
    seed=config.seed,
    extractor={
      'description': estimators.description,
      'frames': f'{shape}, at most {config.data.max_frames}{rate}',
      'shots': cuts.DESCRIPTION,
    },
    recorded=report.keeps_recordings(config.data.shards_dir),
  )
  return Job(
    listing=list_videos(config),
    plan=plan,
    read_frames=functools.partial(
      read_frames,
      decode=isolated.Isolated(
        video.decode, config.data.max_seconds, _MAX_BYTES
      ),
      count_frames=isolated.Isolated(
        frame_count.count_frames, config.data.max_seconds, _MAX_BYTES
      ),
      max_frames=config.data.max_frames,
      centre_crop=config.data.centre_crop,
      fps=config.data.fps,
      with_scene='sim' in names,
    ),
    extract=lambda footage, rng: extract.extract_clip(footage, estimators, rng),
  )


def list_videos(config: ml_collections.ConfigDict) -> sources.Listing:
  """Lists the videos of `config.source` in `config.path`.

  Raises:
    ValueError: for an unknown source, or as the function of the source.
  """
  match config.source:
    case 'folder' | 'embedded' | 'sim':
      return folders.folder_videos(config.path)
    case 'classes' | 'pushes':
      return folders.class_folders(config.path)
    case 'frames':
      return folders.frame_folders(config.path)
    case 'ssv2':
      annotations = config.ssv2.annotations or config.path
      return ssv2.ssv2_videos(config.path, annotations, config.ssv2.splits)
    case 'lerobot':
      listing = lerobot.lerobot_videos(config.path, config.lerobot.camera)
      if config.data.fps and _has_pictures(listing):
        raise ValueError(
          f'config.data.fps={config.data.fps} needs the times of frames, which'
          ' cameras of dtype image do not have; it must be 0.'
        )
      return listing
    case 'hdf5':
      return hdf5.hdf5_episodes(
        config.path, config.hdf5.images, config.hdf5.actions
      )
    case 'tfds':
      settings = config.tfds
      return tfds_records.tfds_records(
        settings.name,
        config.path,
        settings.split,
        settings.video_feature,
        settings.label_feature,
        settings.action_feature,
      )
  raise ValueError(
    f'config.source={config.source!r} must be one of folder, classes, '
    'frames, ssv2, lerobot, tfds, hdf5, embedded, sim, pushes.'
  )


def _has_pictures(listing: sources.Listing) -> bool:
  return any(isinstance(video, sources.Record) for video in listing.videos)


def read_frames(
  video_id: sources.Video,
  decode: Callable[
    [Any, int, bool, float, schema.Span | None], tuple[np.ndarray, np.ndarray]
  ],
  count_frames: Callable[[Any, float], int],
  max_frames: int,
  centre_crop: bool,
  fps: float,
  with_scene: bool,
) -> schema.Footage:
  """Decodes a video.

  Args:
    video_id: a file, a part of one, a folder of pictures or a record.
    decode: `video.decode` in an isolated process, because files are not
      trusted. It is not used for local records.
    count_frames: `frame_count.count_frames`, likewise.
    max_frames: maximum number of frames, from the first.
    centre_crop: see preprocess/video.py.
    fps: frames per second to resample files to; 0 takes all frames.
    with_scene: read the simulator's scene, too.

  Returns:
    The footage, with its recording if there is one.

  Raises:
    ValueError: if it cannot be read; the error has a `reason`.
  """
  recording = None
  total = 0  # frames of the video, if they are counted
  if isinstance(video_id, sources.Record):
    read = video.decode if video_id.is_local else decode
    images, numbers = read(video_id.reader, max_frames, centre_crop, 0.0, None)
    recording = _recording(video_id, numbers, None)
    if len(images) == max_frames:
      total = len(video_id.reader)
  elif video_id.path.is_dir():
    paths = sources.pictures(video_id.path)
    images, numbers = decode(paths, max_frames, centre_crop, 0.0, None)
    total = len(paths)
    recording = _recording(video_id, numbers, total)
  else:
    span = video_id.span
    images, numbers = decode(video_id.path, max_frames, centre_crop, fps, span)
    whole = len(images) < max_frames and not fps
    recording = _recording(video_id, numbers, len(images) if whole else None)
    if len(images) == max_frames:
      if span is None:
        total = _count(count_frames, video_id.path, fps)
      else:
        total = frame_count.count_in_span(span, fps)
  if not len(images):
    raise clips.UnusableVideo('empty', 'no frames')
  scene = _scene(video_id, len(images)) if with_scene else None
  unread = None if total is None else max(0, total - len(images))
  return schema.Footage(
    images, scene, unread, cuts.find_cuts(images), recording
  )


def _count(
  count_frames: Callable[[Any, float], int], path: pathlib.Path, fps: float
) -> int | None:
  """Counts the frames of a file; None if that fails, which loses no clip."""
  try:
    return count_frames(path, fps)
  except Exception:  # FFmpeg raises many kinds of errors
    return None


def _recording(
  video_id: sources.Video, numbers: np.ndarray, num_frames: int | None
) -> recordings.Recording | None:
  """Reads the recording of the frames that were taken; None if there is none.

  Args:
    video_id: the video.
    numbers: numbers of the frames that were taken.
    num_frames: number of frames of the video; None if they were not counted.

  Raises:
    clips.UnusableVideo: 'bad_recording', if it is damaged or has another number
      of entries than the video has frames.
  """
  place = f'{recordings.SUFFIX} file'
  try:
    if video_id.recorded is not None:
      place, recording = 'data set', video_id.recorded()
    elif isinstance(video_id, sources.Record):
      return None
    else:
      recording = recordings.read(video_id.path)
  except ValueError as error:
    raise clips.UnusableVideo('bad_recording', str(error)) from error
  if recording is None or not len(numbers):
    return None
  least = int(numbers[-1]) + 1
  if len(recording) < least or num_frames not in (None, len(recording)):
    raise clips.UnusableVideo(
      'bad_recording',
      f'{len(recording)} entries in the {place}, but'
      f' {num_frames or f"at least {least}"} frames in the video',
    )
  return recording.between(numbers)


def _scene(video_id: sources.Video, num_frames: int) -> dict[str, Any]:
  scene = None
  if isinstance(video_id, sources.VideoId):
    scene = truth.load(video_id.path)
  if scene is None:
    raise clips.UnusableVideo(
      'no_scene', "no simulator's state beside it, which 'sim' needs"
    )
  return {name: array[:num_frames] for name, array in scene.items()}


def compare(config: ml_collections.ConfigDict) -> bool:
  """Compares settings with those that the shards were begun with.

  Settings that change neither clips nor labels may differ. So may the folder of
  the videos, if their content is the same: see `compare_videos`.

  Args:
    config: configs/preprocess.py, with the final `data.num_shards`.

  Returns:
    Whether the videos are in another folder than before.

  Raises:
    ValueError: if another setting differs; the message names it.
  """
  folder = pathlib.Path(config.data.shards_dir)
  path = folder / _RECORD
  if not (path.exists() and (folder / report.PLAN_FILE).exists()):
    return False
  changed = settings.differences(
    settings.flat_tree(files.read_json(path)),
    settings.flat(config),
    settings.flat(preprocess.get_config()),
  )
  free = (*settings.MAY_CHANGE, *settings.PLACES)
  settings.refuse(
    str(folder), settings.without(changed, free), 'config.data.shards_dir'
  )
  return 'path' in changed


def compare_videos(
  config: ml_collections.ConfigDict, videos: Sequence[sources.Video]
) -> None:
  """Compares the content of videos with that recorded in finished shards.

  Raises:
    ValueError: if a video differs; the message names the first.
  """
  known = report.used_videos(config.data.shards_dir)
  for video_id in logger.progress(videos, 'compare', 'video'):
    digest = known.get(video_id.source_id)
    if digest is not None and video_id.sha256 != digest:
      raise ValueError(
        f'config.path={config.path!r} holds another {video_id.source_id!r} than'
        f' the one that config.data.shards_dir={config.data.shards_dir!r} was'
        ' begun with. Choose another config.data.shards_dir.'
      )


def record(config: ml_collections.ConfigDict) -> None:
  """Writes the settings of the shards into their folder."""
  value = json.loads(config.to_json())
  for key in (*settings.MAY_CHANGE, 'data.shards_dir'):
    *sections, name = key.split('.')
    section = value
    for part in sections:
      section = section.get(part, {})
    section.pop(name, None)
  folder = pathlib.Path(config.data.shards_dir)
  files.write_json(folder / _RECORD, value, f'.{report.process_id()}')


def work(config_json: str, worker: int, num_workers: int) -> None:
  """Writes one worker's shards; the function of `engines`.

  Args:
    config_json: configs/preprocess.py as JSON.
    worker: number of this worker.
    num_workers: number of workers. Only a single worker finishes the data set.
  """
  config = ml_collections.ConfigDict(json.loads(config_json))
  job = make_job(config)
  with logger.progress(0, f'extract [{worker}]', 'video') as bar:

    def progress(done: int, total: int, _: str) -> None:
      bar.total = total
      bar.update(done - bar.n)

    shards.write_shards(
      config.data.shards_dir,
      job.listing.videos,
      clips.Cutter(job.plan, job.read_frames, job.extract),
      config.data.num_shards,
      shards.Share(worker, num_workers),
      progress,
    )
