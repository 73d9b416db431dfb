"""Defines what the training loops and commands may ask of a system.

`System` is what all of them answer. `Pretrains`, `SeesMotion` and `Imagines`
add what some of them answer. A loop gets its system from `registry.build`, with
all else that depends on the kind of system (`definition.Built`), so it never
asks which one it runs.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

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
  """A world model and a policy: what every system answers.

  Attributes:
    sees_motion: whether it needs extraction and is a `SeesMotion`. If not,
      `motion` is None in all batches and observations.
    pretrained: top keys of the parameters that pre-training teaches and
      fine-tuning loads. () means that there is no pre-training; all others are
      `Pretrains`.
  """

  sees_motion: ClassVar[bool]
  pretrained: ClassVar[tuple[str, ...]]

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """Creates variables for pre-training or, from a ReplayBatch, fine-tuning.

    Args:
      key: typed key.
      batch: VideoBatch or ReplayBatch; only shapes matter.

    Returns:
      'params', whose top keys are the parameter sets of Algorithm 2, and other
      collections.
    """

  def policy_step(
    self,
    variables: Any,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """Sees one observation of B environments and chooses actions.

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

  def initial_carry(
    self, batch: int, num_keypoints: int | None
  ) -> types.PolicyCarry:
    """Returns what precedes the first step of `batch` environments."""


class Pretrains(System, Protocol):
  """A system that learns from videos without actions (Algorithm 1).

  Attributes:
    follows_motion: whether `open_loop` follows the later motion of a clip.
  """

  follows_motion: ClassVar[bool]

  def pretrain_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, Metrics]]:
    """Computes the loss of Algorithm 1.

    Args:
      params: trainable parameters.
      collections: the other variables.
      batch: leaves [b, T, ...].
      keys: [b] typed keys.

    Returns:
      The loss [], and (collections after the step, metrics).
    """

  def open_loop(
    self,
    variables: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
    context_steps: int,
    driver: types.VideoBatch | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Reconstructs clips, and predicts them from their first frames (E9).

    DRP's predictions follow the clips' own later motion through a_agg (T6); all
    see the appearance of the last context frame only. Modes, running
    statistics.

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


class SeesMotion(Pretrains, Protocol):
  """A system that encodes local motion.

  Attributes:
    motion_encoder: parameter set that reads motion. The scale of flow, in the
      collection `constants`, belongs to it.
  """

  motion_encoder: str

  def encode_motion(
    self, variables: Any, motion: types.Motion, is_first: jax.Array
  ) -> jax.Array:
    """Encodes motion, leaves [B, T, ...], into tokens [B, T, 1 + n, D].

    Slot 0 is a_agg; n is K, or 0 where the whole flow is seen at once (E4).
    """

  def mat_attention(
    self, variables: Any, motion: types.Motion, is_first: jax.Array
  ) -> jax.Array:
    """Computes where [MAT] looks within each frame, [B, T, L, K+1].

    Raises:
      ValueError: if there is no [MAT] (E1, E4).
    """

  def reconstruct_motion(
    self, variables: Any, batch: types.VideoBatch, keys: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array] | None:
    """Runs the masked pass: recon, patches [B, T, K, 2 P^2], hidden [B, T, K].

    Returns None where nothing is masked (E4).
    """


class Imagines(System, Protocol):
  """A system whose policy learns after its world model, in imagination.

  Its learner is `learner.InTurn`. DreamerV3 has one loss for everything and a
  learner of its own.

  Attributes:
    bonus_size: width of the features that the intrinsic bonus looks at; 0 where
      there is none, and `bonus_fn` is never called.
  """

  bonus_size: int

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: BonusFn,
  ) -> tuple[jax.Array, WorldModelOutput]:
    """Computes the world model's loss of Algorithm 2.

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
    """Returns where imagination starts: leaves [N, ...], N = B T, stopped."""

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
    """Computes the actor's and the critic's losses (Eqs. 11, 12).

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
