"""Tests of heads: shapes and ranges."""

import jax
import jax.numpy as jnp
import numpy as np

from drp_jax.models import heads


def test_scalar_head_drops_its_last_axis():
  head = heads.ScalarHead(width=4, depth=2)
  feat = jnp.ones([2, 3, 5])
  params = head.init(jax.random.key(0), feat)
  assert head.apply(params, feat).shape == (2, 3)
  assert set(params['params']['mlp']) == {'dense0', 'dense1', 'out'}


def test_policy_head_stays_in_its_ranges_and_follows_its_formula():
  head = heads.PolicyHead(action_size=2, width=4, depth=1)
  feat = 10.0 * jax.random.normal(jax.random.key(1), (50, 5))
  params = head.init(jax.random.key(0), feat)
  mean, std = head.apply(params, feat)
  assert mean.shape == std.shape == (50, 2)
  assert (np.abs(mean) <= 1).all()
  assert (std >= 0.1).all() and (std <= 2.1).all()
  assert std.max() - std.min() > 1.0
  p = jax.tree.map(np.asarray, params['params']['mlp'])
  hidden = np.asarray(feat @ p['dense0']['kernel'])
  hidden = np.where(hidden > 0, hidden, np.expm1(np.minimum(hidden, 0)))
  raw = hidden @ p['out']['kernel']
  np.testing.assert_allclose(mean, np.tanh(raw[:, :2]), atol=1e-4)
  expected = 2 / (1 + np.exp(-raw[:, 2:] / 2)) + 0.1
  np.testing.assert_allclose(std, expected, atol=1e-3)
