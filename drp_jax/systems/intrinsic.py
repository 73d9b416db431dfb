"""Intrinsic bonus: novelty of the latent dynamics' features (D8; IPV).

Distances to the nearest of recently seen windows of z's features, after a fixed
random projection.
"""

import dataclasses
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from drp_jax.ops import seams


@dataclasses.dataclass(frozen=True)
class Settings:
  """Numbers of the bonus; see configs/base.py `intrinsic`."""

  scale: float
  window: int
  queue_size: int
  projection: int
  neighbours: int
  momentum: float


@flax.struct.dataclass
class IntrinsicState:
  """What the bonus remembers.

  Attributes:
    matrix: [F, projection] float32, fixed.
    queue: [queue_size, projection] float32, newest batch first; what is full
      drops the end of its oldest batch.
    count: [] int32, filled places of the queue.
    magnitude: [] float32, running mean of the raw bonus.
  """

  matrix: jax.Array
  queue: jax.Array
  count: jax.Array
  magnitude: jax.Array


def init(key: jax.Array, feat_size: int, settings: Settings) -> IntrinsicState:
  """An empty queue; a random projection with entries N(0, 1/projection^2)."""
  P = settings.projection
  return IntrinsicState(
    matrix=jax.random.normal(key, (feat_size, P)) / P,
    queue=jnp.zeros((settings.queue_size, P)),
    count=jnp.zeros((), jnp.int32),
    magnitude=jnp.ones(()),
  )


def window_means(feat: jax.Array, is_last: jax.Array, window: int) -> jax.Array:
  """Averages features over windows, which end where an episode ends.

  Args:
    feat: [B, T, F].
    is_last: [B, T] bool, ends of episodes.
    window: steps in a row.

  Returns:
    [B, T - window + 1, F], for the first step of each window.
  """
  n = feat.shape[1] - window + 1
  part = seams.parts(is_last)
  same = [part[:, i : i + n] == part[:, :n] for i in range(window)]
  total = sum(
    jnp.where(own[..., None], feat[:, i : i + n], 0.0)
    for i, own in enumerate(same)
  )
  repeats: Any = sum(same)
  # A factor of exactly one where no episode ends.
  return total / window * (window / repeats)[..., None]


def bonus(
  state: IntrinsicState,
  feat: jax.Array,
  is_last: jax.Array,
  settings: Settings,
  axis_name: str | None,
) -> tuple[jax.Array, IntrinsicState]:
  """Rewards windows whose neighbors are far away.

  The queue holds the current batch too, so the nearest neighbor of each window
  is itself at distance 0.

  Args:
    state: the bonus's memory, equal on all devices.
    feat: [b, T, F], stopped.
    is_last: [b, T] bool, ends of episodes.
    settings: numbers of the bonus.
    axis_name: device axis, or None; windows of all devices enter the queue.

  Returns:
    [b, T - window + 1], scale times the normalized bonus, for the first step
    of each window; and the next state.
  """
  vectors = (
    window_means(feat, is_last, settings.window) @ state.matrix
  )  # [b, n, P]
  own = vectors.reshape(-1, vectors.shape[-1])
  new = own
  if axis_name is not None:
    new = jax.lax.all_gather(own, axis_name, tiled=True)
  size = settings.queue_size
  queue = jnp.concatenate([new, state.queue], 0)[:size]
  count = jnp.minimum(state.count + new.shape[0], size)

  # ||a||^2 + ||b||^2 - 2ab: the tensor of all differences would not fit (T11).
  # It tells who is near; how near is computed without cancellation.
  center = own.mean(0, keepdims=True)
  a, b = own - center, queue - center
  squares = (a**2).sum(-1)[:, None] + (b**2).sum(-1)[None] - 2.0 * a @ b.T
  squares = jnp.where((jnp.arange(size) >= count)[None], jnp.inf, squares)
  found, places = jax.lax.top_k(-squares, settings.neighbours)
  gaps = own[:, None] - queue[places]  # [b n, neighbors, P]
  distances = jnp.sqrt(jnp.square(gaps).sum(-1))
  distances = jnp.where(jnp.isinf(found), 0.0, distances)
  raw = distances.sum(-1) / jnp.minimum(settings.neighbours, count)

  mean = raw.mean()
  if axis_name is not None:
    mean = jax.lax.pmean(mean, axis_name)
  rate = settings.momentum
  magnitude = rate * state.magnitude + (1.0 - rate) * mean
  scaled = settings.scale * raw / (magnitude + 1e-8)
  return scaled.reshape(vectors.shape[:2]), dataclasses.replace(
    state, queue=queue, count=count, magnitude=magnitude
  )
