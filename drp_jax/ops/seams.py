"""Seams: places where a segment continues with another episode.

Recurrent states are reset there by `is_first`. Code that compares or averages
several steps of a segment uses these functions to find which steps belong
together. Without seams no result changes in any bit.
"""

import jax
import jax.numpy as jnp


def ends(is_last: jax.Array) -> jax.Array:
  """Finds the last steps in front of seams.

  Args:
    is_last: [B, T] bool, ends of episodes.

  Returns:
    [B, T] bool; false at entry T-1, after which nothing follows.
  """
  return jnp.pad(is_last[:, :-1], ((0, 0), (0, 1)))


def parts(is_last: jax.Array) -> jax.Array:
  """Numbers the parts of each segment: [B, T] bool -> [B, T] int32, from 0."""
  after = jnp.pad(is_last[:, :-1], ((0, 0), (1, 0)))
  return jnp.cumsum(after, 1, dtype=jnp.int32)


def same_part_weight(is_last: jax.Array, index: jax.Array) -> jax.Array:
  """Weights the steps of one part of each segment; others have weight 0.

  If `index` is uniform over the segment, each step has weight 1 on average.

  Args:
    is_last: [B, T] bool.
    index: [B] int, an entry of the part in question.

  Returns:
    [B, T] float32: T / L in that part, L being its length, and 0 elsewhere.
  """
  part = parts(is_last)
  same = part == jnp.take_along_axis(part, index[:, None], 1)
  return same * (same.shape[1] / same.sum(1, keepdims=True))
