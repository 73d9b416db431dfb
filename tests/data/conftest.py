"""Small shards whose clips can be told apart by their first pixel."""

import numpy as np
import pytest

from drp_jax.data import clips, schema, shards, sources

_T = 3  # frames of a clip


@pytest.fixture(scope='session')
def small_shards(tmp_path_factory):
  """11 training and 5 validation clips of 3 frames, from three videos.

  Frame t of video v is gray of level 80 v + 4 t; motion is random.
  """
  folder = tmp_path_factory.mktemp('small')
  videos = []
  for number, num_frames in enumerate((18, 18, 15)):
    path = folder / f'{number}.npy'
    np.save(path, 80 * number + 4 * np.arange(num_frames, dtype=np.uint8))
    videos.append(sources.VideoId(path.name, path))
  plan = clips.ClipPlan(
    clip_length=_T,
    clip_stride=_T,
    validation_fraction=1 / 3,
    seed=0,
    extractor={'description': 'random'},
  )
  cutter = clips.Cutter(plan, _read, _extract)
  shards.write_shards(folder / 'shards', videos, cutter, 2)
  return folder / 'shards'


def _read(video: sources.VideoId) -> schema.Footage:
  levels = np.load(video.path)
  size = schema.IMAGE_SIZE
  shape = (len(levels), size, size, 3)
  return schema.Footage(
    np.broadcast_to(levels[:, None, None, None], shape).copy()
  )


def _extract(footage, rng):
  S, K = schema.IMAGE_SIZE, schema.MAX_KEYPOINTS
  return {
    'image': footage.image,
    'flow': rng.normal(size=(_T, S, S, 2)).astype(np.float16),
    'points': rng.uniform(0, S - 1, (_T, K, 2)).astype(np.float32),
    'visible': rng.random((_T, K)) < 0.7,
    'mask': rng.random((S, S)) < 0.5,
  }
