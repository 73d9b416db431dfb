"""What DRP shows of its inside is what its losses and its policy use."""

import dataclasses

import jax
import numpy as np
import paper_in_numpy as paper
import pytest


def test_encoded_motion_is_what_the_models_are_driven_by(
  system, variables, video_batch
):
  motion, is_first = video_batch.motion, video_batch.is_first
  tokens = jax.jit(system.encode_motion)(variables, motion, is_first)
  B, T, K = motion.points.shape[:3]
  assert tokens.shape == (B, T, K + 1, system.deconstruction.dae.width)
  a_agg = system.deconstruction.apply(
    variables, motion, is_first, method=system.deconstruction.aggregate
  )
  np.testing.assert_allclose(tokens[:, :, 0], a_agg, atol=1e-6)
  assert np.abs(tokens[:, 1:]).min(-1).max() > 0


def test_mat_attention_is_the_softmax_of_equation_14(
  system, variables, video_batch
):
  motion, is_first = video_batch.motion, video_batch.is_first
  found = jax.jit(system.mat_attention)(variables, motion, is_first)
  model = system.deconstruction
  u = model.apply(variables, motion, method=model.atomic_actions)
  for b in range(len(is_first)):
    _, blocks = paper.dae(
      paper.float64(variables['params']['dae']),
      np.asarray(u[b], np.float64),
      np.asarray(motion.points[b], np.float64),
      np.asarray(motion.window_step[b]),
      np.asarray(is_first[b]),
      np.zeros(motion.visible.shape[1:], bool),
      model.dae.num_heads,
    )
    for number, block in enumerate(blocks):
      query, key = block['intra_query'][:, 0], block['intra_key']
      T, N, D = key.shape
      heads = query.reshape(T, model.dae.num_heads, -1)
      keys = key.reshape(T, N, model.dae.num_heads, -1)
      scores = np.einsum('thd,tnhd->thn', heads, keys)
      scores /= np.sqrt(D // model.dae.num_heads)
      weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
      np.testing.assert_allclose(
        found[b, :, number], weights.mean(1), rtol=1e-4, atol=1e-6
      )


def test_without_intra_attention_there_is_none(system, video_batch):
  model = system.deconstruction
  blind = dataclasses.replace(model.dae, intra=False)
  other = dataclasses.replace(
    system, deconstruction=dataclasses.replace(model, dae=blind)
  )
  params = other.init(jax.random.key(0), video_batch)
  with pytest.raises(ValueError, match=r'no \[MAT\].*dae.intra'):
    other.mat_attention(params, video_batch.motion, video_batch.is_first)
