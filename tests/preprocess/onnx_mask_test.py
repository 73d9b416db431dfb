"""Masks of an ONNX model, which the tests make: red stands out."""

import numpy as np
import pytest

from drp_jax.data import schema

pytest.importorskip('onnxruntime')
onnx = pytest.importorskip('onnx')

from drp_jax.preprocess import onnx_mask  # noqa: E402


@pytest.fixture(scope='module')
def path(tmp_path_factory):
  """A model of 32 pixels: red minus green, 0 below 0, [1, 1, 32, 32]."""
  helper, real = onnx.helper, onnx.TensorProto.FLOAT
  weights = np.array([1, -1, 0], np.float32).reshape(1, 3, 1, 1)
  graph = helper.make_graph(
    [
      helper.make_node('Conv', ['image', 'weights'], ['difference']),
      helper.make_node('Relu', ['difference'], ['scores']),
    ],
    'red',
    [helper.make_tensor_value_info('image', real, [1, 3, 32, 32])],
    [helper.make_tensor_value_info('scores', real, [1, 1, 32, 32])],
    [onnx.numpy_helper.from_array(weights, 'weights')],
  )
  opset = [helper.make_opsetid('', 17)]
  model = helper.make_model(graph, opset_imports=opset, ir_version=9)
  path = tmp_path_factory.mktemp('onnx') / 'red.onnx'
  onnx.save(model, path)
  return str(path)


def _top_moves(start, end):
  del end
  flow = np.zeros((*start.image.shape[:3], 2), np.float32)
  flow[:, :6] = [0, 2]
  return flow


def _make(path, **changes):
  settings = dict(
    side=32,
    mean=(0.0, 0.0, 0.0),
    scale=(200.0, 200.0, 200.0),
    threshold=0.5,
    device='cpu',
    threads=1,
    flow=_top_moves,
  )
  return onnx_mask.make_mask(path, **{**settings, **changes})


def _footage(red, green=0):
  """A rectangle of this color on black, then black."""
  frames = np.zeros((2, 64, 64, 3), np.uint8)
  frames[0, 10:30, 20:50] = [red, green, 90]
  return schema.Footage(frames)


def test_what_the_model_finds_at_the_size_of_the_frame(path):
  mask = _make(path)(_footage(200))
  assert mask.shape == (64, 64) and mask.dtype == bool
  expected = np.zeros((64, 64), bool)
  expected[10:30, 20:50] = True
  different = mask != expected
  assert different.mean() < 0.03  # the edge, of 32 pixels


@pytest.mark.parametrize(
  ('red', 'green', 'changes', 'found'),
  [
    (120, 0, {}, True),  # 120 / 200 is over 0.5
    (80, 0, {}, False),
    (80, 0, {'threshold': 0.3}, True),
    (200, 150, {}, False),
    (80, 0, {'scale': (100.0, 200.0, 200.0)}, True),
    (80, 0, {'mean': (-40.0, 0.0, 0.0)}, True),
    (120, 0, {'mean': (40.0, 0.0, 0.0)}, False),
  ],
)
def test_settings_of_the_input(path, red, green, changes, found):
  mask = _make(path, **changes)(_footage(red, green))
  assert mask[20, 35] == found
  assert mask[2, 2] != found  # then the rows that move


def test_nothing_found_gives_what_moves_fastest(path):
  mask = _make(path)(_footage(0))
  assert mask[:6].all() and not mask[6:].any()


def test_a_missing_file_is_explained():
  with pytest.raises(ValueError, match=r"onnx\.model='no\.onnx'.*ISNet.*AGPL"):
    _make('no.onnx')


def test_a_file_that_is_no_model(tmp_path):
  path = tmp_path / 'text.onnx'
  path.write_text('not a model', encoding='utf-8')
  with pytest.raises(ValueError, match=r'onnx\.model=.*cannot be read'):
    _make(str(path))


def test_a_device_that_is_not_there(path):
  import onnxruntime

  if 'CUDAExecutionProvider' in onnxruntime.get_available_providers():
    pytest.skip('this onnxruntime has CUDA')
  with pytest.raises(ValueError, match=r"device='cuda:0'.*onnxruntime-gpu"):
    _make(path, device='cuda:0')


def test_a_side_that_the_model_does_not_take(path):
  with pytest.raises(ValueError, match=r'side=64: .* \[1, 3, 32, 32\], not'):
    _make(path, side=64)
