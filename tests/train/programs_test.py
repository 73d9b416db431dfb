"""What the programs of training steps hold, as GPUs and TPUs get them.

Steps are traced and lowered for both, which needs neither of them.
"""

import collections
import functools
import re

import jax
import pytest

from benchmarks import steps

_STEPS = [
  ('pretrain', 'drp'),
  ('dmcr', 'drp'),
  ('dmcr', 'dreamerv3'),
  *(
    pytest.param(stage, agent, marks=pytest.mark.slow)
    for stage, agent in (
      ('pretrain', 'ipv'),
      ('pretrain', 'prelar'),
      ('pretrain', 'diswm'),
      ('dmcr', 'ipv'),
      ('dmcr', 'prelar'),
      ('dmcr', 'diswm'),
      ('dmcr', 'dreamerv2'),
    )
  ),
]
_PLATFORMS = 'cuda', 'tpu'


@functools.cache
def _traced(stage, agent, dtype):
  step = steps.make_step(stage, dtype, 'debug', agent)
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.jit(step.learner().update).trace(
    step.state, step.example, key
  ), step


@functools.cache
def _text(stage, agent, dtype):
  """StableHLO for accelerators."""
  traced, _ = _traced(stage, agent, dtype)
  return traced.lower(lowering_platforms=_PLATFORMS).as_text()


@pytest.mark.parametrize(('stage', 'agent'), _STEPS)
def test_a_step_is_traced_once(stage, agent):
  """Its new state has the types of the old one, weak ones too."""
  traced, step = _traced(stage, agent, 'float32')
  count = len(jax.tree.leaves(step.state))
  before, after = traced.jaxpr.in_avals[:count], traced.jaxpr.out_avals[:count]
  assert len(after) == count > 100
  for old, new in zip(before, after, strict=True):
    assert (new.shape, new.dtype) == (old.shape, old.dtype)
    assert not new.weak_type and not old.weak_type


@pytest.mark.parametrize(('stage', 'agent'), _STEPS)
def test_a_step_never_asks_the_host(stage, agent):
  text = _text(stage, agent, 'float32')
  targets = set(re.findall(r'custom_call @([\w.$]+)', text))
  assert not {name for name in targets if 'callback' in name}, targets
  assert not re.search(r'\b(infeed|outfeed|send|recv)\b', text)


@pytest.mark.parametrize(('stage', 'agent'), _STEPS)
def test_a_step_scatters_nothing(stage, agent):
  """GPUs would add in an order that differs from run to run."""
  text = _text(stage, agent, 'float32')
  # Gathers of maps and tokens are there, so the pattern finds what it should.
  found = set(
    re.findall(r'"?stablehlo\.(gather|scatter|select_and_scatter)', text)
  )
  assert found == {'gather'}


@pytest.mark.parametrize(('stage', 'agent'), _STEPS)
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_a_step_computes_nothing_in_double_precision(stage, agent, dtype):
  text = _text(stage, agent, dtype)
  types = collections.Counter(re.findall(r'tensor<[\dx]*(\w+)>', text))
  assert types['f32'] > 100 and not types['f64'], types
