"""drp_jax against what the official ContextWM code made of the same numbers.

tests/golden holds weights, inputs and random numbers that both were fed, and
what the original made of them (about.json: which commit). Written by
tests/parity/compare_contextwm.py.
"""

import functools

import golden_arrays
import pytest

from tests.parity import contextwm_ours as ours

_AGENTS = 'ipv', 'apv', 'dreamerv2'
_case = golden_arrays.case


def _check(agent, found):
  as_ours = functools.partial(ours.as_ours, agent)
  golden_arrays.check(agent, found, as_ours)


def _fed(agent):
  case = _case(agent)
  return agent, case['weights'], case['inputs']


def _agents(*quick):
  """All systems, those that add little as slow tests."""
  return pytest.mark.parametrize(
    'agent',
    [
      agent if agent in quick else pytest.param(agent, marks=pytest.mark.slow)
      for agent in _AGENTS
    ],
  )


@_agents('ipv')
def test_networks(agent):
  """Encoders, decoder with and without mask, RSSM: forward passes."""
  _check(agent, ours.networks(*_fed(agent)))


@_agents()
def test_acting(agent):
  _check(agent, ours.act(*_fed(agent)))


@pytest.mark.parametrize(
  'agent', ['ipv', pytest.param('apv', marks=pytest.mark.slow)]
)
def test_pre_training(agent):
  """Losses, gradients of all parameters, batch statistics."""
  _check(agent, ours.pretrain(*_fed(agent)))


@_agents()
def test_fine_tuning_of_the_world_model(agent):
  """Losses and gradients of all parameters."""
  _check(agent, ours.finetune(*_fed(agent)))


@_agents('ipv')
def test_actor_and_critic(agent):
  """Losses and gradients on an imagined rollout."""
  case = _case(agent)
  found = ours.behavior(
    agent, case['weights'], case['slow_critic'], case['inputs']
  )
  _check(agent, found)


@_agents('apv')
def test_optimizers(agent):
  """Moves under the original's gradients: clipping, decay, waiting groups."""
  case = _case(agent)
  _check(agent, ours.optimizer_steps(agent, case['weights'], case['rows']))


def test_formulas():
  """KL, lambda-returns, truncated normal, intrinsic bonus, random erasing."""
  found = ours.formulas(_case('formulas')['inputs'])
  assert found.keys() == _case('formulas')['rows'].keys()
  _check('formulas', found)


def test_all_that_the_original_did_is_looked_at():
  """By the functions that the tests above call, system by system."""
  assert set(_case('ipv')['rows']) == {
    'image encoder',
    'context maps',
    'image decoder, 1/4 of the context',
    'image decoder, whole context',
    'latent RSSM, observe',
    'latent RSSM, imagine',
    'action RSSM, observe',
    'action RSSM, imagine',
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
