"""DRP: Deconstruct-Recompose pre-training and its fine-tuning (Algs. 1, 2).

What its calls mean is said once, in `contract.System`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections

from drp_jax import losses, types
from drp_jax.data import schema
from drp_jax.models import deconstruction, global_flow, stacked_model
from drp_jax.ops import noise
from drp_jax.systems import (
  contract,
  definition,
  imagination,
  parts,
  world_model,
)
from drp_jax.systems.drp import networks

# Parameter set -> optimizer group of fine-tuning (systems/optim.py).
_GROUPS = {  # [D3]
  'dae': 'slow',
  'mae_decoder': 'slow',
  'flow_encoder': 'slow',
  'latent_dynamics': 'slow',
  'image_encoder': 'encoder',
  'context_encoder': 'encoder',
  'image_decoder': 'model',
  'adapter': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
  'aux_reward': 'model',
}


@dataclasses.dataclass(frozen=True)
class DRP(world_model.LearnsInImagination):
  """Deconstructs motion into a_agg, and recomposes it in a stacked model.

  Attributes:
    deconstruction: from motion to a_agg; in the ablation of E4 of the whole
      flow at once, without a masked autoencoder.
    model: the dynamics models, decoder and heads.
    weights: of the losses.
    behavior: numbers of policy learning.
    window: W, flows in a tracking window.
    axis_name: device axis of the training step, or None.
  """

  sees_motion: ClassVar[bool] = True
  follows_motion: ClassVar[bool] = True

  deconstruction: deconstruction.Deconstruction | global_flow.GlobalFlow
  model: stacked_model.StackedModel
  weights: world_model.LossWeights
  behavior: imagination.Settings
  window: int
  axis_name: str | None = None

  @property
  def pretrained(self) -> tuple[str, ...]:
    """See `System`; Algorithm 2, line 1."""
    return (
      *self.deconstruction.parameter_sets,
      'image_encoder',
      'context_encoder',
      'image_decoder',
      'latent_dynamics',
    )

  @property
  def motion_encoder(self) -> str:
    """See `SeesMotion`."""
    return self.deconstruction.parameter_sets[0]

  @property
  def bonus_size(self) -> int:
    """z's features (D8)."""
    return self.model.latent_dynamics.feat_size

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """See `System.init`."""
    B = batch.image.shape[0]
    hide, decode = noise.split(noise.example_keys(key, 0, B), 2)
    made: Any = self.deconstruction.init_with_output(
      key, batch.motion, batch.is_first, hide
    )
    out, motion = made
    finetune = isinstance(batch, types.ReplayBatch)
    method = self.model.init_finetune if finetune else self.model.init_pretrain
    a_agg = out.tokens[:, :, 0]
    variables = self.model.init(key, batch, a_agg, decode, method=method)
    return {
      kind: {**motion.get(kind, {}), **variables.get(kind, {})}
      for kind in (*variables, *motion)
    }

  def pretrain_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, contract.Metrics]]:
    """L_MAE + L_dyn (Eqs. 5, 6; choice C1: joint)."""
    hide, latent_keys = world_model.pretrain_keys(keys)
    motion, updated = self._deconstruct(params, collections, batch, hide)
    a_agg = motion.tokens[:, :, 0]
    out, updated = self.model.apply(
      {'params': params, **updated},
      batch,
      a_agg,
      latent_keys,
      method=self.model.pretrain,
      mutable=list(collections),
    )
    loss, metrics = self._shared_losses(motion, out)
    return loss, (updated, dict(metrics, **{'loss/total': loss}))

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: contract.BonusFn,
  ) -> tuple[jax.Array, contract.WorldModelOutput]:
    """L_MAE + L_dyn + L_action (Eqs. 7-9; choices D2-D5: one sum)."""
    hide, latent_keys, action_keys = world_model.finetune_keys(keys)
    motion, updated = self._deconstruct(params, collections, batch, hide)
    a_agg = motion.tokens[:, :, 0]
    (latent, out), updated = self.model.apply(
      {'params': params, **updated},
      batch,
      a_agg,
      latent_keys,
      action_keys,
      decode_z=True,
      method=self.model.finetune,
      mutable=list(collections),
    )
    loss, metrics = self._shared_losses(motion, latent)
    bonus, bonus_state = bonus_fn(
      world_model.bonus_features(latent.z), batch.is_last
    )
    action_loss, more = world_model.action_loss(
      out,
      batch,
      bonus,
      self.weights,
      self.behavior.discount,
      self.axis_name,
    )
    loss += action_loss
    metrics |= more | {'loss/total': loss}
    return loss, contract.WorldModelOutput(updated, out.s, bonus_state, metrics)

  def policy_step(
    self,
    variables: Any,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """See `System.policy_step`; the DAE sees one frame (design: streaming)."""
    *state_keys, action_keys = noise.split(keys, 3)
    a_agg, cache = self.deconstruction.apply(
      variables,
      obs.motion,
      obs.is_first,
      carry.cache,
      method=self.deconstruction.step,
    )
    z, s, mean, std = self.model.apply(
      variables, carry, obs, a_agg, state_keys, method=self.model.act
    )
    action = imagination.choose_action(mean, std, action_keys, explore)
    return types.PolicyCarry(z=z, s=s, action=action, cache=cache), action

  def initial_carry(
    self, batch: int, num_keypoints: int | None
  ) -> types.PolicyCarry:
    """See `System.initial_carry`."""
    model = self.model
    assert num_keypoints is not None  # it sees motion
    return types.PolicyCarry(
      z=model.latent_dynamics.initial(batch, model.dtype),
      s=model.action_dynamics.initial(batch, model.dtype),
      action=jnp.zeros([batch, model.actor.action_size]),
      cache=self.deconstruction.initial_cache(
        batch, num_keypoints, self.window
      ),
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
    a_agg = self._aggregate(variables, batch)
    later = a_agg if driver is None else self._aggregate(variables, driver)
    return self.model.apply(
      variables,
      batch,
      a_agg,
      later,
      keys,
      context_steps,
      method=self.model.open_loop,
    )

  def encode_motion(
    self, variables: Any, motion: types.Motion, is_first: jax.Array
  ) -> jax.Array:
    """What the DAE makes of motion.

    Args:
      variables: params and collections, of either stage.
      motion: leaves [B, T, ...].
      is_first: [B, T] bool.

    Returns:
      [B, T, K+1, D]: in slot 0 a_agg, in slot k the local motion representation
      of keypoint k. With the whole flow at once (E4) there is slot 0 only.
    """
    return self.deconstruction.apply(
      variables, motion, is_first, method=self.deconstruction.encode
    )

  def mat_attention(
    self, variables: Any, motion: types.Motion, is_first: jax.Array
  ) -> jax.Array:
    """Where [MAT] looks within each frame (Eq. 14), mean over heads.

    Args:
      variables: params and collections, of either stage.
      motion: leaves [B, T, ...].
      is_first: [B, T] bool.

    Returns:
      [B, T, L, K+1] float32 over [MAT] itself and the keypoints; sums to one.

    Raises:
      ValueError: if there is no [MAT] (E1, E4).
    """
    _, found = self.deconstruction.apply(
      variables,
      motion,
      is_first,
      method=self.deconstruction.encode,
      mutable=['intermediates'],
    )
    blocks = found.get('intermediates', {}).get('dae', {})
    if not blocks:
      raise ValueError(
        'This model has no [MAT] (config.dae.intra=False, or'
        " config.motion='global_flow')."
      )
    weights = [
      blocks[f'blocks_{i}']['intra_attention'][0] for i in range(len(blocks))
    ]  # [B, T, heads, K+1, K+1] each
    return jnp.stack([w[..., 0, :].mean(2) for w in weights], 2)

  def reconstruct_motion(
    self, variables: Any, batch: types.VideoBatch, keys: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array] | None:
    """The masked pass alone: recon, patches [B, T, K, 2 P^2], hidden.

    None where nothing is masked (E4).
    """
    if 'mae_decoder' not in self.pretrained:
      return None
    out = self.deconstruction.apply(
      variables, batch.motion, batch.is_first, keys
    )
    return out.recon, out.patches, out.hidden

  def _aggregate(self, variables, batch):
    return self.deconstruction.apply(
      variables,
      batch.motion,
      batch.is_first,
      method=self.deconstruction.aggregate,
    )

  def _deconstruct(self, params, collections, batch, keys):
    """Sec. 4.2, slot 0 of whose tokens is a_agg, and the next collections.

    L_dyn's gradient flows back (C2).
    """
    return self.deconstruction.apply(
      {'params': params, **collections},
      batch.motion,
      batch.is_first,
      keys,
      mutable=list(collections),
    )

  def _shared_losses(self, motion, out) -> tuple[jax.Array, contract.Metrics]:
    w = self.weights
    latent, metrics = world_model.latent_loss(out, w, self.axis_name)
    loss = w.dyn * latent
    a_agg = motion.tokens[:, 1:, 0].astype(jnp.float32)
    metrics['a_agg/std'] = _spread(a_agg, self.axis_name)
    if motion.recon is not None:
      patches, hidden = motion.patches, motion.hidden
      mae, still = (
        losses.mae_loss(recon, patches, hidden, self.axis_name)
        for recon in (motion.recon, jnp.zeros_like(patches))
      )
      loss += w.mae * mae
      metrics |= {'loss/mae': mae, 'mae/zero_flow': still}
    return loss, metrics


def _spread(x: jax.Array, axis_name: str | None) -> jax.Array:
  """Standard deviation of [b, T, D] over all devices' b and T, mean over D."""
  moments = x.mean((0, 1)), jnp.square(x).mean((0, 1))
  if axis_name is not None:
    moments = jax.lax.pmean(moments, axis_name)
  mean, square = moments
  return jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0)).mean()


def _build(
  config: ml_collections.ConfigDict, action_size: int, axis_name: str | None
) -> definition.Built:
  system = DRP(
    deconstruction=networks.deconstruct(config, axis_name),
    model=parts.stacked(
      config,
      action_size,
      axis_name,
      drive=config.dae.width,
      adapter=networks.adapt(config),
      adapter_size=config.adapter.width,
      action_slot=action_size,
      has_context=True,
    ),
    window=schema.WINDOW,
    **definition.in_turn_settings(config, axis_name),
  )
  return definition.in_turn(config, system, action_size, _GROUPS)


DEFINITION = definition.Definition(
  _build, networks.RANGES, networks.CHOICES, networks.check
)
