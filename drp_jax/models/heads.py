"""Heads on a state's features: scalars and the policy."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.models import layers, network


class ScalarHead(network.Network):
  """Predicts one number from a state.

  The mean of a unit-variance Gaussian, a reward or a value; or the logit of a
  Bernoulli, of going on.

  Attributes:
    width: hidden width.
    depth: hidden layers.
  """

  width: int
  depth: int

  @nn.compact
  def __call__(self, feat: jax.Array) -> jax.Array:
    """Predicts [...], float32, from [..., F]."""
    out = layers.MLP(1, self.width, self.depth, name='mlp')(feat)
    return out[..., 0].astype(jnp.float32)


class PolicyHead(network.Network):
  """Truncated normal on [-1, 1]^A  [IPV].

  Attributes:
    action_size: A.
    width: hidden width.
    depth: hidden layers.
  """

  action_size: int
  width: int
  depth: int

  @nn.compact
  def __call__(self, feat: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Predicts mean in (-1, 1), std in (0.1, 2.1), [..., A], from [..., F]."""
    out = layers.MLP(
      2 * self.action_size,
      self.width,
      self.depth,
      out_init=layers.shared_glorot(self.width, self.action_size),  # two layers
      name='mlp',
    )(feat)
    mean, std = jnp.split(out.astype(jnp.float32), 2, -1)
    return jnp.tanh(mean), 2.0 * jax.nn.sigmoid(std / 2.0) + 0.1
