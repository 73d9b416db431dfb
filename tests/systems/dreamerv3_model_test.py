"""Sizes of DreamerV3, against those of the official code's presets."""

import jax
import numpy as np
import pytest

from configs import finetune_dmcr
from drp_jax.systems import registry
from drp_jax.systems.dreamerv3 import networks

_ACTION_SIZE = 6


def _shapes(size):
  config = finetune_dmcr.get_config()
  config.agent, config.dreamerv3.size = 'dreamerv3', size
  system = registry.build(config, _ACTION_SIZE, None).system
  batch = registry.build(config, _ACTION_SIZE, None).finetuning.example()
  return jax.eval_shape(system.init, jax.random.key(0), batch)['params']


def _count(tree) -> int:
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ('size', 'count'), [('size1m', 686_846), ('size12m', 10_494_158)]
)
def test_parameters_of_the_official_presets(size, count):
  """Of walker: images alone, six numbers of action."""
  assert _count(_shapes(size)) == count


def test_shapes_of_the_default():
  params = _shapes('size12m')
  widths = [
    params['image_encoder'][f'conv{i}']['kernel'].shape[-1] for i in range(4)
  ]
  assert widths == [32, 48, 64, 64]
  dynamics = params['action_dynamics']
  hidden, gates = (
    dynamics['gru'][name]['kernel'].shape for name in ('hidden', 'gates')
  )
  assert hidden == (8, 2048 // 8 + 3 * 256, 2048 // 8)
  assert gates == (8, 2048 // 8, 3 * 2048 // 8)
  feat = 2048 + 32 * 16
  assert params['critic']['mlp']['hidden0']['dense']['kernel'].shape[0] == feat
  assert params['critic']['out']['kernel'].shape == (256, 255)


def test_every_size_fits_the_image_decoder():
  """Its blocks make whole channels."""
  for size in networks.SIZES.values():
    assert 4 * size.depth % size.blocks == size.deter % size.blocks == 0
