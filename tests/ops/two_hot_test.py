"""Tests of two-hot numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.interpolate
import scipy.special
import scipy.stats

from drp_jax.ops import two_hot


def test_bins_are_antisymmetric_and_reach_far():
  bins = np.asarray(two_hot.bins(255))
  assert bins.shape == (255,) and np.all(np.diff(bins) > 0)
  np.testing.assert_array_equal(bins, -bins[::-1])
  np.testing.assert_allclose(bins[-1], np.expm1(20.0), rtol=1e-6)
  np.testing.assert_allclose(bins[128], np.expm1(20.0 / 127.0), rtol=1e-4)
  with pytest.raises(ValueError, match='odd, not 4'):
    two_hot.bins(4)


def test_a_number_is_the_mean_of_the_bins_beside_it():
  bins = np.asarray(two_hot.bins(7))
  x = np.array([0.0, 3.0, -3.0, bins[5], 1e10, -1e10], np.float32)
  weights = np.asarray(two_hot.encode(x, 7))
  assert np.all((weights != 0).sum(-1) <= 2) and np.all(weights >= 0)
  np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
  expected = np.clip(x, bins[0], bins[-1])
  np.testing.assert_allclose(weights @ bins, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(weights[0], np.eye(7)[3])
  np.testing.assert_array_equal(weights[3], np.eye(7)[5])
  np.testing.assert_array_equal(np.flatnonzero(weights[1]), [3, 4])


def test_weights_are_the_linear_splines_over_the_bins():
  bins = np.asarray(two_hot.bins(41), np.float64)
  rng = np.random.default_rng(0)
  x = np.asarray(two_hot.symexp(jnp.asarray(rng.uniform(-19, 19, 200))))
  knots = np.concatenate([bins[:1], bins, bins[-1:]])
  expected = scipy.interpolate.BSpline.design_matrix(
    x.astype(np.float64), knots, 1
  ).toarray()
  np.testing.assert_allclose(two_hot.encode(x, 41), expected, atol=1e-4)


def test_cross_entropy_is_entropy_and_divergence():
  rng = np.random.default_rng(1)
  logits = rng.normal(size=(6, 15)).astype(np.float32)
  target = np.array([-9.0, -1.0, -0.3, 0.0, 2.0, 50.0], np.float32)
  weights = np.asarray(two_hot.encode(target, 15), np.float64)
  probs = scipy.special.softmax(logits.astype(np.float64), -1)
  expected = scipy.stats.entropy(weights, axis=-1) + scipy.stats.entropy(
    weights, probs, axis=-1
  )
  found = two_hot.cross_entropy(jnp.asarray(logits), jnp.asarray(target))
  np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_even_probabilities_mean_nothing_to_the_bit():
  assert two_hot.mean(jnp.full([2, 255], 0.7)).tolist() == [0.0, 0.0]


def test_the_mean_of_what_encodes_a_number_is_the_number():
  x = np.array([-300.0, -0.01, 0.0, 2.0, 5e5], np.float32)
  logits = jnp.log(two_hot.encode(x, 255) + 1e-30)
  np.testing.assert_allclose(two_hot.mean(logits), x, rtol=1e-4, atol=1e-6)


def test_cross_entropy_pulls_the_mean_to_a_target_that_gets_no_gradient():
  logits, target = jnp.zeros(255), jnp.float32(3.7)
  by_logits, by_target = jax.grad(two_hot.cross_entropy, (0, 1))(logits, target)
  assert by_target == 0.0
  weights = two_hot.encode(target, 255)
  np.testing.assert_allclose(by_logits, 1.0 / 255 - weights, atol=1e-6)
