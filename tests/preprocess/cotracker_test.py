"""The adapter of CoTracker3, with a checkout that the test makes.

With DRP_COTRACKER_CHECKOUT=<folder> also with a real one, on random weights.
"""

import os

import numpy as np
import pytest

from drp_jax.data import schema

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

from drp_jax.preprocess import cotracker  # noqa: E402

# Points move at a learned velocity; those that begin in black are hidden.
_HUBCONF = """
import torch


class Model(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.velocity = torch.nn.Parameter(torch.zeros(2))


class Predictor(torch.nn.Module):
  def __init__(self):
    super().__init__()
    self.model = Model()

  def forward(self, video, queries):
    _, T, C, H, W = video.shape
    assert C == 3 and video.dtype == queries.dtype == torch.float32
    assert video.max() > 200 and (queries[..., 0] == 0).all()
    time = torch.arange(T)[None, :, None, None]
    tracks = queries[:, None, :, 1:] + time * self.model.velocity + 0.001
    x, y = queries[0, :, 1:].round().long().T
    bright = video[0, :, 0, y, x] > 100
    return tracks, bright[None]


def cotracker3_offline(pretrained=True):
  assert not pretrained, 'this would be a download'
  return Predictor()
"""


@pytest.fixture
def paths(tmp_path):
  (tmp_path / 'hubconf.py').write_text(_HUBCONF, encoding='utf-8')
  path = tmp_path / 'scaled_offline.pth'
  torch.save({'model': {'velocity': torch.tensor([2.0, -1.0])}}, path)
  return {'checkout': str(tmp_path), 'weights': str(path)}


@pytest.fixture
def footage():
  """Bright, but for the left columns in frame 3."""
  frames = np.full((6, 64, 64, 3), 220, np.uint8)
  frames[3, :, :8] = 0
  return schema.Footage(frames)


def test_points_come_and_go_in_pixels(paths, footage):
  track = cotracker.CoTracker3(**paths, device='cpu').over_clip(footage)
  points = np.array([[20, 30], [40.5, 50.25]], np.float32)
  tracks, visible = track(points)
  assert tracks.shape == (6, 2, 2) and tracks.dtype == np.float32
  np.testing.assert_array_equal(tracks[0], points)
  time = np.arange(6)[:, None, None]
  np.testing.assert_allclose(tracks, points + time * [2, -1], atol=2e-3)
  assert visible.shape == (6, 2) and visible.dtype == bool and visible.all()


def test_a_point_that_leaves_keeps_its_place_and_is_lost(paths, footage):
  """A12: x = 58, 60, 62, then outside."""
  track = cotracker.CoTracker3(**paths, device='cpu').over_clip(footage)
  tracks, visible = track(np.array([[58, 30]], np.float32))
  np.testing.assert_allclose(
    tracks[:, 0, 0], [58, 60, 62, 62, 62, 62], atol=2e-3
  )
  np.testing.assert_array_equal(visible[:, 0], [True] * 3 + [False] * 3)


def test_a_hidden_point_is_lost_for_good(paths, footage):
  track = cotracker.CoTracker3(**paths, device='cpu').over_clip(footage)
  tracks, visible = track(np.array([[4, 30], [40, 30]], np.float32))
  np.testing.assert_array_equal(visible[:, 0], [True] * 3 + [False] * 3)
  np.testing.assert_allclose(tracks[5, 0], [14, 25], atol=2e-3)
  assert visible[:, 1].all()


def test_it_does_not_go_frame_by_frame():
  assert not hasattr(cotracker.CoTracker3, 'step')


@pytest.mark.parametrize(
  ('key', 'message'),
  [
    ('checkout', r"checkout=''.*hubconf\.py.*facebookresearch.*CC-BY-NC"),
    ('weights', r"weights=''.*scaled_offline\.pth.*CC-BY-NC"),
  ],
)
def test_missing_files_are_explained(paths, key, message):
  with pytest.raises(ValueError, match=message):
    cotracker.CoTracker3(**{**paths, key: ''}, device='cpu')


def test_other_weights_are_refused(paths):
  torch.save({'velocity': torch.zeros(3)}, paths['weights'])
  with pytest.raises(ValueError, match=r"cotracker3\.weights.*\['velocity'\]"):
    cotracker.CoTracker3(**paths, device='cpu')


@pytest.mark.skipif(
  'DRP_COTRACKER_CHECKOUT' not in os.environ,
  reason='DRP_COTRACKER_CHECKOUT is no checkout of CoTracker (CC-BY-NC)',
)
def test_a_real_checkout_gives_its_own_numbers(tmp_path, square_clip):
  """Random weights, saved and read again by either side."""
  checkout = os.environ['DRP_COTRACKER_CHECKOUT']
  torch.set_num_threads(1)
  torch.manual_seed(0)
  official = torch.hub.load(
    checkout, 'cotracker3_offline', source='local', pretrained=False
  )
  path = tmp_path / 'scaled_offline.pth'
  torch.save(official.model.state_dict(), path)
  assert len(official.model.state_dict()) == 188
  frames = square_clip.frames[:6]
  points = np.array([[12, 16], [20.5, 20.25], [60, 3]], np.float32)
  video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float()
  queries = torch.tensor([[[0.0, *point] for point in points.tolist()]])
  expected, _ = official(video, queries=queries)
  expected = expected[0].numpy()
  assert np.all((expected >= 0) & (expected <= 63))
  tracker = cotracker.CoTracker3(checkout, str(path), 'cpu')
  tracks, _ = tracker.over_clip(schema.Footage(frames))(points)
  assert np.ptp(tracks, axis=0).max() > 0.01
  np.testing.assert_allclose(tracks, expected, atol=1e-4)
