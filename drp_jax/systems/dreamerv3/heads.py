"""DreamerV3's heads on a state's features: numbers, continuation, policy."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from drp_jax.models import network
from drp_jax.systems.dreamerv3 import layers

_BINS = 255  # of two-hot numbers  [DreamerV3]
_MIN_STD, _MAX_STD = 0.1, 1.0  # of the policy  [DreamerV3]


class TwoHotHead(network.Network):
  """Head for a reward or value as logits of bins (ops/two_hot.py), initially 0.

  Attributes:
    width: hidden width.
    depth: hidden layers.
  """

  width: int
  depth: int

  @nn.compact
  def __call__(self, feat: jax.Array) -> jax.Array:
    """Predicts logits [..., 255], float32, from [..., F]."""
    x = layers.MLP(self.width, self.depth, name='mlp')(feat)
    init = layers.kernel_init(0.0)
    x = layers.Dense(_BINS, kernel_init=init, name='out')(x)
    return x.astype(jnp.float32)


class ContinueHead(network.Network):
  """Probability that the episode continues, times the discount.

  Attributes:
    width: hidden width.
    depth: hidden layers.
  """

  width: int
  depth: int

  @nn.compact
  def __call__(self, feat: jax.Array) -> jax.Array:
    """Predicts logits [...], float32, from [..., F]."""
    x = layers.MLP(self.width, self.depth, name='mlp')(feat)
    x = layers.Dense(1, name='out')(x)
    return x[..., 0].astype(jnp.float32)


class PolicyHead(network.Network):
  """Normal distributions whose means lie in (-1, 1).

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
    """Predicts mean in (-1, 1), std in (0.1, 1), [..., A], from [..., F]."""
    x = layers.MLP(self.width, self.depth, name='mlp')(feat)
    mean, std = (
      layers.Dense(
        self.action_size,
        kernel_init=layers.kernel_init(0.01),
        name=name,
      )(x).astype(jnp.float32)
      for name in ('mean', 'std')
    )
    std = _MIN_STD + (_MAX_STD - _MIN_STD) * nn.sigmoid(std + 2.0)
    return jnp.tanh(mean), std
