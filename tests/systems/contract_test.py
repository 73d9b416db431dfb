"""Every system answers the protocols that apply to it, as they are written."""

import inspect

import pytest

from configs import finetune_dmcr
from drp_jax.systems import contract, learner, registry


def _built(agent):
  config = finetune_dmcr.get_config('debug')
  config.agent = agent
  return registry.build(config, 2, None)


def _members(protocol) -> dict[str, object]:
  """Names of attributes, and methods, of a protocol and those it extends."""
  found = {}
  for part in protocol.__mro__:
    if part.__module__ == contract.__name__:
      found |= dict.fromkeys(part.__annotations__)
      found |= {k: v for k, v in vars(part).items() if not k.startswith('_')}
  return found


def _protocols(built):
  applies = {
    contract.System: True,
    contract.Pretrains: built.pretraining is not None,
    contract.SeesMotion: built.system.sees_motion,
    contract.Imagines: isinstance(built.finetuning, learner.InTurn),
  }
  return [protocol for protocol, own in applies.items() if own]


@pytest.mark.parametrize('agent', registry.SYSTEMS)
def test_a_system_answers_its_protocols(agent):
  built = _built(agent)
  for protocol in _protocols(built):
    for name, expected in _members(protocol).items():
      own = getattr(built.system, name)
      if inspect.isfunction(expected):
        names = list(inspect.signature(expected).parameters)[1:]
        assert list(inspect.signature(own).parameters) == names, name


@pytest.mark.parametrize('agent', registry.SYSTEMS)
def test_a_system_answers_no_protocol_that_does_not_apply(agent):
  built = _built(agent)
  known = set().union(*map(_members, _protocols(built)))
  for protocol in (contract.Pretrains, contract.SeesMotion, contract.Imagines):
    for name in _members(protocol).keys() - known:
      assert not hasattr(built.system, name), name


def test_members_are_found():
  assert {'init', 'pretrained'} <= _members(contract.System).keys()
  assert 'policy_step' in _members(contract.SeesMotion)
  assert 'policy_step' not in contract.SeesMotion.__annotations__


def test_the_greatest_entropy_is_of_the_systems_own_states():
  """ln(classes) for each categorical: 4 of 4; those of DisWM are normal."""
  for agent in registry.SYSTEMS:
    found = _built(agent).max_entropy
    assert found == pytest.approx(0.0 if agent == 'diswm' else 5.545, abs=1e-3)
  config = finetune_dmcr.get_config('debug')
  config.agent, config.rssm.classes = 'dreamerv3', 8
  built = registry.build(config, 2, None)
  assert built.max_entropy == pytest.approx(5.545, abs=1e-3)
