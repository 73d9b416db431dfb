"""Random numbers drawn example by example.

Every sequence of a batch has its own key, derived from its place in the *global*
batch. So a step gives the same numbers on one device and on many, and whoever
compares implementations can feed the noise instead.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def example_keys(key: jax.Array, first: jax.Array | int, count: int):
  """Returns typed keys [count] for examples first, first + 1, ..."""
  fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
  return fold(key, first + jnp.arange(count))


def split(keys: jax.Array, num: int) -> list[jax.Array]:
  """Splits keys [B] into `num` independent arrays of keys [B]."""
  children = jax.vmap(lambda key: jax.random.split(key, num))(keys)
  return [children[:, i] for i in range(num)]


def draw(keys: jax.Array, sampler: Callable, shape: tuple[int, ...]):
  """Draws [B, *shape] float32 with `sampler`, e.g. `jax.random.gumbel`."""
  return jax.vmap(lambda key: sampler(key, shape))(keys)


def dropout(x: jax.Array, keys: jax.Array | None, rate: float) -> jax.Array:
  """Drops values of x [B * n, ...] with probability `rate`.

  Args:
    x: [B * n, ...] float, n rows of every example after each other.
    keys: [B] typed keys, or None to drop nothing (evaluation).
    rate: share of values set to zero; the others grow by 1 / (1 - rate).

  Returns:
    [B * n, ...] float.
  """
  if keys is None or rate == 0.0:
    return x
  B = keys.shape[0]
  shape = (x.shape[0] // B, *x.shape[1:])
  keep = draw(keys, jax.random.uniform, shape).reshape(x.shape) >= rate
  return jnp.where(keep, x / (1.0 - rate), 0.0)
