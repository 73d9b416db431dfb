"""Numbers of any size as categoricals over fixed bins  [DreamerV3].

The bins are symexp of equal steps, so they are dense around 0 and reach to
+-e^20. A number is encoded as the mix of its two neighboring bins that has the
number as its mean.
"""

import jax
import jax.numpy as jnp

_LARGEST = 20.0  # largest bin, before symexp


def symexp(x: jax.Array) -> jax.Array:
  """Computes sign(x) (exp|x| - 1)."""
  return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def bins(count: int) -> jax.Array:
  """Returns the positions of the bins, [count] float32, ascending.

  Raises:
    ValueError: if `count` is even, because there has to be a bin at 0.
  """
  if count % 2 == 0:
    raise ValueError(f'The number of bins must be odd, not {count}.')
  half = symexp(jnp.linspace(-_LARGEST, 0.0, count // 2 + 1))
  return jnp.concatenate([half, -half[-2::-1]])


def encode(x: jax.Array, count: int) -> jax.Array:
  """Computes weights of the bins: [...] float32 -> [..., count].

  At most two weights are not 0. Numbers beyond the bins go to the outermost
  bin.
  """
  places = bins(count)
  x = jnp.clip(x, places[0], places[-1])
  above = jnp.clip(jnp.searchsorted(places, x, side='right'), 1, count - 1)
  low, high = places[above - 1], places[above]
  share = ((x - low) / (high - low))[..., None]
  return (1.0 - share) * jax.nn.one_hot(
    above - 1, count
  ) + share * jax.nn.one_hot(above, count)


def mean(logits: jax.Array) -> jax.Array:
  """Computes the expected number: [..., count] float32 -> [...].

  Bins of the same size and opposite signs are summed first, so that uniform
  probabilities give exactly 0.
  """
  half = logits.shape[-1] // 2
  probs = jax.nn.softmax(logits, -1)
  low, high = probs[..., :half][..., ::-1], probs[..., half + 1 :]
  return (high - low) @ bins(logits.shape[-1])[half + 1 :]


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """Computes -ln p of stopped targets: [..., count], [...] -> [...], nats."""
  weights = encode(jax.lax.stop_gradient(target), logits.shape[-1])
  return -(weights * jax.nn.log_softmax(logits, -1)).sum(-1)
