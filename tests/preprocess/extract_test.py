"""Whole clips: the data contract, errors, determinism, quality."""

import dataclasses

import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import extract


def _extract(clip, backends, seed=0, **kwargs):
  rng = np.random.default_rng(seed)
  return extract.extract_clip(clip.footage, backends, rng, **kwargs)


def test_a_clip_meets_the_schema_and_the_index_rules(square_clip, backends):
  out = _extract(square_clip, backends)
  schema.check(out, schema.clip_fields(25), 'extract_clip')
  for name in ('flow', 'points', 'visible'):
    np.testing.assert_array_equal(out[name][0], 0)
  assert out['visible'][1].all()
  # points[t] are in frame t-1, where flow[t] begins.
  for t, share in ((1, 0.8), (5, 0.7), (20, 0.5)):
    x, y = out['points'][t].round().astype(int).T
    on_square = square_clip.masks[t - 1][y, x]
    assert on_square.mean() > share
    flow = out['flow'][t, y, x].astype(np.float32)
    moved = np.median(flow[on_square], axis=0)
    np.testing.assert_allclose(moved, square_clip.step, atol=0.3)


def test_a_clip_is_a_function_of_frames_and_rng(square_clip, backends):
  first = _extract(square_clip, backends)
  again = _extract(
    square_clip, backends_lib.make_backends(backends_lib.Settings())
  )
  other = _extract(square_clip, backends, seed=1)
  for name in first:
    np.testing.assert_array_equal(first[name], again[name])
  np.testing.assert_array_equal(first['flow'], other['flow'])
  assert not np.array_equal(first['points'], other['points'])


def test_the_number_of_keypoints_is_free(square_clip, backends):
  out = _extract(square_clip, backends, num_keypoints=5)
  assert out['points'].shape == (25, 5, 2)
  assert out['visible'].shape == (25, 5)


def test_a_still_clip_has_no_motion(square_clip, backends):
  still = np.stack([square_clip.frames[0]] * 5)
  with pytest.raises(extract.NoMotion, match='pixels move') as error:
    extract.extract_clip(
      schema.Footage(still), backends, np.random.default_rng(0)
    )
  assert error.value.reason == 'no_motion'
  assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
  'frames',
  [
    np.zeros((5, 32, 64, 3), np.uint8),
    np.zeros((5, 64, 64, 3), np.float32),
    np.zeros((1, 64, 64, 3), np.uint8),
    np.zeros((64, 64, 3), np.uint8),
  ],
)
def test_frames_of_another_kind_are_refused(backends, frames):
  with pytest.raises(ValueError, match='expected uint8'):
    extract.extract_clip(
      schema.Footage(frames), backends, np.random.default_rng(0)
    )


def test_flow_that_is_not_finite_is_refused(square_clip, backends):
  """A learned model's, say; it would spoil the scale of the data set."""

  def broken(start, end):
    flow = backends.flow(start, end)
    flow[3, 10, 20, 1] = np.nan
    return flow

  with pytest.raises(ValueError, match='1 of 204800 numbers .* not finite'):
    _extract(square_clip, dataclasses.replace(backends, flow=broken))
