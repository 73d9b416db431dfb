"""DreamerV2 in the setting of IPV's code: plain CNN, one model, no videos.

What its calls mean is said once, in `contract.System`.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from drp_jax import types
from drp_jax.models import heads, layers, one_dynamics, outputs, rssm
from drp_jax.ops import images, noise
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
  'image_encoder': 'model',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
}


class CNNEncoder(nn.Module):
  """Four convolutions 4x4 of stride 2: sides 64 -> 31 -> 14 -> 6 -> 2.

  Attributes:
    depth: channels of the first; each of the others has twice as many.
  """

  depth: int

  @nn.compact
  def __call__(self, image: jax.Array) -> jax.Array:
    """Encodes [N, 64, 64, 3] in [-0.5, 0.5] into [N, 32 depth]."""
    x = image
    for i in range(4):
      x = layers.Conv(
        self.depth * 2**i,
        (4, 4),
        strides=(2, 2),
        padding='VALID',
        name=f'conv{i}',
      )(x)
      x = nn.elu(x)
    return x.reshape(x.shape[0], -1)


class CNNDecoder(nn.Module):
  """Four transposed convolutions of stride 2: 1 -> 5 -> 13 -> 30 -> 64.

  Attributes:
    depth: as in the encoder.
  """

  depth: int

  @nn.compact
  def __call__(self, feat: jax.Array) -> jax.Array:
    """Decodes [..., F] into means [..., 64, 64, 3] in [-0.5, 0.5], float32."""
    x = layers.Dense(32 * self.depth, name='dense')(feat)
    x = x.reshape(-1, 1, 1, 32 * self.depth)
    widths = (4 * self.depth, 2 * self.depth, self.depth, 3)
    for i, (kernel, width) in enumerate(zip((5, 5, 6, 6), widths, strict=True)):
      x = layers.ConvTranspose(
        width,
        (kernel, kernel),
        strides=(2, 2),
        padding='VALID',
        name=f'conv{i}',
      )(x if i == 0 else nn.elu(x))
    return x.reshape(*feat.shape[:-1], *x.shape[1:]).astype(jnp.float32)


class SingleModel(one_dynamics.OneDynamics):
  """The networks. The one dynamics model takes the place of s elsewhere.

  Attributes:
    image_encoder: plain convolutions.
    image_decoder: plain convolutions.
    action_dynamics: s, which observes embeddings.
    reward: read in imagination.
    continuation: predicts the discount, read in imagination as its logit; None
      where episodes do not terminate.
    actor: the policy.
    critic: values.
    dtype: what the networks compute in.
  """

  image_encoder: CNNEncoder
  image_decoder: CNNDecoder
  action_dynamics: rssm.RSSM
  reward: heads.ScalarHead
  continuation: heads.ScalarHead | None
  actor: heads.PolicyHead
  critic: heads.ScalarHead
  dtype: jnp.dtype

  def finetune(
    self, batch: types.ReplayBatch, keys: jax.Array
  ) -> outputs.Action:
    """Filters segments and reads all heads.

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys, of the samples.
    """
    image = images.to_float(batch.image)
    embed = self.encode(image)
    s, prior = self.action_dynamics.observe(
      embed, batch.action, batch.is_first, self.gumbel(keys, embed)
    )
    return outputs.Action(
      image=image,
      s=s,
      s_prior=prior,
      s_decoded=self.image_decoder(s.feat),
      reward=self.reward(s.feat),
      continuation=None
      if self.continuation is None
      else self.continuation(s.feat),
    )


@dataclasses.dataclass(frozen=True)
class DreamerV2(world_model.LearnsInImagination, acting.ActsFromOneState):
  """One dynamics model, learned from scratch, without intrinsic bonus.

  Attributes:
    model: the dynamics model, decoder and heads.
    weights: of the losses.
    behavior: numbers of policy learning.
    axis_name: device axis of the training step, or None.
  """

  pretrained: ClassVar[tuple[str, ...]] = ()
  bonus_size: ClassVar[int] = 0

  model: SingleModel
  weights: world_model.LossWeights
  behavior: imagination.Settings
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
    bonus_fn: contract.BonusFn,
  ) -> tuple[jax.Array, contract.WorldModelOutput]:
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
    return loss, contract.WorldModelOutput(
      collections, out.s, None, metrics | {'loss/total': loss}
    )


def _build(
  config: ml_collections.ConfigDict, action_size: int, axis_name: str | None
) -> definition.Built:
  depth = config.image.depth
  model = SingleModel(
    image_encoder=CNNEncoder(depth),
    image_decoder=CNNDecoder(depth),
    action_dynamics=parts.dynamics(config, action_size, 32 * depth),
    dtype=parts.dtype(config),
    **parts.policy_heads(config, action_size),
  )
  system = DreamerV2(
    model=model, **definition.in_turn_settings(config, axis_name)
  )
  return definition.in_turn(config, system, action_size, _GROUPS)


DEFINITION = definition.Definition(_build)
