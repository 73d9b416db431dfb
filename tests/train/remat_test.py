"""Rematerialisation gives the same numbers (benchmarks/memory.py: the gain)."""

import jax
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax.models import image_decoder
from drp_jax.train import build

_B, _T = 2, 6


def _run(remat, which):
  """Variables; loss, batch statistics and gradient."""
  config = finetune_dmcr.get_config('debug')
  config.remat = remat
  model = build.system(config, 2, None).model
  rng = np.random.default_rng(0)
  if which == 'encoder':
    module = model.image_encoder
    image = rng.uniform(-0.5, 0.5, (_B * _T, 64, 64, 3)).astype(np.float32)
    inputs = (image,)
  else:
    module = model.image_decoder
    inputs = (
      rng.normal(size=(_B, _T, 32)).astype(np.float32),
      image_decoder.Context(
        coarse=rng.normal(size=(_B, 8, 8, 16)).astype(np.float32),
        fine=rng.normal(size=(_B, 16, 16, 8)).astype(np.float32),
      ),
      random_inputs.keys(3, _B),
    )
  shapes = jax.eval_shape(
    lambda key: module.init(key, *inputs, False), jax.random.key(0)
  )
  variables = random_inputs.fill(shapes)

  def loss(params):
    out, updated = module.apply(
      {**variables, 'params': params}, *inputs, True, mutable=['batch_stats']
    )
    first = jax.tree.leaves(out)[0]
    return (first**2).mean(), updated

  gradient = jax.value_and_grad(loss, has_aux=True)
  jaxpr = str(jax.make_jaxpr(gradient)(variables['params']))
  assert ('checkpoint' in jaxpr or 'remat' in jaxpr) == remat
  return variables, jax.device_get(jax.jit(gradient)(variables['params']))


@pytest.mark.parametrize('which', ['encoder', 'decoder'])
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
