"""PreLAR: pre-training with latent actions of whole frames (ECCV 2024).

What its calls mean is said once, in `contract.System`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections

from drp_jax import losses, types
from drp_jax.data import schema
from drp_jax.models import layers
from drp_jax.ops import distributions, noise
from drp_jax.runs import ranges
from drp_jax.systems import (
  acting,
  contract,
  definition,
  imagination,
  parts,
  world_model,
)
from drp_jax.systems.prelar import latent_actions, networks

# Parameter set -> optimizer group of fine-tuning (systems/optim.py).
_GROUPS = {  # [PreLAR]
  'latent_dynamics': 'encoder',
  'image_encoder': 'encoder',
  'image_decoder': 'model',
  'action_encoder': 'model',
  'reward': 'model',
  'continuation': 'model',
  'aux_reward': 'model',
}
_RANGES = {
  'prelar.latent_size': ranges.WIDTH,
  'prelar.rank_temperature': (1e-6, 1e6),  # nats
}

# The raw standard deviation of the prior, which goes through the same function
# as others: 2 sigmoid(1/2) = 1.245 in all, not 1  [PreLAR, T10].
_PRIOR_RAW_STD = 1.0


@dataclasses.dataclass(frozen=True)
class PreLAR(world_model.LearnsInImagination, acting.ActsFromOneState):
  """One dynamics model that keeps its latent actions while fine-tuning.

  Attributes:
    model: the networks.
    weights: of the losses.
    behavior: numbers of policy learning.
    rank: how consistency is scored: 'sign', which has no gradient, as released
      (T1), or 'logistic'.
    rank_temperature: of 'logistic', nats.
    axis_name: device axis of the training step, or None.
  """

  pretrained: ClassVar[tuple[str, ...]] = (
    'image_encoder',
    'image_decoder',
    'latent_dynamics',
  )
  follows_motion: ClassVar[bool] = True

  model: networks.LatentActionModel
  weights: world_model.LossWeights
  behavior: imagination.Settings
  rank: str
  rank_temperature: float
  axis_name: str | None = None

  @property
  def bonus_size(self) -> int:
    """The image embedding's, not z's features  [PreLAR]."""
    return self.model.latent_dynamics.embed_size

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """See `System.init`; also creates `inverse_dynamics`, for pre-training."""
    finetune = isinstance(batch, types.ReplayBatch)
    method = self.model.init_finetune if finetune else self.model.init_pretrain
    init_key, glorot_key = jax.random.split(key)
    variables = self.model.init(init_key, batch, method=method)
    return {**variables, 'params': _glorot(variables['params'], glorot_key)}

  def pretrain_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, contract.Metrics]]:
    """Image, KL of z, KL of the latent action, and consistency of both."""
    shuffle_keys, *model_keys = noise.split(keys, 3)
    (out, compared), updated = self.model.apply(
      {'params': params, **collections},
      batch,
      model_keys,
      self._shuffle(shuffle_keys),
      method=self.model.pretrain,
      mutable=list(collections),
    )
    w, latent = self.weights, compared.latent
    loss, metrics = world_model.latent_loss(out, w, self.axis_name)
    action_kl = distributions.normal_kl(
      latent.mean,
      latent.std,
      0.0,
      latent_actions.latent_std(jnp.float32(_PRIOR_RAW_STD)),
    ).mean()
    consistency = self._consistency(out.z_prior, compared)
    loss += w.latent_action * action_kl + w.consistency * consistency
    return loss, (
      updated,
      metrics
      | {
        'loss/latent_action': action_kl,
        'loss/consistency': consistency,
        'loss/total': loss,
      },
    )

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: contract.BonusFn,
  ) -> tuple[jax.Array, contract.WorldModelOutput]:
    """Image, rewards and KL, as IPV's."""
    (out, embed), updated = self.model.apply(
      {'params': params, **collections},
      batch,
      keys,
      method=self.model.finetune,
      mutable=list(collections),
    )
    seen = jax.lax.stop_gradient(embed).astype(jnp.float32)
    bonus, bonus_state = bonus_fn(seen, batch.is_last)
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

  def open_loop(
    self,
    variables: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
    context_steps: int,
    driver: types.VideoBatch | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """See `Pretrains.open_loop`; later frames' latent actions (T6) lead."""
    del keys  # there are no contexts
    return self.model.apply(
      variables, batch, driver, context_steps, method=self.model.open_loop
    )

  def _shuffle(self, keys):
    """A function from trees of [b, ...] to those of other sequences.

    One random order of the whole batch, whatever the number of devices.
    """
    score = noise.draw(keys, jax.random.uniform, ())
    order = jnp.argsort(_everywhere(score, self.axis_name))
    if self.axis_name is not None:
      first = jax.lax.axis_index(self.axis_name) * score.size
      order = jax.lax.dynamic_slice_in_dim(order, first, score.size)
    return lambda tree: jax.tree.map(
      lambda x: _everywhere(x, self.axis_name)[order], tree
    )

  def _consistency(self, z_prior, compared) -> jax.Array:
    """Whether actions that differ more lead to states that differ more."""
    state = distributions.categorical_kl(
      z_prior.logits[:, 1:], compared.z_prior_other.logits
    )
    latent, other = compared.latent, compared.latent_other
    action = distributions.normal_kl(
      latent.mean, latent.std, other.mean, other.std
    )
    return losses.consistency_loss(
      action.ravel(),
      _everywhere(action.ravel(), self.axis_name),
      *jax.lax.stop_gradient(
        (state.ravel(), _everywhere(state.ravel(), self.axis_name))
      ),
      temperature=self.rank_temperature if self.rank == 'logistic' else None,
    )


def _everywhere(x: jax.Array, axis_name: str | None) -> jax.Array:
  """[b, ...] of every device, joined: [B, ...]."""
  if axis_name is None:
    return x
  return jax.lax.all_gather(x, axis_name, tiled=True)


def _glorot(params: Any, key: jax.Array) -> Any:
  """Starts residual convolutions and the GRU as all else starts  [PreLAR].

  Kernels Glorot-uniform, biases at zero; IPV has PyTorch's defaults there.
  """
  leaves, structure = jax.tree.flatten_with_path(params)
  started = []
  for own, (path, leaf) in zip(
    jax.random.split(key, len(leaves)), leaves, strict=True
  ):
    module, name = (entry.key for entry in path[-2:])
    if module in ('conv1', 'conv2', 'conv_skip', 'dense'):
      zero = name == 'bias'
      leaf = jnp.zeros_like(leaf) if zero else layers.glorot(own, leaf.shape)
    started.append(leaf)
  return structure.unflatten(started)


def _build(
  config: ml_collections.ConfigDict, action_size: int, axis_name: str | None
) -> definition.Built:
  Z, hidden = config.prelar.latent_size, config.rssm.hidden
  embed_size = 4 * config.image.depth * (schema.IMAGE_SIZE // 16) ** 2
  model = networks.LatentActionModel(
    image_encoder=parts.tower(config, axis_name),
    image_decoder=parts.decoder(config, axis_name),
    inverse_dynamics=latent_actions.InverseDynamics(
      parts.transitions(config, 2 * Z, axis_name)
    ),
    latent_dynamics=parts.dynamics(config, Z, embed_size),
    action_encoder=latent_actions.ActionEncoder(hidden, Z),
    aux_reward=parts.scalar(config),
    dtype=parts.dtype(config),
    **parts.policy_heads(config, action_size),
  )
  system = PreLAR(
    model=model,
    rank=config.prelar.rank,
    rank_temperature=config.prelar.rank_temperature,
    **definition.in_turn_settings(config, axis_name),
  )
  return definition.in_turn(config, system, action_size, _GROUPS)


DEFINITION = definition.Definition(
  _build, _RANGES, {'prelar.rank': ('sign', 'logistic')}
)
