"""Numbers of any size as categoricals over fixed bins  [DreamerV3].

The bins are symexp of equal steps, so that they are dense around 0 and reach to
+-e^20. A number is the mix of the two bins beside it that has it as its mean.
"""

import jax
import jax.numpy as jnp

_LARGEST = 20.0  # of the bins, before symexp


def symexp(x: jax.Array) -> jax.Array:
  """sign(x) (exp|x| - 1)."""
  return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def bins(count: int) -> jax.Array:
  """Positions of the bins, [count] float32, ascending.

  Raises:
    ValueError: if `count` is even: there has to be a bin at 0.
  """
  if count % 2 == 0:
    raise ValueError(f'The number of bins must be odd, not {count}.')
  half = symexp(jnp.linspace(-_LARGEST, 0.0, count // 2 + 1))
  return jnp.concatenate([half, -half[-2::-1]])


def encode(x: jax.Array, count: int) -> jax.Array:
  """Weights of the bins: [...] float32 -> [..., count], at most two not 0.

  What lies outside the bins becomes the outermost.
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
  """Expected number: [..., count] float32 -> [...].

  Bins of one size and opposite signs are summed first, so that even
  probabilities give 0 to the bit.
  """
  half = logits.shape[-1] // 2
  probs = jax.nn.softmax(logits, -1)
  low, high = probs[..., :half][..., ::-1], probs[..., half + 1 :]
  return (high - low) @ bins(logits.shape[-1])[half + 1 :]


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
  """-ln p of stopped targets: [..., count] and [...] -> [...], nats."""
  weights = encode(jax.lax.stop_gradient(target), logits.shape[-1])
  return -(weights * jax.nn.log_softmax(logits, -1)).sum(-1)
