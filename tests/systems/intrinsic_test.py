"""Tests of the intrinsic bonus against a naive loop over batches."""

import functools

import jax
import numpy as np
import pytest

from drp_jax.systems import intrinsic

_B, _T, _F = 4, 6, 5
_SETTINGS = intrinsic.Settings(
  scale=0.3, window=2, queue_size=50, projection=3, neighbours=4, momentum=0.9
)


def _batches():
  rng = np.random.default_rng(0)
  return rng.normal(size=(3, _B, _T, _F)).astype(np.float32)


@functools.cache
def _bonus(axis_name, settings=_SETTINGS):
  def run(state, feat, is_last=None):
    if is_last is None:
      is_last = np.zeros(feat.shape[:2], bool)
    return intrinsic.bonus(state, feat, is_last, settings, axis_name)

  if axis_name is None:
    return jax.jit(run)
  return jax.pmap(run, axis_name, in_axes=(None, 0), out_axes=(0, None))


def _naive(matrix, batches, settings):
  """Bonuses of consecutive batches, by loops in float64."""
  queue, magnitude, results = [], 1.0, []
  for feat in batches:
    own = np.zeros((_B, _T - settings.window + 1, settings.projection))
    for b in range(_B):
      for t in range(own.shape[1]):
        own[b, t] = feat[b, t : t + settings.window].mean(0) @ matrix
    queue = [*own.reshape(-1, settings.projection), *queue]
    queue = queue[: settings.queue_size]
    raw = np.zeros(own.shape[:2])
    for place in np.ndindex(*raw.shape):
      distances = sorted(np.linalg.norm(own[place] - q) for q in queue)
      nearest = distances[: settings.neighbours]
      assert nearest[0] == 0  # itself
      raw[place] = np.mean(nearest)
    magnitude = settings.momentum * magnitude
    magnitude += (1 - settings.momentum) * raw.mean()
    results.append(settings.scale * raw / magnitude)
  return results, np.array(queue)


def test_three_batches_equal_a_naive_loop():
  """20 windows each into a queue of 50: the third batch drives out some."""
  state = intrinsic.init(jax.random.key(0), _F, _SETTINGS)
  expected, queue = _naive(np.asarray(state.matrix), _batches(), _SETTINGS)
  for feat, bonus in zip(_batches(), expected, strict=True):
    out, state = _bonus(None)(state, feat)
    assert out.shape == (_B, _T - 1)
    np.testing.assert_allclose(out, bonus, rtol=1e-5)
  np.testing.assert_allclose(state.queue, queue, atol=1e-6)  # newest first
  assert state.count == 50


def test_far_from_the_origin_distances_stay_exact():
  """Features that hardly change: squares would cancel to rounding."""
  batches = 100.0 + 0.1 * _batches()
  state = intrinsic.init(jax.random.key(0), _F, _SETTINGS)
  expected, _ = _naive(np.asarray(state.matrix), batches[:1], _SETTINGS)
  out, _ = _bonus(None)(state, batches[0])
  np.testing.assert_allclose(out, expected[0], rtol=1e-2)


def test_projection_has_the_stated_scale():
  settings = intrinsic.Settings(1.0, 2, 10, 100, 4, 0.9)
  state = intrinsic.init(jax.random.key(0), 200, settings)
  np.testing.assert_allclose(np.std(state.matrix), 1 / 100, rtol=0.05)
  assert state.magnitude == 1.0


def test_empty_places_of_the_queue_are_no_neighbors():
  settings = intrinsic.Settings(1.0, _T, 50, 3, 16, 0.9)  # one window each
  state = intrinsic.init(jax.random.key(0), _F, settings)
  expected, _ = _naive(np.asarray(state.matrix), _batches()[:1], settings)
  out, state = _bonus(None, settings)(state, _batches()[0])
  assert state.count == _B
  np.testing.assert_allclose(out, expected[0], rtol=1e-5)


@pytest.mark.parametrize('devices', [2, 4])
def test_devices_share_the_queue(devices):
  state = shared = intrinsic.init(jax.random.key(0), _F, _SETTINGS)
  for feat in _batches():
    out, state = _bonus(None)(state, feat)
    shares, shared = _bonus('batch')(shared, feat.reshape(devices, -1, _T, _F))
    np.testing.assert_allclose(shares.reshape(out.shape), out, rtol=1e-5)
  np.testing.assert_allclose(shared.queue, state.queue, atol=1e-6)
  np.testing.assert_allclose(shared.magnitude, state.magnitude, rtol=1e-6)


def test_windows_end_where_an_episode_ends():
  """By hand, of 3 steps each; without an end the numbers are the same bits."""
  feat = _batches()[0, :2]
  is_last = np.zeros((2, _T), bool)
  means = jax.jit(functools.partial(intrinsic.window_means, window=3))
  plain = means(feat, is_last)
  without = jax.jit(lambda x: (x[:, :4] + x[:, 1:5] + x[:, 2:]) / 3)(feat)
  np.testing.assert_array_equal(plain, without)
  is_last[0, 2] = is_last[1, -1] = True
  found = means(feat, is_last)
  expected = [
    feat[0, :3].mean(0),
    feat[0, 1:3].mean(0),
    feat[0, 2],
    feat[0, 3:].mean(0),
  ]
  np.testing.assert_allclose(found[0], expected, rtol=1e-5)
  np.testing.assert_array_equal(found[1], plain[1])
