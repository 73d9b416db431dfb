"""IPV: contextualized world models pre-trained without motion; and APV.

The latent dynamics model is driven by nothing. APV ("plain WM" in the code of
IPV) is IPV without contexts and without the representative reward head. What
the calls mean is said once, in `system.System`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.agents import behavior, system, world_model
from drp_jax.models import stacked_model
from drp_jax.ops import noise

# Width of the slot for actions, whatever the robot  [IPV].
ACTION_SLOT = 50


@dataclasses.dataclass(frozen=True)
class IPV(world_model.LearnsInImagination):
  """A stacked model whose lower part knows no actions.

  Attributes:
    model: the dynamics models, decoder and heads.
    weights: of the losses.
    behavior: numbers of policy learning.
    axis_name: device axis of the training step, or None.
  """

  sees_motion: ClassVar[bool] = False
  follows_motion: ClassVar[bool] = False

  model: stacked_model.StackedModel
  weights: world_model.LossWeights
  behavior: behavior.Settings
  axis_name: str | None = None

  @property
  def pretrained(self) -> tuple[str, ...]:
    """See `System`."""
    names = ('image_encoder', 'image_decoder', 'latent_dynamics')
    has_context = self.model.context_encoder is not None
    return (*names, 'context_encoder') if has_context else names

  @property
  def bonus_size(self) -> int:
    """z's features."""
    return self.model.latent_dynamics.feat_size

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """See `System.init`."""
    keys = noise.example_keys(key, 0, batch.image.shape[0])
    finetune = isinstance(batch, types.ReplayBatch)
    method = self.model.init_finetune if finetune else self.model.init_pretrain
    no_action = _no_action(batch.is_first)
    return self.model.init(key, batch, no_action, keys, method=method)

  def pretrain_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, system.Metrics]]:
    """Image and KL of z."""
    _, latent_keys = world_model.pretrain_keys(keys)
    out, updated = self.model.apply(
      {'params': params, **collections},
      batch,
      _no_action(batch.is_first),
      latent_keys,
      method=self.model.pretrain,
      mutable=list(collections),
    )
    loss, metrics = world_model.latent_loss(out, self.weights, self.axis_name)
    return loss, (updated, dict(metrics, **{'loss/total': loss}))

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: system.BonusFn,
  ) -> tuple[jax.Array, system.WorldModelOutput]:
    """L_action alone: z learns only by what s makes of it  [IPV]."""
    _, latent_keys, action_keys = world_model.finetune_keys(keys)
    out, updated = self.model.apply(
      {'params': params, **collections},
      batch,
      _no_action(batch.is_first),
      latent_keys,
      action_keys,
      decode_z=False,
      method=self.model.finetune,
      mutable=list(collections),
    )
    bonus, bonus_state = bonus_fn(
      world_model.bonus_features(out['z']), batch.is_last
    )
    loss, metrics = world_model.action_loss(
      out,
      batch,
      bonus,
      self.weights,
      self.behavior.discount,
      self.axis_name,
    )
    return loss, system.WorldModelOutput(
      updated, out['s'], bonus_state, metrics | {'loss/total': loss}
    )

  def policy_step(
    self,
    variables: Any,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """See `System.policy_step`; contexts are not encoded while acting."""
    *state_keys, action_keys = noise.split(keys, 3)
    z, s, mean, std = self.model.apply(
      variables,
      carry,
      obs,
      _no_action(obs.is_first),
      state_keys,
      method=self.model.act,
    )
    action = behavior.choose_action(mean, std, action_keys, explore)
    return types.PolicyCarry(z=z, s=s, action=action, cache=None), action

  def initial_carry(self, batch: int, num_keypoints: int) -> types.PolicyCarry:
    """See `System.initial_carry`."""
    del num_keypoints  # sees none
    model = self.model
    return types.PolicyCarry(
      z=model.latent_dynamics.initial(batch, model.dtype),
      s=model.action_dynamics.initial(batch, model.dtype),
      action=jnp.zeros([batch, model.actor.action_size]),
      cache=None,
    )

  def open_loop(
    self,
    variables: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
    context_steps: int,
    driver: types.VideoBatch | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """See `System.open_loop`."""
    del driver
    no_action = _no_action(batch.is_first)
    return self.model.apply(
      variables,
      batch,
      no_action,
      no_action,
      keys,
      context_steps,
      method=self.model.open_loop,
    )

  def encode_video(self, variables: Any, batch: types.VideoBatch) -> jax.Array:
    """Returns the features of z at every frame, [B, T, F].

    Args:
      variables: params and collections, of either stage.
      batch: leaves [B, T, ...].
    """
    return self.model.apply(
      variables,
      batch,
      _no_action(batch.is_first),
      method=self.model.latents,
    )


def _no_action(is_first: jax.Array) -> jax.Array:
  """What drives z: zeros [..., ACTION_SLOT] for `is_first` [...]."""
  return jnp.zeros([*is_first.shape, ACTION_SLOT])
