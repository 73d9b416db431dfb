"""Everything a training step changes, and nothing else."""

from typing import Any

import flax.struct
import jax
import optax


@flax.struct.dataclass
class PretrainState:
  """State of Algorithm 1.

  Attributes:
    step: [] int32, gradient steps taken so far.
    params: trainable parameters, by parameter set.
    collections: other variables: batch statistics, constants.
    opt_state: of the optimizer.
  """

  step: jax.Array
  params: Any
  collections: Any
  opt_state: optax.OptState


@flax.struct.dataclass
class FinetuneState:
  """State of Algorithm 2.

  Attributes:
    step: [] int32, updates taken so far.
    params: trainable parameters, actor and critic among them.
    collections: other variables: batch statistics, constants.
    model_opt: optimizer state of the world model's groups.
    behavior_opt: optimizer state of actor and critic.
    slow_critic: critic parameters of some updates ago.
    intrinsic: state of the intrinsic bonus (train/intrinsic.py).
  """

  step: jax.Array
  params: Any
  collections: Any
  model_opt: optax.OptState
  behavior_opt: optax.OptState
  slow_critic: Any
  intrinsic: Any
