"""Tests of the motion encoder: Eqs. 13-19 by loops; who sees whom."""

import functools
import math

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


def _layer_norm(x, p):
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  return x * p['scale'] + p['bias']


def _attend_by_loops(query, key, value, allowed, num_heads):
  """[Q, D], [N, D], [N, D], allowed [Q, N]."""
  width = query.shape[-1] // num_heads
  out = np.zeros_like(query)
  for head in range(num_heads):
    part = slice(head * width, (head + 1) * width)
    for i in range(len(query)):
      keys = np.nonzero(allowed[i])[0]
      if not len(keys):
        continue  # a hidden token that nobody reads
      scores = key[keys, part] @ query[i, part] / math.sqrt(width)
      weights = np.exp(scores - scores.max())
      out[i, part] = weights / weights.sum() @ value[keys, part]
  return out


def _block_by_loops(p, x, seen, time_mask, num_heads):
  """Eqs. 13-19 on one sequence [T, K+1, D]; seen [T, K+1]."""

  def project(h, name):
    return h @ p[name]['kernel']

  def out(h, name):
    return project(h, name) if num_heads > 1 else h

  T, N, _ = x.shape
  h = _layer_norm(x, p['intra_norm'])
  intra = np.stack(
    [
      _attend_by_loops(
        project(h[t], 'intra_query'),
        project(h[t], 'intra_key'),
        project(h[t], 'intra_value'),
        np.tile(seen[t], (N, 1)),
        num_heads,
      )
      for t in range(T)
    ]
  )
  x = x + out(intra, 'intra_out')
  h = _layer_norm(x, p['inter_norm'])
  inter = np.stack(
    [
      _attend_by_loops(
        project(h[:, k], 'inter_query'),
        project(h[:, k], 'inter_key'),
        project(h[:, k], 'inter_value'),
        time_mask & seen[:, k][None],
        num_heads,
      )
      for k in range(N)
    ],
    1,
  )
  x = x + out(inter, 'inter_out')
  h = _layer_norm(x, p['mlp_norm']) @ p['mlp_in']['kernel']
  h = h + p['mlp_in']['bias']
  h = 0.5 * h * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
  return x + h @ p['mlp_out']['kernel'] + p['mlp_out']['bias']


@pytest.mark.parametrize('num_heads', [1, 2])
def test_block_equals_loops(num_heads):
  rng = np.random.default_rng(0)
  block = dae.DualAttentionBlock(_D, num_heads, 2)
  x = rng.normal(size=(1, 4, 3, _D)).astype(np.float32)
  seen = rng.uniform(size=(1, 4, 3)) > 0.3
  seen[:, :, 0] = True
  time_mask = np.tril(np.ones((1, 4, 4), bool))
  time_mask[:, 2:, :2] = False
  params = random_inputs.fill(
    jax.eval_shape(block.init, jax.random.key(0), x, seen, time_mask)
  )
  out = block.apply(params, x, seen, time_mask)
  expected = _block_by_loops(
    params['params'], x[0], seen[0], time_mask[0], num_heads
  )
  np.testing.assert_allclose(out[0][seen[0]], expected[seen[0]], atol=1e-4)


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
