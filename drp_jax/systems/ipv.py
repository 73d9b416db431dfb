"""IPV: contextualized world models pre-trained without motion; and APV.

The latent dynamics model is driven by nothing. APV ("plain WM" in the code of
IPV) is IPV without contexts and without the representative reward head. What
the calls mean is said once, in `contract.System`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections

from drp_jax import types
from drp_jax.models import stacked_model
from drp_jax.ops import noise
from drp_jax.systems import (
  contract,
  definition,
  imagination,
  parts,
  world_model,
)

# Parameter set -> optimizer group of fine-tuning (systems/optim.py).
_GROUPS = {  # [IPV]
  'latent_dynamics': 'encoder',
  'image_encoder': 'encoder',
  'context_encoder': 'encoder',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
  'aux_reward': 'model',
}

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
  behavior: imagination.Settings
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
  ) -> tuple[jax.Array, tuple[Any, contract.Metrics]]:
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
    bonus_fn: contract.BonusFn,
  ) -> tuple[jax.Array, contract.WorldModelOutput]:
    """L_action alone: z learns only by what s makes of it  [IPV]."""
    _, latent_keys, action_keys = world_model.finetune_keys(keys)
    (latent, out), updated = self.model.apply(
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
      world_model.bonus_features(latent.z), batch.is_last
    )
    loss, metrics = world_model.action_loss(
      out,
      batch,
      bonus,
      self.weights,
      self.behavior.discount,
      self.axis_name,
    )
    return loss, contract.WorldModelOutput(
      updated, out.s, bonus_state, metrics | {'loss/total': loss}
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
    action = imagination.choose_action(mean, std, action_keys, explore)
    return types.PolicyCarry(z=z, s=s, action=action, cache=None), action

  def initial_carry(
    self, batch: int, num_keypoints: int | None
  ) -> types.PolicyCarry:
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
    """See `Pretrains.open_loop`."""
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


def _build(
  config: ml_collections.ConfigDict, action_size: int, axis_name: str | None
) -> definition.Built:
  slot = ACTION_SLOT
  if action_size > slot:
    raise ValueError(
      f'An action of {action_size} numbers does not fit the slot of {slot} of'
      f' config.agent={config.agent!r}.'
    )
  system = IPV(
    model=parts.stacked(
      config,
      action_size,
      axis_name,
      drive=slot,
      adapter=None,
      adapter_size=None,
      action_slot=slot,
      has_context=config.agent != 'apv',
    ),
    **definition.in_turn_settings(config, axis_name),
  )
  return definition.in_turn(config, system, action_size, _GROUPS)


DEFINITION = definition.Definition(_build)
