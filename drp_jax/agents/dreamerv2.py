"""DreamerV2 in the setting of IPV's code: plain CNN, one model, no videos.

What its calls mean is said once, in `system.System`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.agents import behavior, system, world_model
from drp_jax.models import single_model
from drp_jax.ops import noise


@dataclasses.dataclass(frozen=True)
class DreamerV2(world_model.LearnsInImagination):
  """One dynamics model, learnt from scratch, without intrinsic bonus.

  It does not pre-train, so it lacks `pretrain_loss` and `open_loop`.

  Attributes:
    model: the dynamics model, decoder and heads.
    weights: of the losses.
    behavior: numbers of policy learning.
    axis_name: device axis of the training step, or None.
  """

  sees_motion: ClassVar[bool] = False
  pretrained: ClassVar[tuple[str, ...]] = ()
  bonus_size: ClassVar[int] = 0

  model: single_model.SingleModel
  weights: world_model.LossWeights
  behavior: behavior.Settings
  axis_name: str | None = None

  def init(self, key: jax.Array, batch: types.ReplayBatch) -> dict[str, Any]:
    """See `System.init`."""
    keys = noise.example_keys(key, 0, batch.image.shape[0])
    return self.model.init(key, batch, keys, method=self.model.init_finetune)

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: system.BonusFn,
  ) -> tuple[jax.Array, system.WorldModelOutput]:
    """Image, reward of all steps and KL."""
    del bonus_fn  # there is none
    out = self.model.apply(
      {'params': params, **collections},
      batch,
      keys,
      method=self.model.finetune,
    )
    loss, metrics = world_model.action_loss(
      out,
      batch.reward,
      jnp.zeros_like(batch.reward),
      self.weights,
      self.axis_name,
    )
    return loss, system.WorldModelOutput(
      collections, out['s'], None, metrics | {'loss/total': loss}
    )

  def policy_step(
    self,
    variables: Any,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """See `System.policy_step`."""
    state_keys, action_keys = noise.split(keys, 2)
    s, mean, std = self.model.apply(
      variables, carry, obs, state_keys, method=self.model.act
    )
    action = behavior.choose_action(mean, std, action_keys, explore)
    return types.PolicyCarry(z=None, s=s, action=action, cache=None), action

  def initial_carry(self, batch: int, num_keypoints: int) -> types.PolicyCarry:
    """See `System.initial_carry`."""
    del num_keypoints  # sees none
    model = self.model
    return types.PolicyCarry(
      z=None,
      s=model.action_dynamics.initial(batch, model.dtype),
      action=jnp.zeros([batch, model.actor.action_size]),
      cache=None,
    )
