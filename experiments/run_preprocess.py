"""Turns videos into shards of atomic actions; see configs/preprocess.py."""

import json
import multiprocessing
import pathlib

import ml_collections
import numpy as np
from ml_collections import config_flags

from drp_jax.data import clips, schema, shards, sources
from drp_jax.data import report as report_lib
from drp_jax.envs import renders
from drp_jax.preprocess import extract, video
from drp_jax.train import logger, workdir
from experiments import launch


def preprocess(config: ml_collections.ConfigDict) -> dict:
  """Fetches or lists videos, extracts atomic actions, writes shards.

  Args:
    config: configs/preprocess.py.

  Returns:
    The report that lies beside the shards.

  Raises:
    ValueError: for settings or folders that do not fit, naming the key.
  """
  for key, folder in (
    ('config.path', config.path),
    ('config.data.shards_dir', config.data.shards_dir),
  ):
    if not folder:
      raise ValueError(f'{key} is empty; it must name a folder.')
  if config.source == 'embedded':
    fetch(config)
  elif config.source != 'folder':
    raise ValueError(
      f"config.source is 'folder' or 'embedded', not {config.source!r}."
    )
  videos = sources.folder_videos(config.path)
  make_backends(config)  # fails here, not in every worker, on a wrong name
  num_workers = min(config.data.num_workers, len(videos))
  if num_workers > 1:
    # Spawned: JAX and OpenCV threads do not survive a fork.
    context = multiprocessing.get_context('spawn')
    with context.Pool(num_workers) as pool:
      tasks = [(config.to_json(), i, num_workers) for i in range(num_workers)]
      pool.starmap(_work, tasks)
  _work(config.to_json(), 0, 1)  # whatever is left, then the report
  report = report_lib.read_report(config.data.shards_dir)
  workdir.write_json(
    pathlib.Path(config.data.shards_dir) / 'run.json', workdir.describe()
  )
  return report


def fetch(config: ml_collections.ConfigDict) -> None:
  """Fills `config.path` with real clips and renders of robots."""
  folder = pathlib.Path(config.path)
  sources.fetch_embedded(folder / 'real')
  if config.embedded.opencv_doc:
    sources.fetch_opencv_doc(folder / 'real')
  tasks = logger.progress(config.embedded.tasks, 'render', 'task')
  for task in tasks:
    renders.write_rollouts(
      folder / 'robots',
      [task],
      config.embedded.clips_per_task,
      config.embedded.frames,
      config.seed,
      video.write_video,
    )


def make_backends(config: ml_collections.ConfigDict) -> extract.Backends:
  """Back-ends by the names in `config.extract`."""
  return extract.make_backends(
    flow=config.extract.flow,
    mask=config.extract.mask,
    tracker=config.extract.tracker,
  )


def _work(config_json: str, worker: int, num_workers: int) -> None:
  """Writes one worker's shards."""
  config = ml_collections.ConfigDict(json.loads(config_json))
  backends = make_backends(config)
  plan = clips.ClipPlan(
    clip_length=config.data.clip_length,
    clip_stride=config.data.clip_stride,
    validation_fraction=config.data.validation_fraction,
    seed=config.seed,
    extractor={'description': backends.description},
  )
  videos = sources.folder_videos(config.path)
  total = len(videos[worker::num_workers])
  with logger.progress(total, f'extract [{worker}]', 'video') as bar:
    shards.write_shards(
      config.data.shards_dir,
      videos,
      plan,
      _read,
      lambda footage, rng: extract.extract_clip(footage, backends, rng),
      config.data.num_shards,
      worker,
      num_workers,
      lambda done, *_: bar.update(done - bar.n),
    )


def _read(video_id: sources.VideoId) -> schema.Footage:
  """Decodes a whole video."""
  return schema.Footage(np.stack(list(video.iterate(video_id.path))))


def main() -> None:
  config = _CONFIG.value
  report = preprocess(config)
  print(
    f'{report["num_clips"]} clips of {report["num_videos"]} videos in'
    f' {config.data.shards_dir}; {len(report["left_out"])} videos left out'
    ' (report.json says why).'
  )


if __name__ == '__main__':  # flags too, since the demo imports this file
  _CONFIG = config_flags.DEFINE_config_file(
    'config', 'configs/preprocess.py', 'Settings.'
  )
  launch.run(main)
