"""What DRP shows of its inside is what its losses and its policy use."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import paper_in_numpy as paper
import pytest
import random_inputs


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


def test_predictions_follow_the_later_motion_of_their_driver(
  system, variables, video_batch
):
  """The driver's a_agg drives z after the context, and nothing else."""
  n, other = (
    3,
    random_inputs.video_batch(video_batch.motion.points.shape[2], seed=1),
  )
  predict = jax.jit(functools.partial(system.open_loop, context_steps=n))
  keys = random_inputs.keys
  # So that a_agg weighs as much as z.
  variables = jax.tree.map_with_path(
    lambda path, x: 20 * x if 'action_in' in str(path) else x, variables
  )

  def run(driver):
    return predict(variables, video_batch, keys(0), driver=driver)

  recon, own = run(None)
  for found, expected in zip(run(video_batch), (recon, own), strict=True):
    np.testing.assert_allclose(found, expected, atol=1e-5)
  driven_recon, driven = run(other)
  np.testing.assert_allclose(driven_recon, recon, atol=1e-5)
  np.testing.assert_array_equal(driven[:, :n], driven_recon[:, :n])
  assert np.abs(driven - own)[:, n:].max((1, 2, 3, 4)).min() > 1e-3

  a_agg, later = (
    system.encode_motion(variables, batch.motion, batch.is_first)[:, :, 0]
    for batch in (video_batch, other)
  )
  model = system.model
  _, expected = model.apply(
    variables,
    video_batch,
    jnp.concatenate([a_agg[:, :n], later[:, n:]], 1),
    later,
    keys(0),
    n,
    method=model.open_loop,
  )
  np.testing.assert_allclose(driven, expected, atol=1e-4)


def test_a_driver_is_followed_from_the_first_predicted_frame_on(
  system, variables, video_batch
):
  """Its images are not seen, and no frame depends on motion after it."""
  n, later = 3, 5
  predict = jax.jit(functools.partial(system.open_loop, context_steps=n))
  variables = jax.tree.map_with_path(
    lambda path, x: 20 * x if 'action_in' in str(path) else x, variables
  )
  flow = video_batch.motion.flow.copy()
  flow[:, later:] = -flow[:, later:]
  driver = video_batch.replace(
    image=255 - video_batch.image,
    motion=video_batch.motion.replace(flow=flow),
  )
  _, own = predict(variables, video_batch, random_inputs.keys(0))
  _, driven = predict(
    variables, video_batch, random_inputs.keys(0), driver=driver
  )
  np.testing.assert_allclose(driven[:, :later], own[:, :later], atol=1e-5)
  assert np.abs(driven - own)[:, later:].max() > 1e-3
