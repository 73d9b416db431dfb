"""Tests of tokens: embeddings by hand, and what [MAT] knows."""

import jax
import numpy as np
import paper_in_numpy
import random_inputs

from drp_jax.models import tokens


def test_coordinates_by_hand():
  features = np.asarray(
    tokens.coordinate_features(np.array([[16.0, 64.0]]), 64)
  )
  assert features.shape == (1, 64)
  sines, cosines = features[0].reshape(2, 2, 16)
  bands = 2.0 ** np.linspace(-2, 4, 16)
  np.testing.assert_allclose(sines[0], np.sin(np.pi / 2 * bands), atol=1e-4)
  np.testing.assert_allclose(cosines[1], np.cos(2 * np.pi * bands), atol=1e-4)


def test_no_two_pixels_look_the_same():
  x, y = np.meshgrid(np.arange(64.0), np.arange(64.0))
  points = np.stack([x, y], -1).reshape(-1, 2)[::7]
  features = np.asarray(tokens.coordinate_features(points, 64))
  distance = np.linalg.norm(features[:, None] - features, axis=-1)
  np.fill_diagonal(distance, np.inf)
  assert distance.min() > 0.5


def test_time_by_hand():
  features = tokens.time_features(np.array([[0, 3]]), 4)
  np.testing.assert_allclose(features[0, 0], [0, 0, 1, 1], atol=1e-6)
  expected = [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)]
  np.testing.assert_allclose(features[0, 1], expected, atol=1e-6)


def test_tokens_are_content_plus_place_plus_time_and_mat_has_no_place():
  rng = np.random.default_rng(0)
  u, points = rng.normal(size=(2, 3, 8)), rng.uniform(0, 63, (2, 3, 2))
  step = np.array([4, 9])
  module = tokens.AtomicActionTokens(6, 64)
  params = random_inputs.fill(
    jax.eval_shape(module.init, jax.random.key(0), u, points, step)
  )
  out = module.apply(params, u, points, step)
  expected = paper_in_numpy.tokens(params['params'], u, points, step)
  np.testing.assert_allclose(out, expected, atol=1e-4)
