"""drp_jax's DisWM against what the official code made of the same numbers.

tests/golden/diswm.npz holds weights, inputs and noise that both were fed, and
what the original made of them (about_diswm.json: which commit). Written by
tests/parity/compare_diswm.py, which says what was changed in it on the way.
"""

import functools

import golden_arrays
import jax
import numpy as np
import pytest

from drp_jax.systems import registry
from tests.parity import diswm_ours as ours

_case = functools.partial(golden_arrays.case, 'diswm')


def _check(found):
  golden_arrays.check('diswm', found, ours.as_ours)


def _fed():
  return _case()['weights'], _case()['inputs']


def test_networks():
  """VAE, RSSM with normal states observing and imagining, heads."""
  _check(ours.networks(*_fed()))


@pytest.mark.slow
def test_acting():
  _check(ours.act(*_fed()))


def test_pre_training():
  """Losses, and gradients of all parameters."""
  _check(ours.pretrain(*_fed()))


@pytest.mark.slow
def test_fine_tuning_of_the_world_model():
  """Losses, distillation among them, and gradients of all that learns."""
  _check(ours.finetune(*_fed()))


def test_weight_of_distillation():
  """Of both schedules as intended, and of the constant that is released."""
  found = ours.distill_weights()
  _check(found)
  assert found['weight of distillation']['released'].ptp() == 0


@pytest.mark.slow
def test_actor_and_critic():
  """Losses and gradients, with a policy of plain normals."""
  weights, inputs = _fed()
  _check(ours.behavior(weights, _case()['slow_critic'], inputs))


@pytest.mark.slow
def test_optimizers():
  """Moves under the original's gradients: clipping, no decay."""
  _check(ours.optimizer_steps(_case()['weights'], _case()['rows']))


def test_formulas():
  """KLs of states and codes, distillation, returns."""
  _check(ours.formulas(_case()['numbers']))


def test_all_weights_have_a_place():
  """And none is used twice."""
  weights = _case()['weights']
  system = ours.small_system(ours.depth(weights))
  batch = registry.build(
    ours.small_config(ours.depth(weights)), ours.GOLDEN.actions, None
  ).finetuning.example()
  expected = jax.eval_shape(system.init, jax.random.key(0), batch)['params']
  found = ours.convert(weights)
  assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, expected)


def test_all_that_the_original_did_is_looked_at():
  """By the functions that the tests above call."""
  assert set(_case()['rows']) == {
    'VAE encoder',
    'VAE decoder',
    'RSSM, observe',
    'RSSM, imagine',
    'heads',
    'acting',
    'pre-training: loss terms',
    'pre-training: gradients',
    'fine-tuning: posterior states',
    'fine-tuning: loss terms',
    'fine-tuning: gradients',
    'weight of distillation',
    'actor and critic: losses',
    'actor and critic: gradients',
    'optimizer of pre-training',
    'optimizers of the world model',
    'optimizers of actor and critic',
    'KL of states',
    'KL of codes',
    'distillation',
    'lambda-returns',
  }
