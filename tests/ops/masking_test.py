"""Tests of masking: exact counts, windows, causality."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from drp_jax.ops import masking


@pytest.mark.parametrize('ratio', [0.3, 0.5, 0.7])
def test_every_clip_hides_the_exact_count(ratio):
  B, T, K = 5, 7, 3
  valid = np.broadcast_to(np.arange(T) > 0, (B, T))
  hidden = masking.random_hidden(random_inputs.keys(0, B), valid, K, ratio)
  assert hidden.shape == (B, T, K)
  count = int(np.floor(ratio * K * (T - 1)))
  np.testing.assert_array_equal(hidden.sum((1, 2)), np.full(B, count))
  assert not hidden[:, 0].any()


def test_every_token_is_hidden_equally_often():
  B, T, K = 2000, 3, 2
  valid = np.broadcast_to(np.arange(T) > 0, (B, T))
  hidden = masking.random_hidden(random_inputs.keys(0, B), valid, K, 0.5)
  # Four standard deviations of a mean of 2000 coin flips.
  np.testing.assert_allclose(hidden[:, 1:].mean(0), 0.5, atol=0.045)


def test_kept_tokens_are_distinct_and_drawn_anew_for_every_frame():
  kept = masking.keep_tokens(random_inputs.keys(0), 20, 16, 4)
  assert kept.shape == (80, 4)
  rows = {tuple(sorted(row)) for row in np.asarray(kept).tolist()}
  assert all(len(set(row)) == 4 for row in rows)
  assert len(rows) > 60
  assert {i for row in rows for i in row} == set(range(16))


def test_windows_by_hand():
  step = np.array([[0, 0, 1, 2, 0, 1], [0, 7, 8, 9, 10, 0]])
  is_first = np.arange(6)[None] == np.zeros((2, 1))
  same = masking.same_window(step, is_first)
  names = ['abbbcc', 'abbbbc']  # an entry with is_first stands alone
  for b, row in enumerate(names):
    expected = [[x == y for y in row] for x in row]
    np.testing.assert_array_equal(same[b], expected)


def test_an_episode_that_begins_inside_a_sequence_is_a_new_window():
  step = np.array([[0, 1, 2, 0, 0, 1]])
  is_first = np.array([[False, False, False, True, False, False]])
  row = 'aaabcc'
  expected = [[x == y for y in row] for x in row]
  np.testing.assert_array_equal(
    masking.same_window(step, is_first)[0], expected
  )


def test_causal_sees_itself_and_the_past():
  np.testing.assert_array_equal(
    masking.causal(3), [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
  )


def test_a_segment_of_several_episodes_hides_its_share():
  """Of 3 keypoints in 4 and 6 entries with flow, a half."""
  valid = np.ones((2, 7), bool)
  valid[:, 0] = valid[0, [3, 4]] = False
  hidden = masking.random_hidden(random_inputs.keys(0, 2), valid, 3, 0.5)
  np.testing.assert_array_equal(hidden.sum((1, 2)), [6, 9])
  assert not (np.asarray(hidden) & ~valid[..., None]).any()


@pytest.mark.parametrize(
  ('dtype', 'tolerance'), [('float32', 1e-6), ('bfloat16', 2e-2)]
)
def test_gradients_of_taken_tokens_are_added_up_at_their_places(
  dtype, tolerance
):
  """On CPUs by adding in place, elsewhere by a product; and by hand."""
  rng = np.random.default_rng(0)
  B, heads, N, c, rows, n = 2, 3, 8, 5, 7, 4
  x = rng.normal(size=(B, heads, N, c)).astype(np.float32)
  kept = np.stack(
    [[rng.permutation(N)[:n] for _ in range(rows)] for _ in range(B)]
  )
  dy = rng.normal(size=(B, heads, rows, n, c)).astype(np.float32)
  expected = np.zeros_like(x)
  for b, row, i in np.ndindex(B, rows, n):
    expected[b, :, kept[b, row, i]] += dy[b, :, row, i]
  x, dy = jnp.asarray(x, dtype), jnp.asarray(dy, dtype)
  taken, vjp = jax.vjp(lambda x: masking.take_tokens(x, kept), x)
  for b, row, i in np.ndindex(B, rows, n):
    np.testing.assert_array_equal(taken[b, :, row, i], x[b, :, kept[b, row, i]])
  for found in (*vjp(dy), masking.add_tokens_by_product(dy, x, kept)):
    assert found.dtype == x.dtype
    np.testing.assert_allclose(
      found.astype(np.float32), expected, rtol=tolerance, atol=10 * tolerance
    )
