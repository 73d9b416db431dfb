"""Updates that are not finite: skipped inside, counted and kept outside."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from drp_jax import types
from drp_jax.runs import bad_steps


def _state(value):
  return types.PretrainState(
    step=jnp.int32(value),
    params={'w': jnp.full(2, value, jnp.float32)},
    collections={},
    opt_state=(jnp.float32(value),),
  )


@pytest.mark.parametrize(
  ('metrics', 'skipped'),
  [
    ({'loss/total': 1.0, 'grad_norm/all': 2.0}, False),
    ({'loss/total': np.nan, 'grad_norm/all': 2.0}, True),
    ({'loss/total': 1.0, 'grad_norm/all': np.inf}, True),
    ({'loss/total': 1.0, 'kl/z': np.nan}, False),
  ],
)
def test_one_of_two_states(metrics, skipped):
  new, old = _state(3), _state(2).replace(step=jnp.int32(3))
  state, found = jax.jit(bad_steps.guard)(new, old, metrics)
  jax.tree.map(np.testing.assert_array_equal, state, old if skipped else new)
  assert float(found.pop('skipped')) == skipped
  assert found.keys() == metrics.keys()


def _play(bad, flags, first=1):
  for number, flag in enumerate(flags, first):
    batch = {'x': np.full(3, number)}
    bad.add(number, batch, jnp.float32(flag), _state(number))
  bad.settle(_state(number), number)


def test_what_is_counted_and_kept(tmp_path, caplog):
  bad = bad_steps.BadSteps(tmp_path, 3, [0, 0])
  _play(bad, [0, 1, 0, 1, 1, 0, 1, 1])
  assert bad.total == 5 and bad.counts == [5, 2]
  assert caplog.text.count('is not finite, and was skipped') == 5
  folder = tmp_path / bad_steps.FOLDER
  # Of the first three.
  kept = sorted(int(path.name) for path in folder.iterdir())
  assert kept == [2, 4, 5]
  record = folder / f'{2:09d}'
  about = json.loads((record / 'about.json').read_text())
  assert about == {'update': 2, 'state_is_after_update': 3}
  with np.load(record / 'batch.npz', allow_pickle=False) as file:
    np.testing.assert_array_equal(file["['x']"], [2, 2, 2])
  with np.load(record / 'state.npz', allow_pickle=False) as file:
    np.testing.assert_array_equal(file[".params['w']"], [3.0, 3.0])
    assert sorted(file) == ['.opt_state[0]', ".params['w']", '.step']


def test_too_many_in_a_row_are_an_error_after_a_restart_too(tmp_path):
  bad = bad_steps.BadSteps(tmp_path, 3, [0, 0])
  _play(bad, [1, 1])
  again = bad_steps.BadSteps(tmp_path, 3, bad.counts)
  with pytest.raises(
    RuntimeError, match=r'3 updates in a row.*max_bad_steps=3.*is update 3'
  ):
    _play(again, [1], first=3)


def test_the_limit_is_positive(tmp_path):
  with pytest.raises(ValueError, match=r'config\.optim\.max_bad_steps=0'):
    bad_steps.BadSteps(tmp_path, 0, [0, 0])
