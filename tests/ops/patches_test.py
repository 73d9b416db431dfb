"""Tests of patches: windows, borders, half pixels, scales."""

import jax
import numpy as np
import paper_in_numpy
import pytest

from drp_jax.ops import patches


def _coordinates() -> np.ndarray:
  """A field that says where it is: flow[y, x] = (x, y)."""
  x, y = np.meshgrid(np.arange(64.0), np.arange(64.0))
  return np.stack([x, y], -1).astype(np.float32)


def test_window_lies_around_the_center_rows_first():
  patch = patches.crop(_coordinates(), np.array([[20.0, 30.0]]), 4)[0]
  np.testing.assert_array_equal(patch[0, :, 0], [18, 19, 20, 21])
  np.testing.assert_array_equal(patch[:, 0, 1], [28, 29, 30, 31])


def test_border_values_go_on_outside():
  patch = patches.crop(_coordinates(), np.array([[0.0, 63.0]]), 4)[0]
  np.testing.assert_array_equal(patch[0, :, 0], [0, 0, 0, 1])
  np.testing.assert_array_equal(patch[:, 0, 1], [61, 62, 63, 63])


@pytest.mark.parametrize(
  ('point', 'pixel'), [(10.49, 10), (10.5, 11), (11.5, 12), (-0.5, 0)]
)
def test_half_pixels_round_up(point, pixel):
  patch = patches.crop(_coordinates(), np.array([[point, 5.0]]), 1)
  assert patch[0, 0, 0, 0] == pixel


@pytest.mark.parametrize('size', [1, 5, 16, 64])
def test_equals_loops_on_batches(size):
  rng = np.random.default_rng(0)
  flow = rng.normal(size=(2, 3, 64, 64, 2)).astype(np.float16)
  points = rng.uniform(-3, 67, (2, 3, 4, 2)).astype(np.float32)
  cropped = patches.crop(flow, points, size)
  assert cropped.shape == (2, 3, 4, size, size, 2)
  for b in range(2):
    for t in range(3):
      expected = paper_in_numpy.crop(flow[b, t], points[b, t], size)
      np.testing.assert_array_equal(cropped[b, t], expected)


@pytest.mark.parametrize('size', [0, 65])
def test_impossible_size_raises(size):
  with pytest.raises(ValueError, match=rf'{size}.*config\.dae\.patch_size'):
    patches.crop(_coordinates(), np.zeros((1, 2)), size)


def test_normalize_divides_then_clips():
  values = np.array([3.0, -5.0, 50.0, -50.0], np.float16)
  normalized = patches.normalize(values, np.float32(2.0))
  assert normalized.dtype == np.float32
  np.testing.assert_allclose(normalized, [1.5, -2.5, 10.0, -10.0])


@pytest.mark.parametrize('size', [1, 5, 16, 64])
def test_products_take_the_same_numbers(size):
  """As TPUs compute it; bit by bit."""
  rng = np.random.default_rng(0)
  flow = (100 * rng.normal(size=(3, 64, 64, 2))).astype(np.float16)
  rows, cols = rng.integers(0, 64, (2, 3, 7, size))
  found = patches.select(flow, rows, cols)
  assert found.dtype == np.float16
  np.testing.assert_array_equal(found, patches.gather(flow, rows, cols))


@pytest.mark.parametrize(('platform', 'gathers'), [('tpu', 0), ('cuda', 1)])
def test_tpus_read_no_single_pixels(platform, gathers):
  crop = jax.jit(lambda flow, points: patches.crop(flow, points, 16))
  traced = crop.trace(np.zeros((2, 64, 64, 2), np.float16), np.zeros((2, 3, 2)))
  text = traced.lower(lowering_platforms=(platform,)).as_text()
  assert text.count('stablehlo.gather"') == gathers
