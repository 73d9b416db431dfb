"""DreamerV2 in the setting of IPV's code: plain CNN, one model, no videos.

What its calls mean is said once, in `system.System`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.agents import acting, behavior, system, world_model
from drp_jax.models import single_model
from drp_jax.ops import noise


@dataclasses.dataclass(frozen=True)
class DreamerV2(world_model.LearnsInImagination, acting.ActsFromOneState):
  """One dynamics model, learned from scratch, without intrinsic bonus.

  It does not pre-train, so it lacks `pretrain_loss` and `open_loop`.

  Attributes:
    model: the dynamics model, decoder and heads.
    weights: of the losses.
    behavior: numbers of policy learning.
    axis_name: device axis of the training step, or None.
  """

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
      batch,
      jnp.zeros_like(batch.reward),
      self.weights,
      self.behavior.discount,
      self.axis_name,
    )
    return loss, system.WorldModelOutput(
      collections, out['s'], None, metrics | {'loss/total': loss}
    )
