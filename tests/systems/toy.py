"""A system that CONTRIBUTING.md shows: what a new baseline has to bring.

It pre-trains an autoencoder of single frames, then learns like DreamerV2 from
embeddings of the pre-trained encoder. Nothing of it is meant to be good.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from drp_jax import losses, types
from drp_jax.models import heads, one_dynamics, outputs, rssm
from drp_jax.ops import images, noise
from drp_jax.runs import ranges
from drp_jax.systems import (
  acting,
  contract,
  definition,
  imagination,
  parts,
  world_model,
)

# Parameter set -> optimizer group of fine-tuning (systems/optim.py).
_GROUPS = {
  'image_encoder': 'encoder',
  'frame_decoder': 'frozen',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
}


class ToyModel(one_dynamics.OneDynamics):
  """The networks, one submodule per parameter set."""

  image_encoder: nn.Dense
  frame_decoder: nn.Dense
  image_decoder: nn.Dense
  action_dynamics: rssm.RSSM
  reward: heads.ScalarHead
  continuation: heads.ScalarHead | None
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  dtype: jnp.dtype

  def encode(self, image: jax.Array) -> jax.Array:
    """Encodes [..., 64, 64, 3] into embeddings [..., width]."""
    return self.image_encoder(image.reshape(*image.shape[:-3], -1))

  def autoencode(self, image: jax.Array) -> jax.Array:
    """Returns what is left of images [..., 64, 64, 3]."""
    return self.frame_decoder(self.encode(image)).reshape(image.shape)

  def finetune(
    self, batch: types.ReplayBatch, keys: jax.Array
  ) -> outputs.Action:
    """Filters segments and reads all heads."""
    image = images.to_float(batch.image)
    embed = jax.lax.stop_gradient(self.encode(image))
    s, prior = self.action_dynamics.observe(
      embed, batch.action, batch.is_first, self.gumbel(keys, embed)
    )
    return outputs.Action(
      image=image,
      s=s,
      s_prior=prior,
      s_decoded=self.image_decoder(s.feat).reshape(image.shape),
      reward=self.reward(s.feat),
      continuation=self.continuation and self.continuation(s.feat),
    )


@dataclasses.dataclass(frozen=True)
class Toy(world_model.LearnsInImagination, acting.ActsFromOneState):
  """Answers `contract.Pretrains` and `contract.Imagines`."""

  pretrained: ClassVar[tuple[str, ...]] = ('image_encoder', 'frame_decoder')
  follows_motion: ClassVar[bool] = False
  bonus_size: ClassVar[int] = 0

  model: ToyModel
  weights: world_model.LossWeights
  behavior: imagination.Settings
  axis_name: str | None = None

  def init(self, key: jax.Array, batch: Any) -> dict[str, Any]:
    """See `System.init`."""
    keys = noise.example_keys(key, 0, batch.image.shape[0])
    model, image = self.model, images.to_float(batch.image)
    frames = model.init(key, image, method=model.autoencode)
    if not isinstance(batch, types.ReplayBatch):
      return frames
    other = model.init(key, batch, keys, method=model.init_finetune)
    return {'params': {**other['params'], **frames['params']}}

  def pretrain_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
  ) -> tuple[jax.Array, tuple[Any, contract.Metrics]]:
    """Computes the squared error of frames."""
    del keys
    decoded = self._autoencode({'params': params}, batch)
    loss = losses.image_loss(decoded, images.to_float(batch.image))
    return loss, (collections, {'loss/total': loss})

  def open_loop(
    self,
    variables: Any,
    batch: types.VideoBatch,
    keys: jax.Array,
    context_steps: int,
    driver: types.VideoBatch | None = None,
  ) -> tuple[jax.Array, jax.Array]:
    """Predicts that nothing changes; see `Pretrains.open_loop`."""
    del keys, driver
    recon = self._autoencode(variables, batch)
    time = jnp.minimum(jnp.arange(recon.shape[1]), context_steps - 1)
    return recon, recon[:, time]

  def world_model_loss(
    self,
    params: Any,
    collections: Any,
    batch: types.ReplayBatch,
    keys: jax.Array,
    bonus_fn: contract.BonusFn,
  ) -> tuple[jax.Array, contract.WorldModelOutput]:
    """Computes image, reward and KL terms, as DreamerV2's."""
    del bonus_fn  # there is none
    out = self.model.apply(
      {'params': params}, batch, keys, method=self.model.finetune
    )
    loss, metrics = world_model.action_loss(
      out,
      batch,
      jnp.zeros_like(batch.reward),
      self.weights,
      self.behavior.discount,
      self.axis_name,
    )
    metrics['loss/total'] = loss
    return loss, contract.WorldModelOutput(collections, out.s, None, metrics)

  def _autoencode(self, variables, batch):
    return self.model.apply(
      variables, images.to_float(batch.image), method=self.model.autoencode
    )


def _build(
  config: ml_collections.ConfigDict, action_size: int, axis_name: str | None
) -> definition.Built:
  width, pixels = config.toy.width, 64 * 64 * 3
  model = ToyModel(
    image_encoder=nn.Dense(width),
    frame_decoder=nn.Dense(pixels),
    image_decoder=nn.Dense(pixels),
    action_dynamics=parts.dynamics(config, action_size, width),
    dtype=parts.dtype(config),
    **parts.policy_heads(config, action_size),
  )
  system = Toy(model=model, **definition.in_turn_settings(config, axis_name))
  return definition.in_turn(config, system, action_size, _GROUPS)


DEFINITION = definition.Definition(_build, {'toy.width': ranges.WIDTH})
