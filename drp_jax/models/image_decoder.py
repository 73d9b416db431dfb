"""Image decoder with cross-attention to a context frame  [IPV, ctx_resnet]."""

import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from drp_jax.models import layers
from drp_jax.ops import convolution, masking, noise

_DROPOUT = 0.1


@flax.struct.dataclass
class Context:
  """Maps of one frame of each sequence, to which the decoder attends.

  Attributes:
    coarse: [B, H/8, W/8, C].
    fine: [B, H/4, W/4, C'].
  """

  coarse: jax.Array
  fine: jax.Array


def place_features(rows: int, columns: int, width: int) -> jax.Array:
  """Computes sines and cosines of the places in a grid (N44).

  The product of two places' features falls with their distance.

  Args:
    rows: h.
    columns: w.
    width: C, a multiple of 4.

  Returns:
    [h * w, C] float32, each row of norm sqrt(2 C). Wave lengths run from two
    grids down to 4 cells.
  """
  waves = jnp.geomspace(2.0 * max(rows, columns), 4.0, width // 4)
  place = jnp.stack(jnp.divmod(jnp.arange(rows * columns), columns), -1)
  angle = 2.0 * jnp.pi * place[:, None] / waves[None, :, None]
  features = jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)
  return 2.0 * features.reshape(rows * columns, width)


class CrossAttention(nn.Module):
  """Cross-attention to a random subset of context tokens  [IPV].

  Attributes:
    num_heads: attention heads, a divisor of C.
    mask_ratio: share of context tokens left out, drawn anew for every frame, in
      training and evaluation alike.
    local_start: whether tokens attend to their own place before training;
      without it, tables of positions start at zero, and tokens attend to
      everything alike (N44).
    axis_name: device axis for batch norm.
  """

  num_heads: int
  mask_ratio: float
  local_start: bool = False
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
    (N, h, w, C), H = x.shape, self.num_heads
    B, rows = context.shape[0], N // context.shape[0]
    keep_keys, weight_keys, out_keys = noise.split(keys, 3)
    if not train:
      weight_keys = out_keys = None

    def places(_):
      return (
        place_features(h, w, C) if self.local_start else jnp.zeros([h * w, C])
      )

    def positions(name):
      table = self.param(name, places)
      return table[None].astype(x.dtype)

    def key_kernel(*_):
      return self.variables['params']['key']['kernel']

    def project(x, name):
      init = layers.shared_glorot(C, 3 * C)  # of the packed matrix  [IPV]
      if self.local_start and name == 'query':
        init = key_kernel
      x = layers.Dense(C, kernel_init=init, name=name)(x)
      x = x.reshape(*x.shape[:-1], H, C // H)
      return jnp.swapaxes(x, -3, -2)  # [..., heads, tokens, C / heads]

    memory = context.reshape(B, h * w, C) + positions('context_positions')
    # Project once per sequence, then gather per frame: the same numbers as the
    # other way round, at 1 / n of the cost.
    key, value = project(memory, 'key'), project(memory, 'value')
    num_keep = int((1.0 - self.mask_ratio) * h * w)
    kept = masking.keep_tokens(keep_keys, rows, h * w, num_keep)
    kept = kept.reshape(B, rows, num_keep)

    def gather(x):
      per_frame = masking.take_tokens(x, kept)
      per_frame = jnp.swapaxes(per_frame, 1, 2)  # [B, rows, heads, kept, c]
      return per_frame.reshape(N, H, num_keep, -1)

    tokens = x.reshape(N, h * w, C) + positions('query_positions')
    query = project(tokens, 'query') / math.sqrt(C // H)
    scores = query @ jnp.swapaxes(gather(key), -1, -2)
    scores = scores.astype(jnp.float32)
    # Softmax with dropout. Both divisions wait until the sum over tokens, which
    # is smaller.
    peak = jax.lax.stop_gradient(scores.max(-1, keepdims=True))
    weights = jnp.exp(scores - peak)
    total = weights.sum(-1, keepdims=True)
    total *= noise.kept_share(weight_keys, _DROPOUT)
    weights = noise.drop(weights, weight_keys, _DROPOUT)
    out = (weights.astype(x.dtype) @ gather(value)) / total.astype(x.dtype)
    out = jnp.swapaxes(out, 1, 2).reshape(N, h * w, C)
    init = layers.torch_default_init(C)
    out = layers.Dense(C, kernel_init=init, name='out')(out)
    out = noise.dropout(out, out_keys, _DROPOUT).reshape(x.shape)
    out = layers.BatchNorm(self.axis_name, name='norm')(out, train)
    return nn.relu(x + out)


# Computed once more in the backward pass instead of kept for it.
RecomputedCrossAttention = nn.remat(CrossAttention, static_argnums=(4,))


class UpConv(nn.Module):
  """Transposed 3x3 convolution of stride 2 (PyTorch: padding 1, output 1).

  Computed as a 2x2 convolution for each of the four places a pixel of the
  larger image can have in its 2x2 cell: the same sums without the zeros.

  Attributes:
    features: output channels.
  """

  features: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Upsamples [N, h, w, C] to [N, 2h, 2w, features]."""
    shape = (3, 3, x.shape[-1], self.features)
    kernel = self.param('kernel', layers.glorot, shape)
    bias = self.param('bias', nn.initializers.zeros_init(), (self.features,))
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    # Pixel 2i takes tap 1 of pixel i, pixel 2i + 1 taps 0 of i and 2 of i + 1.
    even = jnp.stack([kernel[1], jnp.zeros_like(kernel[1])])
    rows = jnp.stack([even, kernel[::2]])  # [row in cell, row tap, 3, C, F]
    even = jnp.stack([rows[:, :, 1], jnp.zeros_like(rows[:, :, 1])], 2)
    cells = jnp.stack([even, rows[:, :, ::2]], 1)  # [row, column, 2, 2, C, F]
    taps = jnp.moveaxis(cells, (0, 1), (3, 4))
    return (
      convolution.convolve_to_cells(x, taps, (0, 1)) + bias[None, None, None]
    )


class ImageDecoder(nn.Module):
  """Decodes features into image means, with the help of a context frame.

  Without a context it has no cross-attention: the plain decoder of APV.

  Attributes:
    depth: as in the encoder.
    num_layers: residual layers in each stage.
    num_heads: attention heads of the cross-attention.
    image_size: side of the image, a multiple of 16.
    mask_ratio: share of context tokens left out.
    local_start: whether tokens attend to their own place before training.
    axis_name: device axis for batch norm.
    remat: whether layers are computed again in the backward pass.
  """

  depth: int
  num_layers: int
  num_heads: int
  image_size: int
  mask_ratio: float
  local_start: bool = False
  axis_name: str | None = None
  remat: bool = False

  @nn.compact
  def __call__(
    self,
    feat: jax.Array,
    context: Context | None,
    keys: jax.Array | None,
    train: bool,
  ) -> jax.Array:
    """Decodes each step of each sequence.

    Args:
      feat: [B, T, F].
      context: maps of one frame of every sequence, or None.
      keys: [B] typed keys; not used without a context.
      train: dropout and batch statistics.

    Returns:
      [B, T, image_size, image_size, 3] float32, the mean in [-0.5, 0.5].
    """
    residual, attend = layers.Residual, CrossAttention
    if self.remat:
      residual, attend = layers.RecomputedResidual, RecomputedCrossAttention
    B, T = feat.shape[:2]
    side, C = self.image_size // 16, 4 * self.depth
    memories, stage_keys = (None, None, None), ()
    if context is not None:
      assert keys is not None
      memories = context.coarse, context.fine, None
      stage_keys = noise.split(keys, 2)
    x = layers.Dense(side * side * C, name='dense')(feat)
    x = x.reshape(B * T, side, side, C)
    for stage, memory in enumerate(memories):
      for i in range(self.num_layers):
        last = i == self.num_layers - 1
        features = x.shape[-1] // 2 if last else x.shape[-1]
        mixed = x
        if i == 0 and memory is not None:
          mixed = attend(
            self.num_heads,
            self.mask_ratio,
            self.local_start,
            self.axis_name,
            name=f'context{stage}',
          )(convolution.double(x), memory, stage_keys[stage], train)
        x = residual(
          features, self.axis_name, i == 0, name=f'stage{stage}_layer{i}'
        )(mixed, train, x)
    x = UpConv(3, name='conv_out')(x)
    return x.reshape(B, T, *x.shape[1:]).astype(jnp.float32)
