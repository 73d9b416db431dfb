"""Tests of noise: it belongs to examples, not to batches or devices."""

import jax
import numpy as np
import random_inputs

from drp_jax.ops import noise


def test_keys_depend_on_the_place_in_the_global_batch_only():
  whole = noise.example_keys(jax.random.key(0), 0, 6)
  share = noise.example_keys(jax.random.key(0), 2, 3)
  data = jax.random.key_data(whole)
  np.testing.assert_array_equal(jax.random.key_data(share), data[2:5])
  assert len(np.unique(data, axis=0)) == 6


def test_split_gives_independent_keys():
  first, second = noise.split(random_inputs.keys(0), 2)
  data = np.concatenate([jax.random.key_data(k) for k in (first, second)])
  assert len(np.unique(data, axis=0)) == 8


def test_draws_of_a_share_are_draws_of_the_batch():
  whole = noise.draw(random_inputs.keys(0), jax.random.normal, (3,))
  share = noise.draw(
    noise.example_keys(jax.random.key(0), 2, 2), jax.random.normal, (3,)
  )
  np.testing.assert_array_equal(whole[2:], share)


def test_dropout_keeps_the_mean_and_the_stated_share():
  x = np.ones((4 * 50, 100), np.float32)
  dropped = np.asarray(noise.dropout(x, random_inputs.keys(1), 0.1))
  np.testing.assert_allclose(np.unique(dropped), [0.0, 1 / 0.9], rtol=1e-6)
  # 20 000 draws: four standard deviations are 0.0085.
  assert abs((dropped == 0).mean() - 0.1) < 0.0085


def test_dropout_rows_belong_to_their_example():
  x = np.ones((8, 5), np.float32)
  whole = noise.dropout(x, random_inputs.keys(1), 0.5)
  share = noise.dropout(x[:4], noise.example_keys(jax.random.key(1), 2, 2), 0.5)
  np.testing.assert_array_equal(whole[4:], share)


def test_no_dropout_in_evaluation():
  x = np.ones((4, 2), np.float32)
  assert noise.dropout(x, None, 0.5) is x
