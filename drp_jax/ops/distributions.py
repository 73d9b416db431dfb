"""Distributions: grouped categoricals, normal and truncated normal ones."""

import jax
import jax.numpy as jnp

_LOG_SQRT_2PI = 0.9189385332046727
_EDGE = 1e-6  # samples stay this far inside (-1, 1)  [IPV]


def categorical_sample(
  logits: jax.Array, gumbel: jax.Array | None
) -> jax.Array:
  """Samples one-hot vectors with straight-through gradients.

  Args:
    logits: [..., groups, classes].
    gumbel: standard Gumbel noise of the same shape, or None for the mode.

  Returns:
    [..., groups, classes] one-hot; its gradient is that of the probabilities.
  """
  scores = logits if gumbel is None else logits + gumbel
  classes = logits.shape[-1]
  one_hot = jax.nn.one_hot(jnp.argmax(scores, -1), classes, dtype=logits.dtype)
  probs = jax.nn.softmax(logits, -1)
  return jax.lax.stop_gradient(one_hot) + probs - jax.lax.stop_gradient(probs)


def categorical_kl(logits_p: jax.Array, logits_q: jax.Array) -> jax.Array:
  """Computes KL(p || q) of grouped categoricals, summed over groups.

  Args:
    logits_p: [..., groups, classes].
    logits_q: [..., groups, classes].

  Returns:
    [...], in nats.
  """
  log_p = jax.nn.log_softmax(logits_p, -1)
  log_q = jax.nn.log_softmax(logits_q, -1)
  return (jnp.exp(log_p) * (log_p - log_q)).sum((-1, -2))


def categorical_entropy(logits: jax.Array) -> jax.Array:
  """Computes entropy in nats: [..., groups, classes] logits -> [...]."""
  log_p = jax.nn.log_softmax(logits, -1)
  return -(jnp.exp(log_p) * log_p).sum((-1, -2))


def mix_uniform(logits: jax.Array, share: float) -> jax.Array:
  """Computes log-probabilities of (1 - share) softmax(logits) + share uniform.

  Args:
    logits: [..., classes].
    share: in (0, 1), so that no class is ever impossible.

  Returns:
    [..., classes].
  """
  probs = jax.nn.softmax(logits, -1)
  return jnp.log((1.0 - share) * probs + share / logits.shape[-1])


def normal_log_prob(mean: jax.Array, std: jax.Array, x: jax.Array) -> jax.Array:
  """Computes the log density of diagonal normals, summed: [..., A] -> [...]."""
  z = (x - mean) / std
  return (-0.5 * z * z - _LOG_SQRT_2PI - jnp.log(std)).sum(-1)


def normal_entropy(std: jax.Array) -> jax.Array:
  """Computes the entropy of diagonal normals in nats: [..., A] -> [...]."""
  return (0.5 + _LOG_SQRT_2PI + jnp.log(std)).sum(-1)


def normal_kl(
  mean_p: jax.Array,
  std_p: jax.Array,
  mean_q: jax.Array | float,
  std_q: jax.Array | float,
) -> jax.Array:
  """Computes KL(p || q) of diagonal normals, summed over the last axis.

  Args:
    mean_p: [..., Z].
    std_p: [..., Z], positive.
    mean_q: [..., Z] or one number.
    std_q: [..., Z] or one number, positive.

  Returns:
    [...], in nats.
  """
  ratio = jnp.square(std_p / std_q)
  distance = jnp.square((mean_p - mean_q) / std_q)
  return 0.5 * (ratio + distance - 1.0 - jnp.log(ratio)).sum(-1)


def _normal_pdf(x: jax.Array) -> jax.Array:
  return jnp.exp(-0.5 * x * x - _LOG_SQRT_2PI)


def _bounds(mean: jax.Array, std: jax.Array):
  """Computes standardized ends of [-1, 1] and the mass between them."""
  low, high = (-1.0 - mean) / std, (1.0 - mean) / std
  low_cdf = jax.scipy.special.ndtr(low)
  mass = jnp.maximum(jax.scipy.special.ndtr(high) - low_cdf, 1e-8)
  return low, high, low_cdf, mass


def truncated_normal_sample(
  mean: jax.Array, std: jax.Array, uniform: jax.Array
) -> jax.Array:
  """Samples N(mean, std) truncated to [-1, 1] by its inverse CDF.

  Samples are reparameterized. The final clamp to +-(1 - 1e-6) passes gradients
  straight through.

  Args:
    mean: [..., A].
    std: [..., A], positive.
    uniform: [..., A] in [0, 1).

  Returns:
    [..., A] in (-1, 1).
  """
  _, _, low_cdf, mass = _bounds(mean, std)
  quantile = jnp.clip(low_cdf + uniform * mass, 1e-7, 1.0 - 1e-7)
  sample = mean + std * jax.scipy.special.ndtri(quantile)
  clamped = jnp.clip(sample, -1.0 + _EDGE, 1.0 - _EDGE)
  return sample + jax.lax.stop_gradient(clamped - sample)


def truncated_normal_log_prob(
  mean: jax.Array, std: jax.Array, x: jax.Array
) -> jax.Array:
  """Computes the log density of x [..., A] in [-1, 1], summed over A: [...]."""
  mass = _bounds(mean, std)[-1]
  z = (x - mean) / std
  log_prob = -0.5 * z * z - _LOG_SQRT_2PI - jnp.log(std) - jnp.log(mass)
  return log_prob.sum(-1)


def truncated_normal_entropy(mean: jax.Array, std: jax.Array) -> jax.Array:
  """Computes the entropy in nats, summed over A: [..., A] -> [...]."""
  low, high, _, mass = _bounds(mean, std)
  edges = (low * _normal_pdf(low) - high * _normal_pdf(high)) / (2.0 * mass)
  entropy = _LOG_SQRT_2PI + 0.5 + jnp.log(std) + jnp.log(mass) + edges
  return entropy.sum(-1)
