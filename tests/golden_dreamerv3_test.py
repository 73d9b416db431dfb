"""drp_jax's DreamerV3 against what the official code made of the same numbers.

tests/golden/dreamerv3.npz holds weights, inputs and noise that both were fed,
and what the original made of them (about_dreamerv3.json: which commit). Written
by tests/parity/compare_dreamerv3.py.
"""

import functools

import golden_arrays
import jax
import numpy as np

from drp_jax.systems import registry
from tests.parity import contextwm_ours
from tests.parity import dreamerv3_ours as ours

_case = functools.partial(golden_arrays.case, 'dreamerv3')


def _check(found):
  golden_arrays.check('dreamerv3', found, ours.as_ours)


def test_networks():
  """Block GRU, RSSM with unimix, encoder, decoder, heads: forward passes."""
  _check(ours.networks(_case()['weights'], _case()['inputs']))


def test_acting():
  _check(ours.act(_case()['weights'], _case()['inputs']))


def test_losses():
  """Every term, gradients of all parameters, the range of returns."""
  case = _case()
  _check(ours.losses(case['weights'], case['slow_critic'], case['inputs']))


def test_optimizer():
  """Clipping, LaProp and its warm-up on the original's gradients.

  Of some arrays, since none moves by what another does.
  """

  def some(arrays):
    names = 'enc/', 'rew/', 'pol/head/'
    return {k: x for k, x in arrays.items() if k.startswith(names)}

  rows = _case()['rows']
  found = ours.optimizer_steps(_case()['weights'], some(rows['gradients']))
  ((row, moves),) = found.items()
  expected = ours.as_ours(some(rows[row]))
  assert jax.tree.structure(moves) == jax.tree.structure(expected)
  for name, difference in contextwm_ours.differences(moves, expected):
    assert difference < golden_arrays.TOLERANCE, f'{name} by {difference:.1e}'


def test_formulas():
  """Two-hot, KL, both returns, their normalizer, the slow critic."""
  _check(ours.formulas(_case()['numbers']))


def test_all_weights_have_a_place():
  """And none is used twice."""
  config = ours.small_config()
  batch = registry.build(config, ours.GOLDEN.actions, None).finetuning.example()
  init = ours.small_system().init
  expected = jax.eval_shape(init, jax.random.key(0), batch)['params']
  found = ours.convert(_case()['weights'])
  assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, expected)


def test_all_that_the_original_did_is_looked_at():
  """By the functions that the tests above call."""
  assert set(_case()['rows']) == {
    'image encoder',
    'image decoder',
    'block GRU',
    'RSSM, observe',
    'RSSM, a step ahead',
    'heads',
    'acting',
    'loss terms',
    'range of returns after the step',
    'gradients',
    'clipping and LaProp, three steps',
    'two-hot: mean',
    'two-hot: cross-entropy',
    'KL of categoricals with unimix',
    'lambda-returns',
    'return normaliser, three updates',
    'slow critic, an update',
  }
