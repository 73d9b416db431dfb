"""The pytrees that cross folders.

Index rule (everywhere): entry t of every array belongs to frame t. `action[t]`,
`flow[t]` and `a_agg[t]` describe what led *to* frame t. `points[t]` are the
keypoints in frame t-1, the centers of the patches of `flow[t]`. If `is_first`
is set they hold zeros. All arrays therefore have length T.

Units: points in pixels of the stored image (x right, y down, pixel centers at
whole numbers), flow in pixels per frame, images uint8 0..255.
"""

from typing import Any

import flax.struct
import jax


@flax.struct.dataclass
class Motion:
  """Local motion of a sequence, as extraction stores it.

  Attributes:
    flow: [..., T, H, W, 2] float16 or float32, pixels per frame, (x, y).
    points: [..., T, K, 2] float32, pixels, (x, y), in frame t-1.
    visible: [..., T, K] bool, true while the tracker still follows the point.
    window_step: [..., T] int32 in [0, W): index of entry t in its tracking
      window. Points keep their identity within a window and are re-seeded when
      it returns to 0. 0 if `is_first`.
  """

  flow: jax.Array
  points: jax.Array
  visible: jax.Array
  window_step: jax.Array


@flax.struct.dataclass
class VideoBatch:
  """Clips without actions, for pre-training.

  Attributes:
    image: [B, T, H, W, 3] uint8.
    motion: leaves [B, T, ...]; None for systems that see no motion.
    is_first: [B, T] bool, true at entry 0.
  """

  image: jax.Array
  motion: Motion | None
  is_first: jax.Array


@flax.struct.dataclass
class ReplayBatch:
  """Segments of episodes, for fine-tuning.

  Attributes:
    image: [B, T, H, W, 3] uint8.
    motion: leaves [B, T, ...]; None for systems that see no motion.
    action: [B, T, A] float32 in [-1, 1], the action that led to frame t.
    reward: [B, T] float32, received on arriving in frame t.
    is_first: [B, T] bool; also true at entry 0 of every segment.
    is_last: [B, T] bool, the episode ended here. If this is not the last entry,
      the segment continues with another episode (ops/seams.py).
    is_terminal: [B, T] bool, the episode terminated here (no bootstrap).
  """

  image: jax.Array
  motion: Motion | None
  action: jax.Array
  reward: jax.Array
  is_first: jax.Array
  is_last: jax.Array
  is_terminal: jax.Array


@flax.struct.dataclass
class RSSMState:
  """State of a recurrent state-space model with discrete or normal latents.

  Attributes:
    deter: [..., deter_size], the recurrent part.
    stoch: [..., groups, classes], one-hot samples with straight-through
      gradients.
    logits: [..., groups, classes] float32, of the distribution of `stoch`. For
      normal latents, which are one class wide: [..., groups, 2], mean and
      standard deviation.
  """

  deter: jax.Array
  stoch: jax.Array
  logits: jax.Array

  @property
  def feat(self) -> jax.Array:
    """Input of heads, [..., groups * classes + deter_size], stoch first."""
    stoch = self.stoch.reshape(*self.stoch.shape[:-2], -1)
    return jax.numpy.concatenate([stoch, self.deter], -1)


@flax.struct.dataclass
class Observation:
  """Observation of an acting agent, at one step of B environments.

  Attributes:
    image: [B, H, W, 3] uint8.
    motion: leaves [B, ...], one step of the streaming extractor; None for
      systems that see no motion.
    is_first: [B] bool.
  """

  image: jax.Array
  motion: Motion | None
  is_first: jax.Array


@flax.struct.dataclass
class PolicyCarry:
  """Memory of an agent between steps of B environments.

  Attributes:
    z: state of the latent dynamics model, None in systems with one model.
    s: state of the action-specific dynamics model.
    action: [B, A], the last action.
    cache: the DAE's keys and values of the current window (models/dae.py), None
      in systems that see no motion.
  """

  z: RSSMState | None
  s: RSSMState
  action: jax.Array
  cache: Any


@flax.struct.dataclass
class PretrainState:
  """Everything a step of Algorithm 1 changes.

  Attributes:
    step: [] int32, gradient steps taken so far.
    params: trainable parameters, by parameter set.
    collections: other variables: batch statistics, constants.
    opt_state: state of the optimizer.
  """

  step: jax.Array
  params: Any
  collections: Any
  opt_state: Any


@flax.struct.dataclass
class FinetuneState:
  """Everything an update of Algorithm 2 changes.

  Attributes:
    step: [] int32, updates taken so far.
    params: trainable parameters, actor and critic among them.
    collections: other variables: batch statistics, constants.
    model_opt: optimizer state of the world model's groups.
    behavior_opt: optimizer state of actor and critic.
    slow_critic: critic parameters of some updates ago.
    intrinsic: state of the intrinsic bonus (systems/intrinsic.py); None in
      systems without one.
  """

  step: jax.Array
  params: Any
  collections: Any
  model_opt: Any
  behavior_opt: Any
  slow_critic: Any
  intrinsic: Any
