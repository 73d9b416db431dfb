"""Crops optical-flow patches around keypoints (Sec. 4.2.1)."""

import chex
import jax
import jax.numpy as jnp


def crop(flow: jax.Array, points: jax.Array, patch_size: int) -> jax.Array:
  """Crops a P x P patch of `flow` around every point.

  The window is [c - P/2, c + P/2) around the nearest pixel c (halves round up,
  A5). Outside the image, border values are repeated (A4).

  Args:
    flow: [..., H, W, 2], pixels per frame.
    points: [..., K, 2], (x, y) pixels.
    patch_size: P.

  Returns:
    [..., K, P, P, 2], rows first.

  Raises:
    ValueError: if P is not in 1..min(H, W).
  """
  H, W = flow.shape[-3:-1]
  if not 1 <= patch_size <= min(H, W):
    raise ValueError(
      f'patch_size={patch_size} must be in 1..{min(H, W)}, the image side'
      ' (config.dae.patch_size).'
    )
  chex.assert_equal_shape_prefix([flow, points], flow.ndim - 3)
  lead = flow.shape[:-3]
  flow = flow.reshape(-1, H, W, 2)
  center = jnp.floor(points.reshape(flow.shape[0], -1, 2) + 0.5)
  offset = jnp.arange(patch_size) - patch_size // 2
  index = center.astype(jnp.int32)[:, :, None]
  index = index + offset[None, None, :, None]  # [N, K, P, 2]
  cols = jnp.clip(index[..., 0], 0, W - 1)
  rows = jnp.clip(index[..., 1], 0, H - 1)

  patches = jax.lax.platform_dependent(
    flow, rows, cols, tpu=select, default=gather
  )
  return patches.reshape(*lead, -1, patch_size, patch_size, 2)


def gather(flow: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
  """Reads pixels: [N, H, W, 2], [N, K, P], [N, K, P] -> [N, K, P, P, 2]."""

  def one(field, rows, cols):
    return field[rows[:, :, None], cols[:, None, :]]  # [K, P, P, 2]

  return jax.vmap(one)(flow, rows, cols)


def select(flow: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
  """Computes `gather` of finite flow by two products with one-hot vectors.

  It is exact for float16, because all other terms of each sum are zero. A TPU
  moves about a hundredth of the bytes; it would gather pixel by pixel, two
  numbers in a row of 128.
  """
  H, W = flow.shape[1:3]
  exact = jax.lax.Precision.HIGHEST
  own_rows = jax.nn.one_hot(rows, H, dtype=flow.dtype)  # [N, K, P, H]
  own_cols = jax.nn.one_hot(cols, W, dtype=flow.dtype)  # [N, K, P, W]
  strips = jnp.einsum('nkph,nhwc->nkpwc', own_rows, flow, precision=exact)
  return jnp.einsum('nkqw,nkpwc->nkpqc', own_cols, strips, precision=exact)


def normalize(patches: jax.Array, flow_scale: jax.Array) -> jax.Array:
  """Divides by the data's flow scale and clips to +-10 (A3).

  Args:
    patches: [...], pixels per frame.
    flow_scale: [], pixels per frame; one number for the whole data set, so the
      size of a motion is preserved.

  Returns:
    [...] float32, without unit.
  """
  return jnp.clip(patches.astype(jnp.float32) / flow_scale, -10.0, 10.0)
