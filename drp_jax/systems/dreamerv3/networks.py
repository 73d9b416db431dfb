"""The networks of DreamerV3, and their sizes."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.models import one_dynamics
from drp_jax.ops import images
from drp_jax.systems.dreamerv3 import cnn, heads, rssm


@dataclasses.dataclass(frozen=True)
class Size:
  """Sizes: those that official presets change, and two that none changes.

  Attributes:
    deter: width of the recurrent state.
    hidden: width of the dynamics' dense layers.
    classes: of each categorical.
    depth: a half of the first convolution's width.
    width: of heads.
    groups: categoricals.
    blocks: of the recurrent state.
  """

  deter: int
  hidden: int
  classes: int
  depth: int
  width: int
  groups: int = 32
  blocks: int = 8


SIZES = {
  'debug': Size(16, 8, 4, 2, 8, groups=4),  # of the tests  [ours]
  'size1m': Size(512, 64, 4, 4, 64),
  'size12m': Size(2048, 256, 16, 16, 256),
  'size25m': Size(3072, 384, 24, 24, 384),
  'size50m': Size(4096, 512, 32, 32, 512),
  'size100m': Size(6144, 768, 48, 48, 768),
  'size200m': Size(8192, 1024, 64, 64, 1024),
  'size400m': Size(12288, 1536, 96, 96, 1536),
}


@flax.struct.dataclass
class Output:
  """A pass over segments.

  Attributes:
    s: posterior, leaves [B, T, ...].
    s_prior: prior, leaves [B, T, ...].
    recon: [B, T, H, W, 3] in (0, 1).
    reward: [B, T, bins] logits.
    cont: [B, T] logits.
  """

  s: types.RSSMState
  s_prior: types.RSSMState
  recon: jax.Array
  reward: jax.Array
  cont: jax.Array


class DreamerV3Model(one_dynamics.OneDynamics):
  """The networks. The one dynamics model takes the place of s elsewhere.

  Attributes:
    image_encoder: convolutions.
    image_decoder: convolutions.
    action_dynamics: s, which observes embeddings.
    reward: two-hot logits.
    cont: logits of going on.
    actor: the policy.
    critic: two-hot logits of values.
    dtype: what the networks compute in.
  """

  image_encoder: cnn.CNNEncoder
  image_decoder: cnn.CNNDecoder
  action_dynamics: rssm.RSSM
  reward: heads.TwoHotHead
  cont: heads.ContinueHead
  actor: heads.PolicyHead
  critic: heads.TwoHotHead
  dtype: jnp.dtype

  def finetune(self, batch: types.ReplayBatch, keys: jax.Array) -> Output:
    """Filters segments and reads all heads of the world model.

    Args:
      batch: leaves [B, T, ...].
      keys: [B] typed keys, of the samples.
    """
    embed = self.encode(images.to_float(batch.image))
    s, prior = self.action_dynamics.observe(
      embed, batch.action, batch.is_first, self.gumbel(keys, embed)
    )
    return Output(
      s=s,
      s_prior=prior,
      recon=self.image_decoder(s.deter, s.stoch),
      reward=self.reward(s.feat),
      cont=self.cont(s.feat),
    )


def make(size_name: str, action_size: int, dtype: jnp.dtype) -> DreamerV3Model:
  """Makes the networks.

  Args:
    size_name: one of SIZES.
    action_size: A.
    dtype: what the networks compute in.
  """
  size = SIZES[size_name]
  return DreamerV3Model(
    image_encoder=cnn.CNNEncoder(size.depth),
    image_decoder=cnn.CNNDecoder(size.depth, size.width, size.blocks),
    action_dynamics=rssm.RSSM(
      deter_size=size.deter,
      hidden=size.hidden,
      groups=size.groups,
      classes=size.classes,
      blocks=size.blocks,
    ),
    reward=heads.TwoHotHead(size.width, depth=1),
    cont=heads.ContinueHead(size.width, depth=1),
    actor=heads.PolicyHead(action_size, size.width, depth=3),
    critic=heads.TwoHotHead(size.width, depth=3),
    dtype=dtype,
  )
