"""drp_jax against what the official PreLAR code made of the same numbers.

As tests/golden_test.py, of arrays that tests/parity/compare_prelar.py wrote
(tests/golden/about_prelar.json: from which commit).
"""

import functools

import golden_arrays
import numpy as np
import pytest

from tests.parity import contextwm_ours as ours

_case = functools.partial(golden_arrays.case, 'prelar')


def _check(found):
  golden_arrays.check(
    'prelar', found, functools.partial(ours.as_ours, 'prelar')
  )


def _fed():
  case = _case()
  return 'prelar', case['weights'], case['inputs']


def test_networks():
  """Encoders, decoder, RSSM driven by latent actions: forward passes."""
  _check(ours.networks(*_fed()))


@pytest.mark.slow
def test_acting():
  _check(ours.act(*_fed()))


def test_pre_training():
  """Losses, gradients of all parameters, batch statistics.

  In theirs consistency has a value and no gradient (T1), and so in ours.
  """
  found = ours.pretrain(*_fed())
  _check(found)
  terms = found['pre-training: loss terms']
  assert terms['consistency'] > 0
  np.testing.assert_allclose(
    terms['total'],
    sum(
      terms[name]
      for name in ('image', 'kl', 'kl of latent actions', 'consistency')
    ),
    rtol=1e-5,
  )


@pytest.mark.slow
def test_fine_tuning_of_the_world_model():
  """Losses and gradients of all parameters."""
  _check(ours.finetune(*_fed()))


@pytest.mark.slow
def test_actor_and_critic():
  """Losses and gradients: the actor's come through the action encoder."""
  case = _case()
  found = ours.behavior(
    'prelar', case['weights'], case['slow_critic'], case['inputs']
  )
  _check(found)


@pytest.mark.slow
def test_optimizers():
  """Moves under the original's gradients: clipping, decay, waiting groups."""
  case = _case()
  _check(ours.optimizer_steps('prelar', case['weights'], case['rows']))


def test_all_that_the_original_did_is_looked_at():
  assert set(_case()['rows']) == {
    'image encoder',
    'image decoder',
    'inverse dynamics',
    'action encoder',
    'RSSM, observe',
    'RSSM, imagine',
    'acting',
    'pre-training: loss terms',
    'pre-training: gradients',
    'batch statistics after a step',
    'fine-tuning: posterior states',
    'fine-tuning: loss terms',
    'fine-tuning: gradients',
    'actor and critic: losses',
    'actor and critic: gradients',
    'optimizer of pre-training',
    'optimizers of the world model',
    'optimizers of actor and critic',
  }
