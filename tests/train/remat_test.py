"""Rematerialization gives the same numbers (benchmarks/memory.py: the gain)."""

import jax
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax.models import image_decoder
from drp_jax.systems import registry

_B, _T, _K = 2, 6, 3


def _module(system, which):
  """One of the system's networks, and what it is called with in training."""
  rng = np.random.default_rng(0)
  if which == 'encoder':
    image = rng.uniform(-0.5, 0.5, (_B * _T, 64, 64, 3)).astype(np.float32)
    return system.model.image_encoder, (image, True)
  if which == 'decoder':
    feat = rng.normal(size=(_B, _T, 32)).astype(np.float32)
    context = image_decoder.Context(
      coarse=rng.normal(size=(_B, 8, 8, 16)).astype(np.float32),
      fine=rng.normal(size=(_B, 16, 16, 8)).astype(np.float32),
    )
    keys = random_inputs.keys(3, _B)
    return system.model.image_decoder, (feat, context, keys, True)
  motion = (
    rng.uniform(0, 64, (_B, _T, _K, 2)).astype(np.float32),
    np.tile(np.arange(_T, dtype=np.int32), (_B, 1)),
    np.zeros((_B, _T), bool),
    rng.uniform(size=(_B, _T, _K)) < 0.5,
  )
  if which == 'dae':
    patches = rng.normal(size=(_B, _T, _K, 512)).astype(np.float32)
    return system.deconstruction.dae, (patches, *motion)
  encoded = rng.normal(size=(_B, _T, _K + 1, 16)).astype(np.float32)
  return system.deconstruction.mae_decoder, (encoded, *motion)


def _run(remat, which):
  """Variables; loss, batch statistics and gradient."""
  config = finetune_dmcr.get_config('debug')
  config.remat = remat
  module, inputs = _module(registry.build(config, 2, None).system, which)
  shapes = jax.eval_shape(
    lambda key: module.init(key, *inputs), jax.random.key(0)
  )
  variables = random_inputs.fill(shapes)

  def loss(params):
    out, updated = module.apply(
      {**variables, 'params': params}, *inputs, mutable=['batch_stats']
    )
    first = jax.tree.leaves(out)[0]
    return (first**2).mean(), updated

  gradient = jax.value_and_grad(loss, has_aux=True)
  jaxpr = str(jax.make_jaxpr(gradient)(variables['params']))
  assert ('checkpoint' in jaxpr or 'remat' in jaxpr) == remat
  return variables, jax.device_get(jax.jit(gradient)(variables['params']))


@pytest.mark.parametrize('which', ['encoder', 'decoder', 'dae', 'mae_decoder'])
def test_the_same_loss_gradient_and_statistics(which):
  variables, results = _run(False, which)
  own_variables, own_results = _run(True, which)
  jax.tree.map(np.testing.assert_array_equal, own_variables, variables)

  # Some gradients are zero but for rounding (an attention's key bias).
  norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(results)))

  def check(a, b):
    atol = 1e-5 * np.abs(b).max() + 1e-6 * norm
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=atol)

  jax.tree.map(check, own_results, results)


def test_acting_takes_no_notice_of_it():
  """One frame of the DAE, with the same parameters."""
  outs = []
  for remat in (False, True):
    config = finetune_dmcr.get_config('debug')
    config.remat = remat
    module, inputs = _module(registry.build(config, 2, None).system, 'dae')
    shapes = jax.eval_shape(
      lambda key, m=module, x=inputs: m.init(key, *x), jax.random.key(0)
    )
    frame = jax.tree.map(lambda x: x[:, 0], inputs[:4])
    cache = module.initial_cache(_B, _K, 24)
    outs.append(
      module.apply(
        random_inputs.fill(shapes), *frame, cache, method=module.step
      )
    )
  jax.tree.map(np.testing.assert_array_equal, *outs)
