"""Flow of contents moved by known amounts, and of a real simulator."""

import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.preprocess import flow


def _pair(dis, frame0, frame1):
  """Flow of one pair."""
  return dis(schema.Footage(frame0[None]), schema.Footage(frame1[None]))[0]


@pytest.mark.parametrize('make', [flow.make_dis, flow.make_farneback])
@pytest.mark.parametrize('shift', [(3, 0), (-2, 0), (0, 2), (1, -2)])
def test_shifted_content_gives_its_shift(scene, shift, make):
  frame0 = scene[:, 16:80]
  frame1 = np.roll(scene, shift, axis=(1, 0))[:, 16:80]
  inner = _pair(make(), frame0, frame1)[8:-8, 8:-8]
  assert inner.dtype == np.float32
  np.testing.assert_allclose(inner.mean((0, 1)), shift, atol=0.1)
  assert np.quantile(np.abs(inner - shift), 0.95) < 0.3


def test_flat_images_give_zero():
  frame = np.full((64, 64, 3), 100, np.uint8)
  np.testing.assert_array_equal(_pair(flow.make_dis(), frame, frame), 0)


def test_flow_depends_on_its_two_frames_only(square_clip):
  """DIS remembers sizes it has seen; ours must not."""
  fresh, used = flow.make_dis(), flow.make_dis()
  large = np.repeat(np.repeat(square_clip.frames, 4, axis=1), 4, axis=2)
  _pair(used, large[0], large[3])
  _pair(used, square_clip.frames[5], square_clip.frames[9])
  pair = square_clip.frames[0], square_clip.frames[1]
  np.testing.assert_array_equal(_pair(used, *pair), _pair(fresh, *pair))


def test_units_do_not_depend_on_the_size(scene):
  """A frame of 128 pixels is not enlarged; the same motion is 2x there."""
  frame0, frame1 = scene[:, 16:80], np.roll(scene, 2, axis=1)[:, 16:80]
  double = [f.repeat(2, axis=0).repeat(2, axis=1) for f in (frame0, frame1)]
  small, large = (
    _pair(flow.make_dis(), frame0, frame1),
    _pair(flow.make_dis(), *double),
  )
  assert small.shape == (64, 64, 2) and large.shape == (128, 128, 2)
  np.testing.assert_allclose(small[8:-8, 8:-8].mean((0, 1)), [2, 0], atol=0.1)
  np.testing.assert_allclose(
    large[16:-16, 16:-16].mean((0, 1)), [4, 0], atol=0.2
  )


def test_entry_t_led_to_frame_t(square_clip):
  dis = flow.make_dis()
  out = flow.over_clip(dis, square_clip.footage[:4])
  assert out.dtype == np.float16 and out.shape == (4, 64, 64, 2)
  np.testing.assert_array_equal(out[0], 0)
  expected = _pair(dis, square_clip.frames[1], square_clip.frames[2])
  np.testing.assert_array_equal(out[2], expected.astype(np.float16))


def test_the_square_moves_and_the_scene_rests(square_clip):
  out = flow.over_clip(flow.make_dis(), square_clip.footage)
  for t in range(1, 25):
    on_square = np.median(out[t][square_clip.masks[t - 1]], axis=0)
    np.testing.assert_allclose(on_square, square_clip.step, atol=0.25)
  assert np.abs(np.median(out[1][~square_clip.masks[0]], axis=0)).max() < 0.05
