"""What is said about shards is counted by hand; the page holds all of it."""

import cv2
import numpy as np
import pytest
import random_inputs

from configs import preprocess as preprocess_config
from drp_jax.preprocess import video
from experiments import inspect_shards, run_preprocess


def _example(speed, visible, label=3):
  """Three frames, two keypoints; all flow is `speed` to the right."""
  flow = np.zeros((3, 64, 64, 2), np.float16)
  flow[1:, ..., 0] = speed
  mask = np.zeros((64, 64), bool)
  mask[:16] = True
  return {
    'flow': flow,
    'points': np.full((3, 2, 2), 9.0, np.float32),
    'visible': np.array(visible, bool),
    'mask': mask,
    'label': label,
  }


def test_statistics_by_hand():
  found = inspect_shards.statistics(
    iter(
      [
        _example(1.1, [[0, 0], [1, 1], [1, 0]]),
        _example(99.0, [[0, 0], [1, 0], [0, 0]], label=-1),
        _example(0.0, [[0, 0], [1, 1], [1, 1]]),
      ]
    )
  )
  expected = np.zeros(32, int)
  expected[4] = 3  # 1.1 is in [1, 1.25)
  expected[31] = 1  # beyond the end
  expected[0] = 4
  np.testing.assert_array_equal(found['speed_counts'], expected)
  np.testing.assert_allclose(found['lost'], [0.5 / 3, 1.5 / 3])
  assert found['labels'] == {-1: 1, 3: 2}
  assert found['mask_share'] == 0.25


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """Shards of two videos; a third is no video."""
  root = tmp_path_factory.mktemp('inspected')
  (root / 'videos').mkdir()
  for seed in range(2):
    frames = random_inputs.moving_squares(30, seed)
    video.write_video(root / 'videos' / f'{seed}.mp4', frames, 25)
  (root / 'videos' / 'x.mp4').write_text('no video')
  (root / 'videos' / 'y.mp4').symlink_to('nowhere')
  config = preprocess_config.get_config()
  config.path, config.data.shards_dir = str(root / 'videos'), str(root / 'set')
  config.data.validation_fraction, config.data.num_workers = 0.0, 1
  run_preprocess.preprocess(config)
  return root


def test_the_page_and_the_contact_sheet(folder, tmp_path):
  out = tmp_path / 'look'
  arguments = dict(split='train', num_rows=2, num_clips=9, seed=0)
  found = inspect_shards.inspect(str(folder / 'set'), str(out), **arguments)
  assert sorted(p.name for p in out.iterdir()) == [
    'contact_sheet.png',
    'report.html',
  ]
  assert found['labels'] == {-1: 2} and len(found['lost']) == 24
  sheet = cv2.imread(str(out / 'contact_sheet.png'))
  # Two rows of three times four panels of 128 pixels.
  assert sheet.shape == (2 * (18 + 128), 3 * (4 * 128 + 3 * 4) + 20, 3)
  page = (out / 'report.html').read_text()
  for text in (
    *('Motion', 'have no labels', 'unreadable', 'x.mp4', 'flow=dis'),
    *('dangling', 'y.mp4', 'held out whole'),
  ):
    assert text in page, text
  assert page.count('image/png') == 1 and page.count('image/svg+xml') == 2


def test_a_split_that_is_not_there(folder, tmp_path):
  with pytest.raises(ValueError, match="no split 'validation'"):
    inspect_shards.inspect(
      str(folder / 'set'), str(tmp_path), 'validation', 1, 1, 0
    )
  assert not list(tmp_path.iterdir())


def test_clips_per_label():
  found = {'labels': {-1: 2, 3: 9, 5: 4}}
  section = inspect_shards._labels(found)
  figure, table = section.items
  assert figure.data.startswith(b'<?xml') and '3 labels' in figure.caption
  assert table.rows == [('3', '9'), ('5', '4'), ('-1', '2')]
