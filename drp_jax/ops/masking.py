"""Masks of tokens: random masks and tracking windows."""

import math

import jax
import jax.numpy as jnp

from drp_jax.ops import noise


def num_hidden(length: int, num_keypoints: int, ratio: float) -> int:
  """Counts the atomic actions of a clip that are hidden (B12).

  Args:
    length: T, frames of the clip; the first has no atomic action.
    num_keypoints: K.
    ratio: rho in (0, 1).

  Returns:
    floor(ratio * K * (T - 1)).
  """
  return math.floor(ratio * num_keypoints * (length - 1) + 1e-6)  # .7 * 10 is 7


def random_hidden(
  keys: jax.Array, valid: jax.Array, num_keypoints: int, ratio: float
) -> jax.Array:
  """Hides a random subset of the atomic actions of every clip (B12).

  The subset is uniform over the K tokens of all n valid entries and has exactly
  floor(ratio * K * n) tokens. A clip has one invalid entry, the first, so
  n = T - 1. A segment of several episodes has one for each.

  Args:
    keys: [B] typed keys.
    valid: [B, T] bool, false where there is no flow; never hidden.
    num_keypoints: K.
    ratio: rho in (0, 1).

  Returns:
    [B, T, K] bool.
  """
  B, T = valid.shape
  K = num_keypoints
  # Rounded on the host.
  counts = [num_hidden(n + 1, K, ratio) for n in range(T + 1)]
  count = jnp.array(counts)[valid.sum(1)][:, None]
  scores = noise.draw(keys, jax.random.uniform, (T, K))
  scores = jnp.where(valid[..., None], scores, 2.0).reshape(B, T * K)
  rank = jnp.argsort(jnp.argsort(scores, -1), -1)
  hidden = (rank < count) & (scores < 2.0)
  return hidden.reshape(B, T, K)


def keep_tokens(
  keys: jax.Array, rows: int, num_tokens: int, num_keep: int
) -> jax.Array:
  """Draws `num_keep` of `num_tokens` indices for `rows` frames per example.

  Args:
    keys: [B] typed keys.
    rows: frames of every example.
    num_tokens: number to choose from.
    num_keep: number to keep.

  Returns:
    [B * rows, num_keep] int32, distinct in each row.
  """
  scores = noise.draw(keys, jax.random.uniform, (rows, num_tokens))
  return jax.lax.top_k(scores.reshape(-1, num_tokens), num_keep)[1]


@jax.custom_vjp
def take_tokens(x: jax.Array, kept: jax.Array) -> jax.Array:
  """Gathers each frame's kept tokens from the tokens of its sequence.

  On accelerators the gradient is a product with one-hot vectors. A scatter-add
  would be atomic there, in an order that differs from run to run (GPUs), or
  sequential (TPUs).

  Args:
    x: [B, heads, N, c].
    kept: [B, rows, n] int, indices of tokens.

  Returns:
    [B, heads, rows, n, c].
  """
  return _take(x, kept)


def _take(x, kept):
  return jax.vmap(lambda x, kept: jnp.take(x, kept, 1))(x, kept)


def _take_tokens_forward(x, kept):
  return take_tokens(x, kept), (x, kept)


def _take_tokens_backward(residuals, dy):
  dx = jax.lax.platform_dependent(
    dy, *residuals, cpu=add_tokens, default=add_tokens_by_product
  )
  return dx, None


take_tokens.defvjp(_take_tokens_forward, _take_tokens_backward)


def add_tokens(dy: jax.Array, x: jax.Array, kept: jax.Array) -> jax.Array:
  """Adds the gradients of gathered tokens at their places in x."""
  return jax.vjp(lambda x: _take(x, kept), x)[1](dy)[0]


def add_tokens_by_product(
  dy: jax.Array, x: jax.Array, kept: jax.Array
) -> jax.Array:
  """Computes `add_tokens` in another order, by one product per sequence."""
  B, heads, N, c = x.shape
  chosen = jax.nn.one_hot(kept.reshape(B, -1), N, dtype=dy.dtype)
  total = jnp.einsum(
    'bkn,bhkc->bhnc',
    chosen,
    dy.reshape(B, heads, -1, c),
    precision=jax.lax.Precision.HIGHEST,  # the product only selects
    preferred_element_type=jnp.promote_types(dy.dtype, jnp.float32),
  )
  return total.astype(x.dtype)


def same_window(window_step: jax.Array, is_first: jax.Array) -> jax.Array:
  """Returns which pairs of steps lie in one tracking window.

  Points keep their identity within a window only, so attention over time stays
  inside. An entry with `is_first` has no flow and is a separate window.

  Args:
    window_step: [B, T] int32, see `types.Motion`.
    is_first: [B, T] bool.

  Returns:
    [B, T, T] bool, symmetric.
  """
  after_first = jnp.pad(is_first[:, :-1], ((0, 0), (1, 0)))
  starts = (window_step == 0) | is_first | after_first
  window = jnp.cumsum(starts, 1)
  return window[:, :, None] == window[:, None, :]


def causal(length: int) -> jax.Array:
  """Returns [T, T] bool: query t (row) may see key t' (column) if t' <= t."""
  return jnp.tril(jnp.ones([length, length], bool))
