"""Tests of optimizers against NumPy."""

import jax
import numpy as np
import optax
import pytest

from drp_jax.systems import optim
from drp_jax.systems.dreamerv3 import laprop


def _adam_by_hand(params, gradients, lr, eps, clip, decay):
  """The order of the lineage: clip, add L2, Adam."""
  m = v = np.zeros_like(params)
  for t, g in enumerate(gradients, 1):
    norm = np.sqrt((g**2).sum())
    g = g * min(1.0, clip / norm) + decay * params
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    scale = np.sqrt(v / (1 - 0.999**t)) + eps
    params = params - lr * (m / (1 - 0.9**t)) / scale
  return params


def _run(tx, params, gradients):
  state = tx.init(params)
  for gradient in gradients:
    updates, state = tx.update(gradient, state, params)
    params = optax.apply_updates(params, updates)
  return params


@pytest.mark.parametrize('scale', [0.1, 100.0])
def test_adam_with_coupled_decay_after_clipping(scale):
  rng = np.random.default_rng(0)
  params = rng.normal(size=6)
  gradients = scale * rng.normal(size=(4, 6))
  tx = optim.adam(0.01, eps=1e-3, grad_clip=1.0, weight_decay=0.1)
  out = _run(tx, params.astype(np.float32), gradients.astype(np.float32))
  expected = _adam_by_hand(params, gradients, 0.01, 1e-3, 1.0, 0.1)
  np.testing.assert_allclose(out, expected, rtol=1e-4)


def test_groups_are_clipped_by_themselves():
  rng = np.random.default_rng(0)
  settings = dict(eps=1e-3, grad_clip=1.0, weight_decay=0.01)
  tx = optim.grouped(
    {
      'fast': optim.adam(0.01, **settings),
      'slow': optim.adam(0.001, **settings),
    },
    {'a': 'fast', 'b': 'slow', 'c': 'fast', 'absent': 'slow'},
  )
  params = {name: rng.normal(size=3).astype(np.float32) for name in 'abc'}
  gradients = [
    {'a': g[0], 'b': 1000 * g[1], 'c': g[2]}
    for g in rng.normal(size=(3, 3, 3)).astype(np.float32)
  ]
  out = _run(tx, params, gradients)
  joined = _adam_by_hand(
    np.concatenate([params['a'], params['c']]),
    [np.concatenate([g['a'], g['c']]) for g in gradients],
    0.01,
    **dict(eps=1e-3, clip=1.0, decay=0.01),
  )
  np.testing.assert_allclose(
    np.concatenate([out['a'], out['c']]), joined, rtol=1e-4
  )
  alone = _adam_by_hand(
    params['b'], [g['b'] for g in gradients], 0.001, 1e-3, 1.0, 0.01
  )
  np.testing.assert_allclose(out['b'], alone, rtol=1e-4)


def test_frozen_at_first_then_moves_with_the_moments_it_gathered():
  settings = dict(eps=1e-3, grad_clip=1.0, weight_decay=0.0)
  tx = optim.adam(optim.frozen_at_first(0.01, 2), **settings)
  gradients = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  params = np.ones(4, np.float32)
  np.testing.assert_array_equal(_run(tx, params, gradients[:2]), params)
  out = _run(tx, params, gradients)
  free = optim.adam(0.01, **settings)
  two, three = _run(free, params, gradients[:2]), _run(free, params, gradients)
  np.testing.assert_allclose(out - params, three - two, atol=1e-6)
  assert jax.numpy.abs(out - params).max() > 1e-4


def test_laprop_divides_before_it_averages():
  """And clips every array by its own norm, 1e-3 at least."""
  rng = np.random.default_rng(0)
  params = {'large': rng.normal(size=6), 'zero': np.zeros((2, 2))}
  gradients = [
    {name: scale * rng.normal(size=x.shape) for name, x in params.items()}
    for scale in (10.0, 1e-5, 0.1, 3.0)
  ]
  tx = laprop.laprop(laprop.warmed_up(0.01, 2), clip=0.3)
  as_float32 = jax.tree.map(np.float32, (params, gradients))
  found = _run(tx, *as_float32)
  for name, x in params.items():
    square = mean = np.zeros_like(x)
    for t, gradient in enumerate(gradients, 1):
      g = gradient[name]
      largest = 0.3 * max(1e-3, np.sqrt((x**2).sum()))
      g = g * min(1.0, largest / np.sqrt((g**2).sum()))
      square = 0.999 * square + 0.001 * g**2
      mean = 0.9 * mean + 0.1 * g / np.sqrt(square / (1 - 0.999**t))
      rate = 0.01 * min(1.0, (t - 1) / 2)
      x = x - rate * mean / (1 - 0.9**t)
    np.testing.assert_allclose(found[name], x, rtol=2e-4, err_msg=name)


def test_laprop_leaves_alone_what_has_no_gradient():
  tx = laprop.laprop(1.0, clip=0.3)
  params = {'a': np.ones(3, np.float32)}
  np.testing.assert_array_equal(
    _run(tx, params, [{'a': np.zeros(3, np.float32)}] * 2)['a'], params['a']
  )
