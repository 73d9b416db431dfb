"""Dual-Attention Encoder of atomic actions (Secs. 4.2.2 and 9)."""

import math

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from drp_jax.models import layers, tokens
from drp_jax.ops import masking

# Score of a key that must not be seen. Large, not -inf: a query whose keys are
# all hidden stays finite, and nobody reads it (B11).
_NEVER = -1e9


@flax.struct.dataclass
class Cache:
  """Keys and values of the current tracking window, for acting.

  Attributes:
    key: [L, B, K+1, W, D], or K instead of K+1 where there is no [MAT] (E1).
    value: of the same shape.
  """

  key: jax.Array
  value: jax.Array


def attend(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  allowed: jax.Array,
  num_heads: int,
) -> jax.Array:
  """Softmax attention (Eqs. 14, 16).

  Args:
    query: [..., Q, D].
    key: [..., N, D].
    value: [..., N, D].
    allowed: bool, broadcastable to [..., Q, N].
    num_heads: heads; scores are scaled by sqrt(D / heads).

  Returns:
    [..., Q, D].
  """
  weights = attention_weights(query, key, allowed, num_heads)
  out = jnp.einsum(
    '...hqn,...nhd->...qhd',
    weights.astype(value.dtype),
    _heads(value, num_heads),
  )
  return out.reshape(query.shape)


def attention_weights(
  query: jax.Array, key: jax.Array, allowed: jax.Array, num_heads: int
) -> jax.Array:
  """Computes the softmax of `attend`: [..., heads, Q, N] float32."""
  scale = 1.0 / math.sqrt(query.shape[-1] // num_heads)
  scores = jnp.einsum(
    '...qhd,...nhd->...hqn',
    _heads(query, num_heads) * scale,
    _heads(key, num_heads),
  )
  scores = scores.astype(jnp.float32)
  scores = jnp.where(allowed[..., None, :, :], scores, _NEVER)
  return jax.nn.softmax(scores, -1)


def _heads(x: jax.Array, num_heads: int) -> jax.Array:
  return x.reshape(*x.shape[:-1], num_heads, -1)


class DualAttentionBlock(nn.Module):
  """Block that attends within each frame, then along each token's past.

  Implements Eqs. 13-19, with a LayerNorm in front of all three branches, which
  the text asks for and Eqs. 17-18 leave out (B1). [MAT] takes part in both
  attentions (B9).

  Attributes:
    width: D.
    num_heads: heads, a divisor of D. 1 is the case of Eqs. 14 and 16, which
      has no output matrix (B2).
    mlp_ratio: hidden width of the MLP, in multiples of D.
    intra: whether tokens of one frame attend to each other (E1).
    inter: whether tokens attend along time (E2).
  """

  width: int
  num_heads: int
  mlp_ratio: int
  intra: bool = True
  inter: bool = True

  def setup(self):
    D = self.width
    if D % self.num_heads:
      raise ValueError(
        f'num_heads={self.num_heads} does not divide width={D}'
        ' (config.dae.num_heads, config.dae.width).'
      )

    def projection():
      return layers.Dense(D, use_bias=False)

    if self.intra:
      self.intra_norm = layers.LayerNorm()
      self.intra_query, self.intra_key, self.intra_value = (
        projection() for _ in range(3)
      )
    if self.inter:
      self.inter_norm = layers.LayerNorm()
      self.inter_query, self.inter_key, self.inter_value = (
        projection() for _ in range(3)
      )
    several = self.num_heads > 1
    self.intra_out = projection() if several and self.intra else None
    self.inter_out = projection() if several and self.inter else None
    self.mlp_norm = layers.LayerNorm()
    self.mlp_in = layers.Dense(self.mlp_ratio * D)
    self.mlp_out = layers.Dense(D)

  def __call__(
    self, x: jax.Array, seen: jax.Array, time_mask: jax.Array
  ) -> jax.Array:
    """Mixes tokens over space, then over time.

    Args:
      x: [B, T, K+1, D].
      seen: [B, T, K+1] bool, which tokens may serve as keys.
      time_mask: [B, T, T] bool, which steps (columns) a step (row) may see.

    Returns:
      [B, T, K+1, D].
    """
    x = self._intra(x, seen)
    if not self.inter:
      return self._mlp(x)
    query, key, value = self._inter_projections(x)  # [B, K+1, T, D]
    allowed = time_mask[:, None] & jnp.swapaxes(seen, 1, 2)[:, :, None]
    h = attend(query, key, value, allowed, self.num_heads)
    return self._finish(x, jnp.swapaxes(h, 1, 2))

  def step(
    self, x: jax.Array, cache: Cache, window_step: jax.Array
  ) -> tuple[jax.Array, Cache]:
    """Computes one frame of `__call__` from a cache, without hidden tokens.

    Args:
      x: [B, K+1, D].
      cache: this block's keys and values, [B, K+1, W, D].
      window_step: [B] int32, place of this frame in its window. Entries up to
        it are the window's own, since it counts up from 0.

    Returns:
      [B, K+1, D] and the cache with this frame in it.
    """
    x = self._intra(x[:, None], jnp.ones((*x.shape[:2],), bool)[:, None])
    if not self.inter:
      return self._mlp(x)[:, 0], cache
    query, key, value = self._inter_projections(x)  # [B, K+1, 1, D]
    W = cache.key.shape[2]
    place = jnp.arange(W)[None, None, :, None]
    now = window_step[:, None, None, None]
    cache = Cache(
      jnp.where(place == now, key, cache.key),
      jnp.where(place == now, value, cache.value),
    )
    allowed = (place <= now)[..., 0][:, :, None]  # [B, 1, 1, W]
    h = attend(query, cache.key, cache.value, allowed, self.num_heads)
    return self._finish(x, jnp.swapaxes(h, 1, 2))[:, 0], cache

  def _intra(self, x, seen):
    if not self.intra:
      return x
    h = self.intra_norm(x)
    query, key = self.intra_query(h), self.intra_key(h)  # Eq. 13
    allowed = seen[:, :, None]
    if self.is_mutable_collection('intermediates'):  # to be looked at
      weights = attention_weights(query, key, allowed, self.num_heads)
      self.sow('intermediates', 'intra_attention', weights)
    h = attend(query, key, self.intra_value(h), allowed, self.num_heads)  # (14)
    return x + (h if self.intra_out is None else self.intra_out(h))  # Eq. 17

  def _inter_projections(self, x):
    h = jnp.swapaxes(self.inter_norm(x), 1, 2)  # [B, K+1, T, D]
    return self.inter_query(h), self.inter_key(h), self.inter_value(h)  # Eq. 15

  def _finish(self, x, inter):
    x = x + (
      inter if self.inter_out is None else self.inter_out(inter)
    )  # Eq. 18
    return self._mlp(x)

  def _mlp(self, x):
    h = nn.gelu(self.mlp_in(self.mlp_norm(x)), approximate=False)
    return x + self.mlp_out(h)  # Eq. 19


# Computed once more in the backward pass instead of kept for it.
RecomputedBlock = nn.remat(DualAttentionBlock)


class DAE(nn.Module):
  """Encodes atomic actions into local tokens and an aggregated action.

  Attributes:
    num_blocks: L.
    width: D.
    num_heads: heads of both attentions.
    mlp_ratio: hidden width of the MLPs, in multiples of D.
    image_size: side of the image, pixels.
    intra: whether tokens of one frame attend to each other. Without it [MAT]
      could never see any motion, so there is none, and a_agg is a dense layer
      on the mean of the frame's tokens (E1).
    inter: whether tokens attend along time (E2).
    coordinate: whether places are embedded (E3).
    temporal: whether time is embedded (E3).
    remat: whether blocks are computed again in the backward pass.
  """

  num_blocks: int
  width: int
  num_heads: int
  mlp_ratio: int
  image_size: int
  intra: bool = True
  inter: bool = True
  coordinate: bool = True
  temporal: bool = True
  remat: bool = False

  def setup(self):
    self.tokens = tokens.AtomicActionTokens(
      self.width,
      self.image_size,
      mat=self.intra,
      coordinate=self.coordinate,
      temporal=self.temporal,
    )
    block = RecomputedBlock if self.remat else DualAttentionBlock
    self.blocks = [
      block(self.width, self.num_heads, self.mlp_ratio, self.intra, self.inter)
      for _ in range(self.num_blocks)
    ]
    self.norm = layers.LayerNorm()
    if not self.intra:
      self.aggregate = layers.Dense(self.width)

  def __call__(
    self,
    patches: jax.Array,
    points: jax.Array,
    window_step: jax.Array,
    is_first: jax.Array,
    hidden: jax.Array,
  ) -> jax.Array:
    """Encodes whole sequences; step t depends on its window's steps <= t only.

    Hidden tokens are nobody's keys, which equals dropping them (B11); what
    stands at their own place in the output must not be read.

    Args:
      patches: [B, T, K, 2 P^2], normalized flow.
      points: [B, T, K, 2], pixels.
      window_step: [B, T] int32.
      is_first: [B, T] bool.
      hidden: [B, T, K] bool.

    Returns:
      [B, T, K+1, D]; slot 0 is the aggregated action a_agg, zero where
      `is_first` (A6, C3), slot k the local motion representation of keypoint k.
    """
    x = self.tokens(patches, points, window_step)
    seen = ~hidden
    if self.intra:  # [MAT] is never hidden (B10)
      seen = jnp.pad(seen, ((0, 0), (0, 0), (1, 0)), constant_values=True)
    time_mask = masking.same_window(window_step, is_first)
    time_mask &= masking.causal(x.shape[1])[None]  # M_causal of Eq. 16
    for block in self.blocks:
      x = block(x, seen, time_mask)
    return self._out(x, seen, is_first)

  def initial_cache(
    self, batch: int, num_keypoints: int, window: int, dtype=jnp.float32
  ) -> Cache:
    """Returns an empty cache for `step`: K = `num_keypoints`, W = `window`."""
    slots = num_keypoints + self.intra
    shape = (self.num_blocks, batch, slots, window, self.width)
    return Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))

  def step(
    self,
    patches: jax.Array,
    points: jax.Array,
    window_step: jax.Array,
    is_first: jax.Array,
    cache: Cache,
  ) -> tuple[jax.Array, Cache]:
    """Encodes one more frame, at the cost of one frame (design: streaming).

    Args:
      patches: [B, K, 2 P^2].
      points: [B, K, 2].
      window_step: [B] int32.
      is_first: [B] bool.
      cache: of the frames before.

    Returns:
      [B, K+1, D] as in `__call__`, and the next cache.
    """
    x = self.tokens(patches, points, window_step)
    caches = []
    for i, block in enumerate(self.blocks):
      x, new = block.step(x, Cache(cache.key[i], cache.value[i]), window_step)
      caches.append(new)
    out = self._out(x, jnp.ones(x.shape[:-1], bool), is_first)
    return out, Cache(
      jnp.stack([c.key for c in caches]), jnp.stack([c.value for c in caches])
    )

  def _out(self, x, seen, is_first):
    x = self.norm(x)
    if not self.intra:
      weight = seen[..., None].astype(x.dtype)
      mean = (x * weight).sum(-2) / jnp.maximum(weight.sum(-2), 1.0)
      x = jnp.concatenate([self.aggregate(mean)[..., None, :], x], -2)
    return jnp.where(is_first[..., None, None], 0.0, x)
