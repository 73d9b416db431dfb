"""SEA-RAFT: the official arrays, files and numbers; sizes of frames.

tests/parity/compare_sea_raft.py runs the official code beside ours.
"""

import hashlib
import json

import numpy as np
import pytest

from drp_jax.data import schema

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

from drp_jax import weights  # noqa: E402
from drp_jax.preprocess import sea_raft  # noqa: E402


def _fill(model):
  """Weights that any torch and any machine makes alike."""
  rng = np.random.default_rng(0)
  for name, value in sorted(model.state_dict().items()):
    noise = rng.standard_normal(value.shape).astype(np.float32)
    noise = torch.from_numpy(np.asarray(noise))
    if value.ndim > 1:
      value.copy_(noise * (0.8 / value[0].numel() ** 0.5))
    elif name.endswith(('bias', 'mean')):
      value.copy_(0.1 * noise)
    elif name.endswith(('weight', 'var', 'gamma')):
      value.copy_(0.7 + 0.1 * noise.abs())


@pytest.fixture(scope='module')
def model():
  torch.set_num_threads(1)
  model = sea_raft.SeaRaft(*sea_raft.SIZES['S']).eval()
  _fill(model)
  return model


@pytest.fixture(scope='module')
def path(model, tmp_path_factory):
  path = tmp_path_factory.mktemp('sea_raft') / 'S.pth'
  torch.save(model.state_dict(), path)
  return path


def _make(path, size='S', frame_side=128, batch_size=2):
  return sea_raft.make_flow(size, str(path), frame_side, batch_size, 'cpu')


@pytest.mark.parametrize(
  ('size', 'count', 'digest'),
  [
    ('S', 276, 'a81cb5da531b521e'),
    ('M', 472, 'b89588f63cf11aa8'),
    ('L', 472, 'b89588f63cf11aa8'),
  ],
)
def test_names_and_shapes_are_the_official_ones(size, count, digest):
  with torch.device('meta'):
    state = sea_raft.SeaRaft(*sea_raft.SIZES[size]).state_dict()
  shapes = sorted((name, list(value.shape)) for name, value in state.items())
  assert len(shapes) == count
  text = json.dumps(shapes).encode()
  assert hashlib.sha256(text).hexdigest()[:16] == digest


def test_numbers_are_those_of_the_official_code(model):
  """By official code at commit f41d0a7 with the weights of `_fill`."""
  y, x = np.mgrid[:128, :136]
  frames = []
  for shift in (0, 3):
    waves = [
      127 * (1 + np.sin((x - shift) / p + y / q))
      for p, q in ((5, 9), (7, -6), (11, 4))
    ]
    frames.append(torch.tensor(np.stack(waves)[None], dtype=torch.float32))
  with torch.inference_mode():
    flow = model(*frames)[0]
  assert flow.shape == (2, 128, 136)
  np.testing.assert_allclose(flow.abs().mean(), 7.4673, atol=1e-3)
  np.testing.assert_allclose(flow[:, 10, 20], [3.7361, 10.5411], atol=2e-3)
  np.testing.assert_allclose(flow[:, 100, 77], [6.3188, 12.4333], atol=2e-3)


def test_flow_has_the_size_of_the_frames_and_no_memory(path, square_clip):
  """64 pixels are enlarged to 128; batches do not matter."""
  start, end = square_clip.footage[:3], square_clip.footage[1:4]
  flow = _make(path)(start, end)
  assert flow.shape == (3, 64, 64, 2) and flow.dtype == np.float32
  assert np.isfinite(flow).all()
  alone = _make(path, batch_size=8)(start[2:], end[2:])
  np.testing.assert_allclose(alone[0], flow[2], atol=1e-3)


class _Constant(torch.nn.Module):
  """Says that all moves by (8, -4) pixels of what it is shown."""

  def __init__(self):
    super().__init__()
    self.flow = torch.nn.Parameter(torch.tensor([8.0, -4.0]))

  def forward(self, start, end):
    assert start.shape == end.shape == (1, 3, 256, 256)
    return self.flow[None, :, None, None].expand(1, 2, 256, 256)


def test_flow_is_in_pixels_of_the_frames(square_clip):
  """Frames of 64 pixels are enlarged four times."""
  frames = square_clip.frames
  flow = sea_raft._estimate(_Constant(), frames[:1], frames[1:2], 250)
  np.testing.assert_array_equal(flow, np.full((1, 64, 64, 2), [2, -1]))


def test_frames_of_the_working_size_are_taken_as_they_are(
  path, model, square_clip
):
  large = square_clip.frames[:2].repeat(2, axis=1).repeat(2, axis=2)
  tensors = torch.from_numpy(large).permute(0, 3, 1, 2).float()
  with torch.inference_mode():
    expected = model(tensors[:1], tensors[1:])[0].permute(1, 2, 0).numpy()
  footage = schema.Footage(large)
  found = _make(path)(footage[:1], footage[1:])
  np.testing.assert_allclose(found[0], expected, atol=1e-4)


def test_any_size_will_do(path):
  """60 x 70 becomes 180 x 210, padded to 184 x 216 inside."""
  rng = np.random.default_rng(0)
  footage = schema.Footage(rng.integers(0, 256, (2, 60, 70, 3), np.uint8))
  flow = _make(path)(footage[:1], footage[1:])
  assert flow.shape == (1, 60, 70, 2)
  assert np.isfinite(flow).all()


def test_a_safetensors_file_stores_shared_arrays_once(model, tmp_path):
  from safetensors import torch as safetensors_torch

  path = tmp_path / 'model.safetensors'
  safetensors_torch.save_model(model, str(path))
  tensors = weights.read(path, sea_raft.SOURCE)
  assert len(tensors) == 276 - 20  # 4 shortcuts with 5 arrays of their norm
  other = sea_raft.SeaRaft(*sea_raft.SIZES['S'])
  weights.fill(other, sea_raft.complete(other, tensors), sea_raft.SOURCE)
  for name, value in model.state_dict().items():
    assert torch.equal(other.state_dict()[name], value), name


def test_weights_of_another_size_are_refused(path):
  with pytest.raises(ValueError, match='276 arrays in the file, 472 expected'):
    _make(path, size='M')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'size': 'XL'}, r"sea_raft\.size='XL' must be one of \['S', 'M', 'L'\]"),
    ({'frame_side': 64}, r'sea_raft\.frame_side=64 must be at least 128'),
    ({'path': ''}, r"sea_raft\.weights=''.*spring540x960.*BSD-3-Clause"),
  ],
)
def test_settings_that_do_not_fit(path, changes, message):
  with pytest.raises(ValueError, match=message):
    _make(**{'path': path, **changes})


def test_correlation_is_looked_up_where_the_flow_points_to():
  """A mark at (5, 6) and, in the later frame, at (7, 5): channel of (2, -1)."""
  start, end = torch.zeros(2, 1, 4, 16, 16)
  start[0, :, 6, 5], end[0, :, 5, 7] = 1, 1
  pyramid = sea_raft._correlations(start, end)
  assert [level.shape[-1] for level in pyramid] == [16, 8, 4, 2]
  rest = sea_raft._look_up(pyramid, torch.zeros(1, 2, 16, 16))
  assert rest.shape == (1, 4 * 81, 16, 16)
  seen = rest[0, :81, 6, 5].reshape(9, 9)  # x, then y, from -4 to 4
  assert torch.nonzero(seen).tolist() == [[4 + 2, 4 - 1]]
  assert seen.max() == 4 / 4**0.5  # a product of 4 channels over its root
  flow = torch.zeros(1, 2, 16, 16)
  flow[0, :, 6, 5] = torch.tensor([2.0, -1.0])
  found = sea_raft._look_up(pyramid, flow)[0, :81, 6, 5].reshape(9, 9)
  assert found.argmax() == 40  # the middle


def test_enlarging_mixes_neighbors():
  """Equal weights average 3x3; one far above the others picks its pixel."""
  flow = torch.arange(9.0).reshape(1, 1, 3, 3).repeat(1, 2, 1, 1)
  logits = torch.zeros(1, 9 * 64, 3, 3)
  mean = sea_raft._enlarge(flow, logits)
  assert mean.shape == (1, 2, 24, 24)
  np.testing.assert_allclose(mean[0, :, 8:16, 8:16], 8 * 4.0, rtol=1e-6)
  logits.reshape(9, 8, 8, 3, 3)[5, 2, 7] = 100.0  # the right neighbor
  picked = sea_raft._enlarge(flow, logits)
  assert picked[0, 0, 8 + 2, 8 + 7] == 8 * 5.0
