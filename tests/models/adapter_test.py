"""Tests of the adapter: it starts as a normalized projection (D6)."""

import jax
import numpy as np

from drp_jax.models import adapter


def test_starts_as_a_normalized_projection():
  rng = np.random.default_rng(0)
  feat = rng.normal(size=(2, 3, 10)).astype(np.float32)
  model = adapter.Adapter(width=6, num_blocks=2)
  params = model.init(jax.random.key(0), feat)
  x = feat @ np.asarray(params['params']['in']['kernel'])
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  np.testing.assert_allclose(model.apply(params, feat), x, atol=1e-4)
  blocks = [name for name in params['params'] if name.startswith('block')]
  assert sorted(blocks) == [
    'block0_in',
    'block0_out',
    'block1_in',
    'block1_out',
  ]


def test_the_mlp_projection_is_one_layer():
  """Fig. 13 (D6)."""
  rng = np.random.default_rng(0)
  feat = rng.normal(size=(2, 3, 10)).astype(np.float32)
  model = adapter.MLPProjection(width=6)
  params = model.init(jax.random.key(0), feat)
  x = feat @ np.asarray(params['params']['dense']['kernel'])
  expected = np.where(x > 0, x, np.expm1(x))
  np.testing.assert_allclose(model.apply(params, feat), expected, atol=1e-5)
  assert set(params['params']) == {'dense'}
