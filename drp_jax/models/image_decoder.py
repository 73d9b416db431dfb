"""Image decoder with cross-attention to a context frame  [IPV, ctx_resnet]."""

import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from drp_jax.models import layers
from drp_jax.ops import masking, noise

_NUM_HEADS = 4
_DROPOUT = 0.1


@flax.struct.dataclass
class Context:
  """What the decoder may look up: maps of one frame of every sequence.

  Attributes:
    coarse: [B, H/8, W/8, C].
    fine: [B, H/4, W/4, C'].
  """

  coarse: jax.Array
  fine: jax.Array


class CrossAttention(nn.Module):
  """Adds what a random subset of context tokens says  [IPV].

  Attributes:
    mask_ratio: share of context tokens left out, drawn anew for every frame, in
      training and evaluation alike.
    axis_name: device axis for batch norm.
  """

  mask_ratio: float
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self,
      x: jax.Array,
      context: jax.Array,
      keys: jax.Array,
      train: bool,
  ) -> jax.Array:
    """Attends from decoder maps to context maps.

    Args:
      x: [B * n, h, w, C], maps of n frames of every sequence.
      context: [B, h, w, C].
      keys: [B] typed keys, for the kept tokens and dropout.
      train: dropout and batch statistics.

    Returns:
      [B * n, h, w, C].
    """
    N, h, w, C = x.shape
    B, rows = context.shape[0], N // context.shape[0]
    keep_keys, weight_keys, out_keys = noise.split(keys, 3)
    if not train:
      weight_keys = out_keys = None

    def positions(name):
      return self.param(name, nn.initializers.zeros_init(), (h * w, C))[None]

    def project(x, name):
      x = nn.Dense(C, kernel_init=layers.glorot, name=name)(x)
      return x.reshape(*x.shape[:-1], _NUM_HEADS, C // _NUM_HEADS)

    memory = context.reshape(B, h * w, C) + positions('context_positions')
    # Project once per sequence, then gather per frame: the same numbers as the
    # other way round, at 1 / n of the cost.
    key, value = project(memory, 'key'), project(memory, 'value')
    num_keep = int((1.0 - self.mask_ratio) * h * w)
    kept = masking.keep_tokens(keep_keys, rows, h * w, num_keep)
    kept = kept.reshape(B, rows * num_keep)[..., None, None]
    key, value = (
        jnp.take_along_axis(x, kept, 1).reshape(N, num_keep, _NUM_HEADS, -1)
        for x in (key, value)
    )
    tokens = x.reshape(N, h * w, C) + positions('query_positions')
    query = project(tokens, 'query') / math.sqrt(C // _NUM_HEADS)
    scores = jnp.einsum('nqhd,nkhd->nhqk', query, key)
    weights = noise.dropout(jax.nn.softmax(scores, -1), weight_keys, _DROPOUT)
    out = jnp.einsum('nhqk,nkhd->nqhd', weights, value).reshape(N, h * w, C)
    out = nn.Dense(C, kernel_init=layers.glorot, name='out')(out)
    out = noise.dropout(out, out_keys, _DROPOUT).reshape(x.shape)
    out = layers.BatchNorm(self.axis_name, name='norm')(out, train)
    return nn.relu(x + out)


class ImageDecoder(nn.Module):
  """Decodes features into image means, with the help of a context frame.

  Attributes:
    depth: as in the encoder.
    num_layers: residual layers in each stage.
    image_size: side of the image, a multiple of 16.
    mask_ratio: share of context tokens left out.
    axis_name: device axis for batch norm.
  """

  depth: int
  num_layers: int
  image_size: int
  mask_ratio: float
  axis_name: str | None = None

  @nn.compact
  def __call__(
      self, feat: jax.Array, context: Context, keys: jax.Array, train: bool
  ) -> jax.Array:
    """Decodes every step of every sequence.

    Args:
      feat: [B, T, F].
      context: maps of one frame of every sequence.
      keys: [B] typed keys.
      train: dropout and batch statistics.

    Returns:
      [B, T, image_size, image_size, 3], the mean in [-0.5, 0.5].
    """
    B, T = feat.shape[:2]
    side, C = self.image_size // 16, 4 * self.depth
    stage_keys = noise.split(keys, 2)
    x = nn.Dense(side * side * C, kernel_init=layers.glorot, name='dense')(feat)
    x = x.reshape(B * T, side, side, C)
    for stage, memory in enumerate((context.coarse, context.fine, None)):
      x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)  # nearest neighbour
      for i in range(self.num_layers):
        last = i == self.num_layers - 1
        features = x.shape[-1] // 2 if last else x.shape[-1]
        mixed = x
        if i == 0 and memory is not None:
          mixed = CrossAttention(
              self.mask_ratio, self.axis_name, name=f'context{stage}'
          )(x, memory, stage_keys[stage], train)
        x = layers.Residual(
            features, self.axis_name, name=f'stage{stage}_layer{i}'
        )(mixed, train, skip=x)
    x = nn.ConvTranspose(
        3,
        (3, 3),
        strides=(2, 2),
        padding=((1, 2), (1, 2)),
        kernel_init=layers.glorot,
        name='conv_out',
    )(x)
    return x.reshape(B, T, *x.shape[1:])
