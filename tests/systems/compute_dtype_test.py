"""Tests of bfloat16: what is computed in it, what is not, and how close it is.

All but the last only trace.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax import types
from drp_jax.models import layers
from drp_jax.ops import noise
from drp_jax.systems import registry

_B, _T, _A = 2, 6, 2
# Modules whose results losses read, beside the dynamics models' logits.
_FLOAT32 = {
  'mae_decoder',
  'image_decoder',
  'reward',
  'aux_reward',
  'actor',
  'critic',
}


@functools.cache
def _system(agent, dtype='bfloat16'):
  config = finetune_dmcr.get_config('debug')
  config.agent, config.compute_dtype = agent, dtype
  return config, registry.build(config, _A, None).system


def _batch(agent):
  config, _ = _system(agent)
  return random_inputs.replay_batch(
    registry.build(config, 1, None).num_keypoints, _A, _B, _T
  )


def _shapes(agent):
  _, system = _system(agent)
  return jax.eval_shape(system.init, jax.random.key(0), _batch(agent))


def _floats(tree):
  return {
    jax.tree_util.keystr(path): leaf.dtype
    for path, leaf in jax.tree.leaves_with_path(tree)
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  }


@pytest.mark.parametrize(
  'agent', sorted(registry.SYSTEMS.keys() - {'dreamerv3'})
)
def test_variables_and_losses_are_float32(agent):
  _, system = _system(agent)
  shapes = _shapes(agent)
  assert set(_floats(shapes).values()) == {jnp.dtype('float32')}

  def losses(variables, batch, key):
    params = variables.pop('params')
    loss, out = system.world_model_loss(
      params,
      variables,
      batch,
      noise.example_keys(key, 0, _B),
      lambda feat, _: (feat[:, :2].mean(-1), None),
    )
    learner = {name: params[name] for name in ('actor', 'critic')}
    behavior_loss, metrics = system.behavior_loss(
      learner,
      params['critic'],
      params,
      out.collections,
      system.start_states(out),
      batch.is_terminal.reshape(-1),
      noise.example_keys(jax.random.fold_in(key, 1), 0, _B),
    )
    return loss, out.metrics, out.collections, behavior_loss, metrics, out.s

  *results, s = jax.eval_shape(losses, shapes, _batch(agent), jax.random.key(0))
  assert set(_floats(results).values()) == {jnp.dtype('float32')}
  assert s.deter.dtype == s.stoch.dtype == jnp.bfloat16
  assert s.logits.dtype == jnp.float32


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('agent', registry.SYSTEMS)
def test_acting_keeps_the_types_of_what_it_remembers(agent, dtype):
  """Else every episode would compile its second step anew."""
  config, system = _system(agent, dtype)
  batch = _batch(agent)
  obs = types.Observation(
    image=batch.image[:, 0],
    motion=jax.tree.map(lambda x: x[:, 0], batch.motion),
    is_first=batch.is_first[:, 0],
  )
  carry = system.initial_carry(_B, config.dae.num_keypoints)
  after, action = jax.eval_shape(
    functools.partial(system.policy_step, explore=True),
    _shapes(agent),
    carry,
    obs,
    random_inputs.keys(0, _B),
  )
  kinds = [
    jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (carry, after)
  ]
  assert kinds[0] == kinds[1]
  assert carry.s.deter.dtype == dtype
  assert action.shape == (_B, _A) and action.dtype == jnp.float32


def _computes(module, method_name):
  """Picks modules that return a result, not their parameters."""
  del method_name
  return not isinstance(module, layers.Kernel | layers.Moments)


@pytest.mark.parametrize('part', ['deconstruction', 'model'])
def test_every_module_computes_in_bfloat16(part):
  """The results of all modules but those that losses read."""
  _, system = _system('drp')
  batch = _batch('drp')

  def forward(variables, batch, key):
    keys = noise.split(noise.example_keys(key, 0, _B), 6)
    if part == 'deconstruction':
      return system.deconstruction.apply(
        variables,
        batch.motion,
        batch.is_first,
        keys[0],
        capture_intermediates=_computes,
        mutable=['intermediates'],
      )[1]
    return system.model.apply(
      variables,
      batch,
      jnp.zeros([_B, _T, 16], jnp.bfloat16),
      keys[1:4],
      keys[4:],
      decode_z=True,
      method='finetune',
      capture_intermediates=_computes,
      mutable=['intermediates', 'batch_stats'],
    )[1]['intermediates']

  inner = jax.eval_shape(forward, _shapes('drp'), batch, jax.random.key(0))
  inner = inner.get('intermediates', inner)
  results = {}  # of the last call: of a layer that changes another's result
  for path, leaf in jax.tree.leaves_with_path(inner):
    names = [getattr(key, 'key', None) for key in path]
    if '__call__' not in names:
      continue  # attention weights, to be looked at
    place = names.index('__call__')
    call = path[place + 1].idx
    if jnp.issubdtype(leaf.dtype, jnp.floating):
      module = results.setdefault(tuple(names[:place]), {})
      module.setdefault(call, set()).add(leaf.dtype)
  assert len(results) > 20
  for module, calls in results.items():
    if module not in {(), *((name,) for name in _FLOAT32)}:
      assert calls[max(calls)] == {jnp.dtype(jnp.bfloat16)}, module


@pytest.mark.slow
def test_bfloat16_is_close_to_float32(variables, replay_batch):
  """Losses, and directions of gradients, of one update of DRP."""

  def run(dtype):
    config, _ = _system('drp', dtype)
    learner = random_inputs.recording(config, _A)
    state = random_inputs.finetune_state(learner, variables)
    update = jax.jit(learner.update)
    state, metrics = update(state, replay_batch, jax.random.key(3))
    return {**state.model_opt, **state.behavior_opt}, metrics

  gradients, metrics = run('float32')
  rough, rough_metrics = run('bfloat16')
  for name in ('mae', 'image_z', 'image', 'reward', 'aux_reward', 'critic'):
    np.testing.assert_allclose(
      rough_metrics[f'loss/{name}'],
      metrics[f'loss/{name}'],
      rtol=0.1,
      err_msg=name,
    )
  assert rough_metrics['loss/image'] != metrics['loss/image']
  for name in ('dae', 'mae_decoder', 'image_decoder', 'reward', 'critic'):
    a, b = (
      np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree[name])])
      for tree in (gradients, rough)
    )
    cosine = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
    assert cosine > 0.9, (name, cosine)
