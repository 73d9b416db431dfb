"""Tests of the motion encoder: who sees whom; Eqs. 13-19: equations_test."""

import functools

import jax
import numpy as np
import pytest
import random_inputs

from drp_jax.models import dae

_B, _T, _K, _D, _U = 2, 6, 3, 8, 8
_MODEL = dae.DAE(
  num_blocks=2, width=_D, num_heads=1, mlp_ratio=2, image_size=64
)
# Two windows and the first entry: a | b b b | c c.
_STEP = np.tile([0, 0, 1, 2, 0, 1], (_B, 1))
_FIRST = np.tile(np.arange(_T) == 0, (_B, 1))


def _inputs(seed=0):
  rng = np.random.default_rng(seed)
  return dict(
    patches=rng.normal(size=(_B, _T, _K, _U)).astype(np.float32),
    points=rng.uniform(0, 63, (_B, _T, _K, 2)).astype(np.float32),
    window_step=_STEP,
    is_first=_FIRST,
    hidden=np.zeros((_B, _T, _K), bool),
  )


@functools.cache
def _params():
  shapes = jax.eval_shape(
    lambda key: _MODEL.init(key, **_inputs()), jax.random.key(0)
  )
  return random_inputs.fill(shapes)


@functools.cache
def _jitted():
  return jax.jit(lambda inputs: _MODEL.apply(_params(), **inputs))


def _encode(**changes):
  return np.asarray(_jitted()({**_inputs(), **changes}))


def test_one_head_has_no_output_matrix():
  names = set(_params()['params']['blocks_0'])
  assert {
    f'{a}_{b}' for a in ('intra', 'inter') for b in ('query', 'value')
  } < names
  assert not {'intra_out', 'inter_out'} & names


def test_heads_that_do_not_divide_the_width_raise():
  block = dae.DualAttentionBlock(8, 3, 2)
  x = np.zeros((1, 2, 3, 8), np.float32)
  with pytest.raises(ValueError, match=r'num_heads=3.*config\.dae\.width'):
    block.init(jax.random.key(0), x, x[..., 0] == 0, np.ones((1, 2, 2), bool))


def test_future_motion_cannot_change_the_past():
  base = _encode()
  for t in range(1, _T):
    changed = _inputs()['patches'].copy()
    changed[:, t:] += 1.0
    points = _inputs()['points'].copy()
    points[:, t:] += 5.0
    out = _encode(patches=changed, points=points)
    np.testing.assert_array_equal(out[:, :t], base[:, :t])
    assert np.abs(out[:, t, 0] - base[:, t, 0]).max() > 1e-3


def test_past_of_the_same_window_reaches_a_agg():
  changed = _inputs()['patches'].copy()
  changed[:, 1] += 1.0
  out, base = _encode(patches=changed), _encode()
  assert (np.abs(out - base)[:, 1:4, 0].max(-1) > 1e-4).all()


def test_nothing_before_a_window_matters():
  changed = _inputs()['patches'].copy()
  changed[:, :4] += 1.0
  out = _encode(patches=changed)
  np.testing.assert_array_equal(out[:, 4:], _encode()[:, 4:])


def test_the_first_entry_is_zero_and_reaches_nobody():
  changed = _inputs()['patches'].copy()
  changed[:, 0] += 1.0
  out = _encode(patches=changed)
  np.testing.assert_array_equal(out[:, 0], 0)
  np.testing.assert_array_equal(out, _encode())


def test_an_episode_that_begins_later_is_zero_there_and_separate():
  first = _FIRST.copy()
  first[:, 2] = True
  step = np.tile([0, 0, 0, 0, 1, 2], (_B, 1))
  changed = _inputs()['patches'].copy()
  changed[:, :3] += 1.0
  base = _encode(is_first=first, window_step=step)
  out = _encode(is_first=first, window_step=step, patches=changed)
  np.testing.assert_array_equal(base[:, 2], 0)
  np.testing.assert_array_equal(out[:, 2:], base[:, 2:])
  assert np.abs(out - base)[:, 1].max() > 1e-3


def test_order_of_keypoints_does_not_matter():
  order = np.array([2, 0, 1])
  inputs = _inputs()
  out = _encode(
    patches=inputs['patches'][:, :, order],
    points=inputs['points'][:, :, order],
  )
  base = _encode()
  np.testing.assert_allclose(out[:, :, 0], base[:, :, 0], atol=1e-5)
  np.testing.assert_allclose(
    out[:, :, 1:], base[:, :, 1:][:, :, order], atol=1e-5
  )


def test_hidden_patches_influence_nothing_that_is_read():
  hidden = np.random.default_rng(1).uniform(size=(_B, _T, _K)) > 0.5
  hidden[:, 0] = False
  changed = np.where(hidden[..., None], 9.0, _inputs()['patches'])
  points = np.where(hidden[..., None], 1.0, _inputs()['points'])
  base = _encode(hidden=hidden)
  out = _encode(
    hidden=hidden,
    patches=changed.astype(np.float32),
    points=points.astype(np.float32),
  )
  read = np.concatenate([np.ones((_B, _T, 1), bool), ~hidden], 2)
  np.testing.assert_array_equal(out[read], base[read])
  assert np.abs(base - _encode())[:, 1:, 0].max() > 1e-3  # hiding has effect


def test_streaming_over_two_windows_equals_the_sequence():
  inputs, params = _inputs(), _params()
  step = jax.jit(
    lambda cache, *args: _MODEL.apply(params, *args, cache, method='step')
  )
  cache = _MODEL.initial_cache(_B, _K, 3)
  for t in range(_T):
    args = (
      inputs[name][:, t]
      for name in ('patches', 'points', 'window_step', 'is_first')
    )
    out, cache = step(cache, *args)
    np.testing.assert_allclose(out, _encode()[:, t], atol=1e-5)


_WITHOUT = ('intra', 'inter', 'coordinate', 'temporal')


@functools.cache
def _ablated(without):
  """The model without one part, its parameters, and its jitted batch pass."""
  model = _MODEL.clone(**{without: False})
  shapes = jax.eval_shape(
    lambda key: model.init(key, **_inputs()), jax.random.key(0)
  )
  params = random_inputs.fill(shapes)
  return model, params, jax.jit(lambda inputs: model.apply(params, **inputs))


def _encode_without(without, **changes):
  return np.asarray(_ablated(without)[2]({**_inputs(), **changes}))


def test_without_intra_a_agg_is_a_dense_layer_on_the_mean_of_what_is_seen():
  """E1; and a point alone sees what it saw, as no other reaches it."""
  hidden = np.zeros((_B, _T, _K), bool)
  hidden[:, 1:, 0] = hidden[:, 2, 1] = hidden[:, 3] = True
  out = _encode_without('intra', hidden=hidden)
  _, params, _ = _ablated('intra')
  dense = params['params']['aggregate']
  for t in range(1, _T):
    seen = ~hidden[0, t]
    mean = out[:, t, 1:][:, seen].mean(1) if seen.any() else 0 * out[:, t, 1]
    expected = mean @ dense['kernel'] + dense['bias']
    np.testing.assert_allclose(out[:, t, 0], expected, atol=1e-5)
  changed = _inputs()['patches'].copy()
  changed[:, :, 0] += 1.0
  other = _encode_without('intra', hidden=hidden, patches=changed)
  np.testing.assert_array_equal(other[:, 1:, 2:], out[:, 1:, 2:])
  np.testing.assert_array_equal(other[:, 1:, 0], out[:, 1:, 0])
  seen = _encode_without('intra')
  other = _encode_without('intra', patches=changed)
  np.testing.assert_array_equal(other[:, :, 2:], seen[:, :, 2:])
  assert (np.abs(other - seen)[:, 1:, :2].max(-1) > 1e-4).all()


def test_without_inter_a_frame_sees_nothing_but_itself():
  """E2."""
  changed = _inputs()['patches'].copy()
  changed[:, 2] += 1.0
  base = _encode_without('inter')
  moved = np.abs(_encode_without('inter', patches=changed) - base)
  np.testing.assert_array_equal(moved.max((0, 2, 3)) > 0, np.arange(_T) == 2)
  assert (moved[:, 2, 0].max(-1) > 1e-3).all()


def test_without_coordinates_places_do_not_matter():
  """E3."""
  points = _inputs()['points'] + 5.0
  same = _encode_without('coordinate', points=points)
  np.testing.assert_array_equal(same, _encode_without('coordinate'))
  assert np.abs(_encode(points=points) - _encode()).max() > 1e-3


def test_without_time_only_what_is_in_the_window_matters():
  """E3: later in the window, but with the same past, gives the same."""
  step = _STEP + np.array([0, 5, 5, 5, 0, 0])
  same = _encode_without('temporal', window_step=step)
  np.testing.assert_array_equal(same, _encode_without('temporal'))
  assert np.abs(_encode(window_step=step) - _encode()).max() > 1e-3


@pytest.mark.parametrize('without', _WITHOUT)
def test_streaming_equals_the_sequence_without_a_part_too(without):
  inputs, (model, params, _) = _inputs(), _ablated(without)
  step = jax.jit(
    lambda cache, *args: model.apply(params, *args, cache, method='step')
  )
  cache, expected = model.initial_cache(_B, _K, 3), _encode_without(without)
  for t in range(_T):
    args = (
      inputs[name][:, t]
      for name in ('patches', 'points', 'window_step', 'is_first')
    )
    out, cache = step(cache, *args)
    np.testing.assert_allclose(out, expected[:, t], atol=1e-5)
