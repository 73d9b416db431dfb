"""The calls through which the training loops know a system.

Every system of the paper answers them, each in its own file, so one loop serves
all: `drp`, `ipv` (APV is IPV without context), `prelar`, `dreamerv2`.
`dreamerv3` has one loss for everything, `joint_loss`, instead of three of them.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax

from drp_jax import types

Metrics = dict[str, jax.Array]

# Features [b, T, F], stopped, and ends of episodes [b, T] -> intrinsic bonus
# [b, T - n] of the first T - n steps, already weighted, and the bonus's next
# state.
BonusFn = Callable[[jax.Array, jax.Array], tuple[jax.Array, Any]]


@flax.struct.dataclass
class WorldModelOutput:
  """What a world-model loss leaves for policy learning and the next step.

  Attributes:
    collections: non-trainable variables after the step (batch statistics).
    s: posterior of the model that imagines, leaves [B, T, ...].
    bonus_state: of the intrinsic bonus; None in systems without one.
    metrics: scalars.
  """

  collections: Any
  s: types.RSSMState
  bonus_state: Any
  metrics: Metrics


class System(Protocol):
  """A world model, a policy that learns in it, and how both are trained.

  Attributes:
    sees_motion: whether it needs extraction. If not, `motion` is None in all
      batches and observations.
    pretrained: top keys of the parameters that pre-training teaches and
      fine-tuning loads; () where there is no pre-training.
    follows_motion: whether `open_loop` follows the later motion of a clip. Only
      systems that pre-train have it.
    bonus_size: width of the features that the intrinsic bonus looks at; 0 where
      there is none, and `bonus_fn` is never called.
  """

  sees_motion: bool
  pretrained: tuple[str, ...]
  follows_motion: bool
  bonus_size: int

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """Creates variables for pre-training or, from a ReplayBatch, fine-tuning.

    Args:
      key: typed key.
      batch: VideoBatch or ReplayBatch; only shapes matter.

    Returns:
      'params', whose top keys are the parameter sets of Algorithm 2, and other
      collections.
    """

  def pretrain_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, Metrics]]:
    """The loss of Algorithm 1.

    Args:
      params: trainable parameters.
      collections: the other variables.
      batch: leaves [b, T, ...].
      keys: [b] typed keys.

    Returns:
      The loss [], and (collections after the step, metrics).
    """

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: BonusFn,
  ) -> tuple[jax.Array, WorldModelOutput]:
    """The world model's loss of Algorithm 2.

    Args:
      params: trainable parameters of the world model.
      collections: the other variables.
      batch: leaves [b, T, ...].
      keys: [b] typed keys.
      bonus_fn: of features `bonus_size` wide.

    Returns:
      The loss [] and what policy learning and the next step need.
    """

  def start_states(self, output: WorldModelOutput) -> types.RSSMState:
    """Where imagination starts: leaves [N, ...], N = B T, stopped."""

  def behavior_loss(
    self,
    trained: dict[str, Any],
    slow_critic: Any,
    params: Any,
    collections: Any,
    start: types.RSSMState,
    is_terminal: jax.Array,
    keys: jax.Array,
  ) -> tuple[jax.Array, Metrics]:
    """Actor's and critic's losses (Eqs. 11, 12) in imagination.

    Args:
      trained: {'actor', 'critic'} parameters.
      slow_critic: critic parameters that bootstrap returns.
      params: of the world model, frozen here.
      collections: the other variables.
      start: from `start_states`, leaves [N, ...].
      is_terminal: [N] bool, whether they ended their episodes for good; read
        where continuation is predicted.
      keys: [b] typed keys; N / b states belong to each.

    Returns:
      The loss [] and metrics.
    """

  def policy_step(
    self,
    variables: Any,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """Sees one observation of B environments, chooses actions.

    Args:
      variables: params and collections.
      carry: from `initial_carry` or the step before; `obs.is_first` resets it.
      obs: leaves [B, ...].
      keys: [B] typed keys.
      explore: sample the action (True) or take the mode; latents are sampled
        either way (D17).

    Returns:
      The next carry and actions [B, A] in (-1, 1).
    """

  def initial_carry(self, batch: int, num_keypoints: int) -> types.PolicyCarry:
    """What to remember before the first step of `batch` environments."""

  def open_loop(
    self,
    variables: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
    context_steps: int,
    driver: types.VideoBatch | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Reconstructs clips, and predicts them from their first frames (E9).

    Only of systems that pre-train. DRP's predictions follow the clips' own
    later motion through a_agg (T6); all see the appearance of the last context
    frame only. Modes, running statistics.

    Args:
      variables: params and collections.
      batch: leaves [B, T, ...].
      keys: [B] typed keys, for the decoder's kept context tokens.
      context_steps: frames that are seen.
      driver: clips whose later motion the predictions follow in place of their
        own, shaped as `batch`. Systems without `follows_motion` ignore it.

    Returns:
      Reconstructions from the posterior, and predictions whose first
      `context_steps` frames are reconstructions; [B, T, H, W, 3] each, in
      [-0.5, 0.5].
    """
