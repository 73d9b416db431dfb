"""The benchmark on one short look, and its numbers on known answers."""

import json

import numpy as np
import pytest

from benchmarks import perception, runnable
from configs import extract as extract_config
from drp_jax.data import schema
from drp_jax.preprocess import truth


@pytest.fixture(scope='module')
def clips():
  return perception.film(perception.PLAIN[1], num_clips=1)


@pytest.fixture(scope='module')
def settings():
  return extract_config.get_config('robot')


def test_a_clip_is_what_the_protocol_says(clips):
  (clip,) = clips
  assert clip.image.shape == (perception.FRAMES, 64, 64, 3)
  assert len(clip.scene['depth']) == perception.FRAMES


def test_the_truth_is_without_error(clips):
  errors = perception.flow_errors(truth.flow, clips)
  assert errors == {'all': 0, 'body': 0, 'moving': 0}
  accuracy = perception.track_accuracy(truth.Tracker(), clips)
  assert accuracy == {'at8': 1, 'at25': 1}
  masks = perception.mask_accuracy(truth.mask, truth.Tracker(), clips)
  assert masks == {'iou': 1, 'keypoints': 1}


def test_errors_are_in_pixels(clips):
  def wrong(start, end):
    return truth.flow(start, end) + np.float32([3, 4])

  errors = perception.flow_errors(wrong, clips)
  for value in errors.values():
    assert value == pytest.approx(5, abs=1e-4)


def test_accuracy_is_the_mean_over_thresholds(clips):
  class Wrong:
    """3 pixels off: within the last of .25, .5, 1, 2 and 4 only."""

    def over_clip(self, footage):
      def follow(points):
        tracks, seen = truth.follow(footage, points)
        return tracks + np.float32([3, 0]), seen

      return follow

  accuracy = perception.track_accuracy(Wrong(), clips)
  assert accuracy == pytest.approx({'at8': 0.2, 'at25': 0.2})


def test_points_are_on_the_body_and_move(clips):
  (clip,) = clips
  points = perception.moving_points(clip, np.random.default_rng(0))
  assert 0 < len(points) <= perception.POINTS
  x, y = points.astype(int).T
  assert truth.mask(clip)[y, x].all()
  tracks, _ = truth.follow(clip, points)
  assert (np.abs(tracks - points).max(axis=(0, 2)) > 0.5).all()


def test_the_measured_beat_the_baselines_and_fit_a_table(
  clips, settings, monkeypatch
):
  monkeypatch.setattr(perception, 'film', lambda *_: clips)
  result = perception.measure(perception.PLAIN[1], 1, settings)
  flow, tracks, masks = result['flow'], result['tracker'], result['mask']
  assert flow['dis']['body'] < flow['zero']['body']
  assert tracks['farneback']['at8'] > tracks['not moving']['at8']
  assert masks['motion_colour']['iou'] > masks['whole frame']['iou']
  # No weights, no learned back-ends.
  assert list(flow) == ['zero', 'dis', 'farneback']

  names = [s.name for s in (*perception.PLAIN, *perception.TEXTURED)]
  results = dict.fromkeys(names, result)
  numbers = perception.summary(results, settings)
  json.dumps(numbers, allow_nan=False)
  ratio = flow['dis']['body'] / flow['zero']['body']
  assert numbers['body_epe_over_zero'] == pytest.approx(ratio)
  assert numbers['tap_avg'] == pytest.approx(tracks['farneback']['at25'])
  share = masks['motion_colour']['keypoints']
  assert numbers['keypoints_on_body_plain'] == pytest.approx(share)
  lines = perception.table(results).splitlines()
  assert len(lines) == 2 + len(flow) + len(tracks) + len(masks)
  assert len({line.count('|') for line in lines}) == 1


def test_learned_back_ends_run_when_all_their_paths_are_given(settings):
  settings.tapir.weights = 'somewhere'
  assert 'tapir' not in runnable.names('tracker', settings)
  settings.tapir.checkout = 'elsewhere'
  assert runnable.names('tracker', settings) == ['farneback', 'tapir']


def test_nothing_that_moves_fast_is_no_number():
  frame = {
    'geom': np.zeros((2, 8, 8), np.int16),
    'depth': np.ones((2, 8, 8), np.float32),
    'position': np.zeros((2, 1, 3), np.float32),
    'rotation': np.tile(np.eye(3, dtype=np.float32), (2, 1, 1, 1)),
    'moves': np.ones((2, 1), bool),
    'camera_position': np.zeros((2, 3), np.float32),
    'camera_rotation': np.tile(np.eye(3, dtype=np.float32), (2, 1, 1)),
    'focal': np.ones(2, np.float32),
  }
  still = schema.Footage(np.zeros((2, 8, 8, 3), np.uint8), frame)
  assert perception.flow_errors(truth.flow, [still])['moving'] is None
