"""drp_jax against ContextWM's code with its discount head switched on.

As tests/golden_test.py, of arrays that tests/parity/compare_contextwm.py wrote
(tests/golden/about_continuation.json: from which commit). Two episodes
terminate, one of them in the middle of its segment.
"""

import functools

import golden_arrays
import numpy as np
import pytest

from tests.parity import contextwm_ours as ours

_CASES = 'ipv_continuation', 'dreamerv2_continuation'


_case = golden_arrays.case


@pytest.mark.parametrize(
  'name', [_CASES[1], pytest.param(_CASES[0], marks=pytest.mark.slow)]
)
def test_what_a_head_of_continuation_takes_part_in(name):
  """Losses and gradients of world model, actor and critic; a rollout's."""
  found = ours.continuation(name, _case(name))
  assert found.keys() == _case(name)['rows'].keys()
  golden_arrays.check(name, found, functools.partial(ours.as_ours, name))


@pytest.mark.parametrize('name', _CASES)
def test_the_rollouts_differ_from_those_without(name):
  """Discounts of what the original imagined: true at first, then predicted."""
  case = _case(name)
  rollout = case['rows']['continuation: a rollout']
  terminal = case['inputs']['is_terminal'].reshape(-1)
  assert terminal.sum() == 2
  np.testing.assert_allclose(
    rollout['discounts'][0], np.where(terminal, 0.0, 0.99), rtol=1e-6
  )
  assert rollout['discounts'][1:].std() > 0.01
  assert (rollout['weights'][1:, terminal] == 0).all()
  assert (rollout['weights'][1:, ~terminal] > 0).all()
  terms = case['rows']['fine-tuning: loss terms']
  assert 0.01 < terms['continuation'] < 10
