"""Tests of the stacked model: context frames, and the types it computes in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax.systems import registry

_B, _T = 200, 3


@functools.cache
def _model(erasing):
  config = finetune_dmcr.get_config('debug')
  config.agent, config.image.context_erasing = 'ipv', erasing
  return registry.build(config, 2, None).system.model


def _frames(erasing):
  """Every value of frame t is t + 1."""
  value = np.broadcast_to(np.arange(1.0, _T + 1), (_B, _T))
  image = np.broadcast_to(
    value[..., None, None, None], (_B, _T, 8, 8, 3)
  ).astype(np.float32)
  frames, index = _model(erasing).apply(
    {}, image, random_inputs.keys(0, _B), method='_context_frame'
  )
  frames, index = np.asarray(frames), np.asarray(index)
  assert (frames.max((1, 2, 3)) == index + 1).all()
  return frames


def test_the_context_is_any_frame_of_the_sequence():
  frames = _frames(False)
  assert frames.shape == (_B, 8, 8, 3)
  first = frames[:, 0, 0, 0]
  assert (frames == first[:, None, None, None]).all()
  counts = np.bincount(first.astype(int), minlength=_T + 1)[1:]
  assert counts.sum() == _B and counts.min() > 0.2 * _B


def test_erasing_makes_parts_of_half_of_the_context_frames_gray():
  frames = _frames(True)
  gray = (frames == 0).all(-1)
  assert 0.35 < gray.any((1, 2)).mean() < 0.65
  for frame in frames:
    left = frame[frame != 0]
    assert left.size and (left == left[0]).all() and left[0] in (1, 2, 3)


@pytest.mark.parametrize(
  ('method', 'same'), [('open_loop', True), ('pretrain', False)]
)
def test_only_training_erases(method, same):
  batch = random_inputs.video_batch(None, 2, 4)
  shapes = jax.eval_shape(
    functools.partial(_model(False).init, method='init_pretrain'),
    jax.random.key(0),
    batch,
    jnp.zeros([2, 4, 50]),
    random_inputs.keys(0, 2),
  )

  def traced(erasing):
    def run(variables, seeds):
      keys = [jax.vmap(jax.random.key)(seed) for seed in seeds]
      a_agg = jnp.zeros([2, 4, 50])
      args = (a_agg, keys)
      if method == 'open_loop':
        args = (a_agg, a_agg, keys[0], 2)
      return _model(erasing).apply(
        variables,
        batch,
        *args,
        method=method,
        mutable=['batch_stats'],
      )

    return str(jax.make_jaxpr(run)(shapes, np.zeros((3, 2), np.uint32)))

  assert (traced(True) == traced(False)) == same
