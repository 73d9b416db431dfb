"""Random numbers drawn example by example.

Every sequence of a batch has its own key, derived from its place in the
*global* batch. A step therefore gives the same numbers on one device and on
many. Comparisons of implementations can pass the noise instead.
"""

import math
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


def keep_mask(
  keys: jax.Array, shape: tuple[int, ...], rate: float
) -> jax.Array:
  """Draws [B, *shape] bool, false with probability `rate`.

  The mask is a hash of a counter and the example's key (the finalizer of
  MurmurHash3). This is some fifty times cheaper than a cryptographic generator,
  which would take most of the decoder's time, and good enough for dropout.

  Args:
    keys: [B] typed keys.
    shape: of one example.
    rate: in [0, 1).
  """
  seed = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys)
  count = math.prod(shape)
  x = jnp.arange(count, dtype=jnp.uint32)[None] * jnp.uint32(0x9E3779B9)
  x = x + seed[:, :1]
  x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
  x = (x ^ (x >> 16)) ^ seed[:, 1:]
  return (x >= jnp.uint32(rate * 2**32)).reshape(-1, *shape)


def dropout(x: jax.Array, keys: jax.Array | None, rate: float) -> jax.Array:
  """Drops values of x [B * n, ...] with probability `rate`.

  Args:
    x: [B * n, ...] float, n rows of every example after each other.
    keys: [B] typed keys, or None to drop nothing (evaluation).
    rate: share of values set to zero; the others grow by 1 / (1 - rate).

  Returns:
    [B * n, ...] float.
  """
  return x if keys is None else drop(x / (1.0 - rate), keys, rate)


def drop(x: jax.Array, keys: jax.Array | None, rate: float) -> jax.Array:
  """Drops values like `dropout`, but does not scale the others."""
  if keys is None or rate == 0.0:
    return x
  B = keys.shape[0]
  keep = keep_mask(keys, (x.shape[0] // B, *x.shape[1:]), rate)
  return jnp.where(keep.reshape(x.shape), x, 0.0)


def kept_share(keys: jax.Array | None, rate: float) -> float:
  """Returns the expected share of values that `drop` keeps."""
  return 1.0 if keys is None else 1.0 - rate
