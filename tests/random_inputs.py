"""Random batches and variables, made without compiling anything."""

import dataclasses
from typing import Any

import jax
import numpy as np
import optax

from drp_jax import types
from drp_jax.ops import noise
from drp_jax.systems import registry

B, T = 4, 7


def keys(seed: int, count: int = B) -> jax.Array:
  """New typed keys [count]; made anew for every use, as keys are used once."""
  return noise.example_keys(jax.random.key(seed), 0, count)


def motion(
  num_keypoints: int, batch: int = B, length: int = T, seed: int = 0
) -> types.Motion:
  """Motion whose sequences lie differently in their tracking windows."""
  rng = np.random.default_rng([seed, 0])
  lead = (batch, length)
  place = np.maximum(np.arange(length) - 1, 0)[None] + 22 * (
    np.arange(batch)[:, None] % 2
  )  # every second sequence crosses into a new window of 24
  flow = rng.normal(size=(*lead, 64, 64, 2)).astype(np.float16)
  points = rng.uniform(0, 63, (*lead, num_keypoints, 2)).astype(np.float32)
  flow[:, 0], points[:, 0] = 0.0, 0.0
  return types.Motion(
    flow=flow,
    points=points,
    visible=np.ones((*lead, num_keypoints), bool),
    window_step=(place % 24).astype(np.int32),
  )


def video_batch(
  num_keypoints: int | None, batch: int = B, length: int = T, seed: int = 0
) -> types.VideoBatch:
  """Clips [batch, length, ...]; without motion if `num_keypoints` is None."""
  rng = np.random.default_rng([seed, 1])
  is_first = np.broadcast_to(np.arange(length) == 0, (batch, length))
  return types.VideoBatch(
    image=rng.integers(0, 256, (batch, length, 64, 64, 3), np.uint8),
    motion=None
    if num_keypoints is None
    else motion(num_keypoints, batch, length, seed),
    is_first=is_first.copy(),
  )


def replay_batch(
  num_keypoints: int | None,
  action_size: int,
  batch: int = B,
  length: int = T,
  seed: int = 0,
) -> types.ReplayBatch:
  """Segments [batch, length, ...]; motion as in `video_batch`."""
  rng = np.random.default_rng([seed, 2])
  video = video_batch(num_keypoints, batch, length, seed)
  action = rng.uniform(-1, 1, (batch, length, action_size))
  return types.ReplayBatch(
    image=video.image,
    motion=video.motion,
    action=action.astype(np.float32),
    reward=rng.normal(size=(batch, length)).astype(np.float32),
    is_first=video.is_first,
    is_last=np.zeros((batch, length), bool),
    is_terminal=np.zeros((batch, length), bool),
  )


def fill(shapes, seed: int = 0):
  """Random values for a tree of variables, none at its initial zero or one."""
  rng = np.random.default_rng(seed)

  def one(path, leaf):
    name = path[-1].key
    x = rng.normal(size=leaf.shape)
    if name == 'kernel':
      x /= np.sqrt(np.prod(leaf.shape[:-1]))
    elif name in ('scale', 'var', 'flow_scale'):
      x = np.exp(0.1 * x)
    else:
      x *= 0.1
    return x.astype(leaf.dtype)

  return jax.tree.map_with_path(one, shapes)


def recording_sgd() -> optax.GradientTransformation:
  """Gradient descent with a tiny rate whose state is the newest gradient."""

  def update(gradients, state, params=None):
    del state, params
    return jax.tree.map(lambda g: -1e-6 * g, gradients), gradients

  return optax.GradientTransformation(
    lambda params: jax.tree.map(np.zeros_like, params), update
  )


def recording(config, action_size, axis_name=None, **changes) -> Any:
  """The learner of a config's system, with `recording_sgd` as optimizers.

  Args:
    config: configs/base.py.
    action_size: A.
    axis_name: device axis, or None.
    **changes: other fields of the learner.
  """
  built = registry.build(config, action_size, axis_name)
  return dataclasses.replace(
    built.finetuning,
    model_tx=recording_sgd(),
    behavior_tx=recording_sgd(),
    **changes,
  )


def finetune_state(learner, variables) -> types.FinetuneState:
  """The state before the first update."""
  return learner.first_state(variables, jax.random.key(5))


def moving_squares(num_frames: int, seed: int) -> np.ndarray:
  """A textured square that swings over a textured ground: [N, 64, 64, 3]."""
  rng = np.random.default_rng(seed)
  ground = rng.integers(0, 100, (16, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
  square = rng.integers(120, 256, (5, 5, 3), np.uint8).repeat(4, 0).repeat(4, 1)
  frames = np.repeat(ground[None], num_frames, 0)
  for t, frame in enumerate(frames):
    x = 22 + int(18 * np.sin(t / 5 + seed))
    frame[20:40, x : x + 20] = square
  return frames
