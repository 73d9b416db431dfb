"""Vectors that describe the motion of every step of clips, for probes.

By the index rule, entry t of a clip led to frame t. Entry 0 is empty, so all
functions here return the T - 1 entries after it.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from drp_jax.data import report
from drp_jax.train import pretrained
from experiments import clip_batches

Clips = Sequence[dict[str, Any]]
# Clips -> name of a representation -> [N, T-1, D] float32.
Vectors = Callable[[Clips], dict[str, np.ndarray]]


def load(workdir: str) -> pretrained.Pretrained:
  """Opens a pre-training of a system with an aggregated action.

  Raises:
    ValueError: if it is no such pre-training, or is damaged.
  """
  model = pretrained.load(workdir)
  if not model.system.sees_motion:
    raise ValueError(
      f'--workdir={workdir!r}: config.agent={model.config.agent!r} has no'
      ' aggregated action.'
    )
  return model


def of_tokens(model: pretrained.Pretrained) -> Vectors:
  """Makes a function that computes the tokens of a DAE.

  Args:
    model: model of a system with an aggregated action.

  Returns:
    A function that returns `a_agg` and, unless the model sees the whole flow at
    once (E4), `local tokens`, the mean of the local tokens over keypoints.
  """

  @jax.jit
  def encode(motion, is_first):
    tokens = model.system.encode_motion(model.variables, motion, is_first)
    found = {'a_agg': tokens[:, 1:, 0]}
    if tokens.shape[2] > 1:
      found['local tokens'] = tokens[:, 1:, 1:].mean(2)
    return found

  K = model.built.num_keypoints
  return lambda clips: _join(
    [
      encode(batch.motion, batch.is_first)
      for _, batch in clip_batches.in_batches(clips, K)
    ],
    len(clips),
  )


def of_latents(model: pretrained.Pretrained) -> Vectors:
  """Makes a function that computes the states of a model without motion.

  Args:
    model: model of IPV or APV.

  Returns:
    A function that returns `z of ipv`, or `z of apv`: the features of z.
  """

  @jax.jit
  def encode(batch):
    z = model.system.encode_video(model.variables, batch)
    return {f'z of {model.config.agent}': z[:, 1:]}

  return lambda clips: _join(
    [encode(batch) for _, batch in clip_batches.in_batches(clips, None)],
    len(clips),
  )


def of_flow(clips: Clips) -> dict[str, np.ndarray]:
  """Computes the mean flow and the mean speed, three numbers a step.

  Args:
    clips: examples of shards.

  Returns:
    `flow at keypoints`, over visible keypoints, and `flow of image`, over all
    pixels.
  """
  at_keypoints, of_image = [], []
  for clip in clips:
    visible = clip['visible'][1:]
    # Lost keypoints count if no keypoint is visible.
    weights = np.where(visible.any(1, keepdims=True), visible, True)
    at_keypoints.append(_mean(report.flow_at_points(clip), weights))
    flow = clip['flow'][1:].astype(np.float64)
    flow = flow.reshape(len(flow), -1, 2)
    of_image.append(_mean(flow, np.ones(flow.shape[:2])))
  return {
    'flow at keypoints': np.stack(at_keypoints),
    'flow of image': np.stack(of_image),
  }


def _mean(flow: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """Averages (u, v, speed): [T, M, 2] and weights [T, M] -> [T, 3]."""
  speed = np.linalg.norm(flow, axis=-1, keepdims=True)
  values = np.concatenate([flow, speed], -1)
  sums = (values * weights[..., None]).sum(1)
  return (sums / weights.sum(1, keepdims=True)).astype(np.float32)


def _join(found: list[dict[str, Any]], count: int) -> dict[str, np.ndarray]:
  """Joins batches, of which the last is padded."""
  return {
    name: np.concatenate([np.asarray(x[name], np.float32) for x in found])[
      :count
    ]
    for name in found[0]
  }
