"""What layouts lose, by hand, and that they are what is measured."""

import numpy as np
import pytest
import random_inputs

from benchmarks import storage
from drp_jax.preprocess import video

_T = 4


def _flow(scale):
  rng = np.random.default_rng(0)
  flow = scale * rng.uniform(-1, 1, (_T, 64, 64, 2))
  flow[0], flow[1, 0, 0, 0] = 0, scale
  return flow.astype(np.float16)


@pytest.mark.parametrize('scale', [0.5, 8.0, 60.0])
def test_flow_comes_back_within_half_a_step(scale):
  steps = {
    'float16': 0.0,
    'int8, scale per clip': scale / 127,
    'int8, eighths of a pixel': 1 / 8,
  }
  flow = _flow(scale)
  for name, codec in storage.flow_codecs(_T).items():
    stored = codec.encode(flow)
    assert stored.keys() == codec.features.keys()
    back = codec.decode(stored)
    assert back.dtype == np.float16
    if name.endswith('pixel') and scale > 127 / 8:  # beyond its range
      assert back.max() == 127 / 8
      continue
    error = np.abs(back.astype(float) - flow).max()
    assert error <= steps[name] / 2 + 1e-3 * scale, name  # float16 rounds too


def test_flow_that_is_zero_stays_zero():
  for codec in storage.flow_codecs(_T).values():
    zero = np.zeros((_T, 64, 64, 2), np.float16)
    np.testing.assert_array_equal(codec.decode(codec.encode(zero)), zero)


def test_images_come_back():
  frames = random_inputs.moving_squares(_T, 0)
  for name, codec in storage.image_codecs(_T).items():
    stored = codec.encode(frames)
    assert stored.keys() == codec.features.keys()
    back = codec.decode(stored)
    assert back.dtype == np.uint8 and back.shape == frames.shape
    error = np.abs(back.astype(int) - frames).mean()
    assert error == 0 if name in ('raw', 'PNG') else 0 < error < 12, name


def test_a_layout_is_measured_on_real_files(tmp_path):
  for seed in range(2):
    frames = random_inputs.moving_squares(50, seed)
    video.write_video(tmp_path / f'{seed}.mp4', frames, 25)
  examples = storage.real_clips(str(tmp_path), 3)
  where = [(e['source_id'], e['first_frame']) for e in examples]
  assert where == [('0.mp4', 0), ('1.mp4', 0), ('0.mp4', 25)]
  images, flows = storage.image_codecs(25), storage.flow_codecs(25)
  plain = storage.measure(examples, images['raw'], flows['float16'])
  small = storage.measure(
    examples, images['JPEG 95'], flows['int8, scale per clip']
  )
  assert small['bytes'] < plain['bytes'] < 800_000
  for name, value in plain.items():
    assert value == 0 if 'error' in name else value > 0, name
    assert small[name] > 0, name
  table = storage.table({'one': plain, 'other': small})
  assert table.count('\n| o') == 2
