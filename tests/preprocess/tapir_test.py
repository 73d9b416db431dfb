"""The adapter of causal TAPIR, with a checkout that the test makes.

With DRP_TAPNET_CHECKOUT=<folder> also with a real one, on random weights.
"""

import os
import sys

import numpy as np
import pytest

from drp_jax.data import schema

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

from drp_jax.preprocess import tapir  # noqa: E402

# Calls as in the real one. Points move away from the image's corner, by a
# learned factor a frame, counted in a causal state; dark frames hide them.
_MODEL = """
from typing import NamedTuple

import torch


class Grids(NamedTuple):
  lowres: tuple
  hires: tuple
  resolutions: tuple


class TAPIR(torch.nn.Module):
  def __init__(
    self, pyramid_level, use_casual_conv, feature_extractor_chunk_size
  ):
    super().__init__()
    assert pyramid_level == 1 and use_casual_conv
    self.factor = torch.nn.Parameter(torch.zeros([]))

  def get_feature_grids(self, video, is_training):
    assert video.dim() == 5 and -1 <= video.min() and video.max() <= 1
    grid = video.mean((2, 3, 4))  # [1, T]
    return Grids((grid, grid), (grid, grid), ((256, 256), (256, 256)))

  def get_query_features(self, video, is_training, query_points, feature_grids):
    assert video.shape[1] == feature_grids.lowres[0].shape[1] == 1
    assert (query_points[..., 0] == 0).all()
    start = query_points[..., [2, 1]]  # [1, K, 2], (x, y)
    return Grids((start, start), (start, start), feature_grids.resolutions)

  def construct_initial_causal_state(self, num_points, num_resolutions):
    return [{'count': torch.zeros(1, num_points)}] * num_resolutions * 4

  def estimate_trajectories(
    self, video_size, is_training, feature_grids, query_features,
    query_points_in_video, query_chunk_size, causal_context, get_causal_context
  ):
    assert query_points_in_video is None and get_causal_context
    count = causal_context[0]['count']  # 0 in the first frame
    tracks = query_features.lowres[0] * self.factor ** count[..., None]
    hidden = torch.where(feature_grids.lowres[0] < 0, 9.0, -9.0)  # [1, 1]
    hidden = hidden[:, None].expand(*count.shape, 1)
    return {
      'tracks': [torch.zeros_like(tracks), tracks[:, :, None]],
      'occlusion': [-hidden, hidden],
      'expected_dist': [hidden * 0, hidden * 0 - 3],
      'causal_context': [{'count': count + 1}] * 4,
    }
"""


@pytest.fixture
def paths(tmp_path):
  package = tmp_path / 'tapnet' / 'torch'
  package.mkdir(parents=True)
  for folder in (package.parent, package):
    (folder / '__init__.py').touch()
  (package / 'tapir_model.py').write_text(_MODEL, encoding='utf-8')
  path = tmp_path / 'causal_bootstapir_checkpoint.pt'
  torch.save({'factor': torch.tensor(1.25)}, path)
  # The name of a checkout's package is taken for the rest of the process.
  _forget()
  yield {'checkout': str(tmp_path), 'weights': str(path)}
  _forget()


def _forget():
  for name in [n for n in sys.modules if n.split('.')[0] == 'tapnet']:
    del sys.modules[name]


@pytest.fixture
def footage():
  """Bright, but for frame 4."""
  frames = np.full((6, 64, 64, 3), 220, np.uint8)
  frames[4] = 10
  return schema.Footage(frames)


def _make(paths):
  return tapir.Tapir(**paths, batch_size=4, device='cpu')


def test_points_come_and_go_in_pixels(paths, footage):
  """The corner is at (-0.5, -0.5) of our pixels."""
  track = _make(paths).over_clip(footage[:4])
  points = np.array([[8, 12], [0.25, 20]], np.float32)
  tracks, visible = track(points)
  assert tracks.shape == (4, 2, 2) and tracks.dtype == np.float32
  factor = 1.25 ** np.arange(4)[:, None, None]
  np.testing.assert_allclose(tracks, (points + 0.5) * factor - 0.5, rtol=1e-6)
  assert visible.shape == (4, 2) and visible.dtype == bool and visible.all()


def test_a_point_that_leaves_keeps_its_place_and_is_lost(paths, footage):
  """A12: 39.5, 49.5, 62, then outside."""
  track = _make(paths).over_clip(footage)
  tracks, visible = track(np.array([[39.5, 2]], np.float32))
  np.testing.assert_allclose(tracks[:, 0, 0], [39.5, 49.5, 62, 62, 62, 62])
  np.testing.assert_array_equal(visible[:, 0], [True] * 3 + [False] * 3)


def test_a_hidden_point_is_lost_for_good(paths, footage):
  _, visible = _make(paths).over_clip(footage)(np.ones((1, 2), np.float32))
  np.testing.assert_array_equal(visible[:, 0], [True] * 4 + [False] * 2)


def test_frame_by_frame_is_the_same(paths, footage):
  tracker = _make(paths)
  points = np.array([[8, 12], [39.5, 2]], np.float32)
  tracks, visible = tracker.over_clip(footage)(points)
  states, seen = tracker.begin(footage[:1], points[None]), np.ones(2, bool)
  for t in range(1, 6):
    states, moved, found = tracker.step(states, footage[t : t + 1])
    seen = seen & found[0]
    np.testing.assert_array_equal(moved[0], tracks[t])
    np.testing.assert_array_equal(seen, visible[t])
  # Seen again, where it is inside.
  np.testing.assert_array_equal(found, [[True, False]])


def test_videos_of_a_batch_do_not_meet(paths, footage):
  """One is dark where the other is not, and begins a frame later."""
  tracker = _make(paths)
  points = np.array([[8, 12], [20, 2]], np.float32)
  two = schema.Footage(footage.image[[1, 5]])
  first = tracker.begin(footage[:1], points[None])
  first, _, _ = tracker.step(first, footage[:1])
  states = [*first, *tracker.begin(footage[:1], points[None, ::-1])]
  states, moved, found = tracker.step(
    states, schema.Footage(footage.image[3:5])
  )
  np.testing.assert_allclose(moved[0], (points + 0.5) * 1.25**2 - 0.5)
  np.testing.assert_allclose(moved[1], (points[::-1] + 0.5) * 1.25 - 0.5)
  np.testing.assert_array_equal(found, [[True, True], [False, False]])
  _, moved, found = tracker.step(states, two)
  np.testing.assert_allclose(moved[1], (points[::-1] + 0.5) * 1.25**2 - 0.5)
  assert found.all()


def test_the_path_of_imports_is_left_as_it_was(paths):
  before = list(sys.path)
  _make(paths)
  assert sys.path == before


@pytest.mark.parametrize(
  ('key', 'message'),
  [
    ('checkout', r"tapir\.checkout=''.*tapir_model\.py.*tapnet.*Apache-2\.0"),
    ('weights', r"tapir\.weights=''.*causal_bootstapir.*Apache-2\.0"),
  ],
)
def test_missing_files_are_explained(paths, key, message):
  with pytest.raises(ValueError, match=message):
    _make({**paths, key: ''})


@pytest.mark.skipif(
  'DRP_TAPNET_CHECKOUT' not in os.environ,
  reason='DRP_TAPNET_CHECKOUT is no checkout of tapnet',
)
def test_a_real_checkout_gives_its_own_numbers(tmp_path, square_clip):
  """The model over the whole clip, as it was trained, against frame by frame.

  Random weights, saved and read again.
  """
  _forget()
  checkout = os.environ['DRP_TAPNET_CHECKOUT']
  sys.path.insert(0, checkout)
  try:
    from tapnet.torch import tapir_model
  finally:
    sys.path.pop(0)
  torch.set_num_threads(1)
  torch.manual_seed(0)
  official = tapir_model.TAPIR(pyramid_level=1, use_casual_conv=True).eval()
  path = tmp_path / 'causal_bootstapir_checkpoint.pt'
  torch.save(official.state_dict(), path)
  assert len(official.state_dict()) == 218
  frames = square_clip.frames[:5]
  points = np.array([[12, 16], [20.5, 20.25], [50, 33]], np.float32)
  queries = [[0.0, y + 0.5, x + 0.5] for x, y in points.tolist()]
  with torch.inference_mode():
    video = torch.from_numpy(frames)[None].float() / 255 * 2 - 1
    queries = torch.tensor([queries])
    grids = official.get_feature_grids(video, is_training=False)
    features = official.get_query_features(
      video, False, queries, feature_grids=grids
    )
    out = official.estimate_trajectories(
      (64, 64), False, grids, features, None, query_chunk_size=64
    )
  expected = out['tracks'][-1][0].permute(1, 0, 2).numpy() - 0.5
  assert np.all((expected >= 0) & (expected <= 63))
  tracker = tapir.Tapir(checkout, str(path), batch_size=2, device='cpu')
  tracks, visible = tracker.over_clip(schema.Footage(frames))(points)
  np.testing.assert_array_equal(tracks[0], points)
  np.testing.assert_allclose(tracks[1:], expected[1:], atol=1e-3)
  # Frame by frame, beside another video.
  pairs = [schema.Footage(frames[[t, 4 - t]]) for t in range(5)]
  both = np.stack([points, points[::-1]])
  states = tracker.begin(pairs[0], both)
  for t in range(1, 5):
    states, moved, _ = tracker.step(states, pairs[t])
    np.testing.assert_allclose(moved[0], tracks[t], atol=1e-3)
  backwards, _ = tracker.over_clip(schema.Footage(frames[::-1]))(both[1])
  np.testing.assert_allclose(moved[1], backwards[4], atol=1e-3)
  _forget()
