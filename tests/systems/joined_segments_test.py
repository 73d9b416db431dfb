"""What comes before a seam in a segment changes nothing after it."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax import types
from drp_jax.models import layers
from drp_jax.systems import registry
from drp_jax.systems.dreamerv3 import dreamerv3
from drp_jax.train import batches

_A, _B, _T, _SEAM = 2, 2, 9, 4  # an episode ends at entry 3
_AGENTS = tuple(registry.SYSTEMS)


def _batch(num_keypoints, seed, after):
  """Segments whose steps from the seam on are those of `after`, if given."""
  batch = random_inputs.replay_batch(num_keypoints, _A, _B, _T, seed)
  batch.is_first[:, _SEAM] = batch.is_last[:, _SEAM - 1] = True
  if num_keypoints is not None:
    batch.motion.flow[:, _SEAM] = batch.motion.points[:, _SEAM] = 0.0
    batch.motion.window_step[:, _SEAM:] = np.maximum(
      np.arange(_T - _SEAM) - 1, 0
    )
  if after is None:
    return batch

  def join(own, other):
    return np.concatenate([own[:, :_SEAM], other[:, _SEAM:]], 1)

  return jax.tree.map(join, batch, after)


@functools.cache
def _made(agent, **changes):
  config = finetune_dmcr.get_config('debug')
  config.update({'agent': agent, **changes})
  system = registry.build(config, _A, None).system
  example = registry.build(config, _A, None).finetuning.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), example)
  return config, system, random_inputs.fill(shapes)


def _states(agent, **changes):
  """A function of batches: posteriors of the model that imagines."""
  _, system, variables = _made(agent, **changes)
  collections = {k: v for k, v in variables.items() if k != 'params'}
  params = {
    name: tree
    for name, tree in variables['params'].items()
    if name not in ('actor', 'critic')
  }
  running = layers.BatchNorm.__call__

  def without_batch_statistics(self, x, train, *rest):
    del train  # which would let all frames of a batch know of each other
    return running(self, x, False, *rest)

  @jax.jit
  def run(batch):
    keys = random_inputs.keys(1, _B)
    if isinstance(system, dreamerv3.DreamerV3):
      out = system.model.apply(
        {'params': params}, batch, keys, method=system.model.finetune
      )
      return out.s

    def no_bonus(feat, is_last):
      del is_last
      return jnp.zeros(feat.shape[:2]), None

    _, out = system.world_model_loss(params, collections, batch, keys, no_bonus)
    return out.s

  def call(batch):
    with mock.patch.object(
      layers.BatchNorm, '__call__', without_batch_statistics
    ):
      return jax.device_get(run(batch))

  return call


@pytest.mark.parametrize(
  ('agent', 'changes'),
  [
    *[(agent, {}) for agent in _AGENTS],
    ('drp', {'motion': 'global_flow'}),
  ],
)
def test_states_forget_at_a_seam(agent, changes):
  """Images, actions, flow and points of the episode before do not matter."""
  num_keypoints = registry.build(
    _made(agent, **changes)[0], 1, None
  ).num_keypoints
  states = _states(agent, **changes)
  one = _batch(num_keypoints, 1, None)
  other = _batch(num_keypoints, 2, one)
  first, second = states(one), states(other)
  for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
    assert (x[:, :_SEAM] != y[:, :_SEAM]).any()
    np.testing.assert_array_equal(x[:, _SEAM:], y[:, _SEAM:])


@pytest.mark.parametrize('agent', ['drp', 'ipv'])
def test_frames_are_decoded_with_a_context_of_their_own_episode(agent):
  """N40: others have no weight in the losses of images."""
  config, system, variables = _made(agent)
  batch = _batch(registry.build(config, 1, None).num_keypoints, 1, None)
  num_drive = system.model.latent_dynamics.action_size
  (latent, _), _ = jax.jit(
    lambda *args: system.model.apply(
      variables,
      *args,
      decode_z=False,
      method=system.model.finetune,
      mutable=['batch_stats'],
    )
  )(
    batch,
    np.zeros((_B, _T, num_drive), np.float32),
    [random_inputs.keys(i, _B) for i in range(3)],
    [random_inputs.keys(i, _B) for i in range(3, 5)],
  )
  before = np.arange(_T) < _SEAM
  for index, weight in zip(
    latent.context_index, latent.image_weight, strict=True
  ):
    own = before == (index < _SEAM)
    np.testing.assert_allclose(
      weight, np.where(own, _T / own.sum(), 0.0), rtol=1e-6
    )


def test_a_batch_of_replay_knows_its_seams():
  names = ('image', 'action', 'reward', 'is_first', 'is_last', 'is_terminal')
  batch = batches.replay_batch({name: name for name in names})
  assert batch == types.ReplayBatch(
    motion=None, **{name: name for name in names}
  )
