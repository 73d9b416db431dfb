"""Where an episode terminates: what systems learn of it, and in which trees."""

import functools
import json

import jax
import ml_collections
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr, finetune_metaworld
from drp_jax.runs import workdir
from drp_jax.systems import registry

_B, _T, _A = 2, 7, 2
_AGENTS = tuple(agent for agent in registry.SYSTEMS if agent != 'dreamerv3')


@functools.cache
def _made(agent, continuation):
  config = finetune_dmcr.get_config('debug')
  config.agent = agent
  config.behavior.continuation = continuation
  system = registry.build(config, _A, None).system
  example = registry.build(config, _A, None).finetuning.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), example)
  return config, system, shapes


@functools.cache
def _step(agent, continuation):
  """An update of a batch: gradients by parameter set, and metrics."""
  config, _, shapes = _made(agent, continuation)
  variables = random_inputs.fill(shapes)
  learner = random_inputs.recording(config, _A)
  jitted = jax.jit(learner.update)

  def call(batch):
    state = random_inputs.finetune_state(learner, variables)
    state, metrics = jitted(state, batch, jax.random.key(3))
    # Waits for the step, which may read the batch's own memory until then.
    return jax.device_get(({**state.model_opt, **state.behavior_opt}, metrics))

  return call


def _batch(agent, terminal_at=None):
  """Segments; the first one's episode terminates at an entry, if given."""
  num_keypoints = registry.build(_made(agent, True)[0], 1, None).num_keypoints
  batch = random_inputs.replay_batch(num_keypoints, _A, _B, _T)
  if terminal_at is not None:
    batch.is_terminal[0, terminal_at] = True
  return batch


def _changed(one, other) -> set[str]:
  return {
    name
    for name, tree in one.items()
    if any(
      np.any(x != y)
      for x, y in zip(
        jax.tree.leaves(tree), jax.tree.leaves(other[name]), strict=True
      )
    )
  }


@pytest.mark.parametrize('agent', _AGENTS)
@pytest.mark.parametrize('suite', [finetune_dmcr, finetune_metaworld])
def test_trees_of_the_papers_suites_have_no_such_head(agent, suite):
  assert not suite.get_config('paper').behavior.continuation
  without, with_head = (_made(agent, on)[2]['params'] for on in (False, True))
  added = with_head.keys() - without.keys()
  assert added == {'continuation'} and without.keys() <= with_head.keys()
  for name, tree in without.items():
    assert jax.tree.structure(tree) == jax.tree.structure(with_head[name])


@pytest.mark.parametrize(
  'agent',
  [
    'dreamerv2',
    'apv',
    *(
      pytest.param(agent, marks=pytest.mark.slow)
      for agent in ('drp', 'ipv', 'prelar', 'diswm')
    ),
  ],
)
def test_a_termination_changes_what_is_learned(agent):
  """At any entry, the last four too, of which the bonus knows nothing."""
  step = _step(agent, True)
  base, metrics = step(_batch(agent))
  for entry in (2, _T - 1):
    found, other = step(_batch(agent, entry))
    assert _changed(found, base) >= {'continuation', 'actor', 'critic'}
    assert other['loss/continuation'] != metrics['loss/continuation']
    assert other['behavior/discount'] < metrics['behavior/discount']
    assert other['loss/image'] == metrics['loss/image']


def test_a_config_that_is_older_than_the_head_has_none(tmp_path):
  """Workdirs of before go on, and their models open."""
  config, _, shapes = _made('dreamerv2', False)
  workdir.compare(tmp_path, config, 'finetune', None, {}).record(tmp_path)
  recorded = json.loads((tmp_path / 'config.json').read_text())
  del recorded['behavior']['continuation'], recorded['loss']['continuation']
  (tmp_path / 'config.json').write_text(json.dumps(recorded))
  found = workdir.read_config(tmp_path)
  assert found == ml_collections.ConfigDict(json.loads(config.to_json()))
  system = registry.build(found, _A, None).system
  example = registry.build(found, _A, None).finetuning.example()
  again = jax.eval_shape(system.init, jax.random.key(0), example)
  assert jax.tree.structure(again) == jax.tree.structure(shapes)


def test_without_the_head_a_termination_changes_nothing():
  step = _step('dreamerv2', False)
  base, metrics = step(_batch('dreamerv2'))
  found, other = step(_batch('dreamerv2', 3))
  assert not _changed(found, base)
  assert metrics.keys() == other.keys()
  assert not {'loss/continuation', 'behavior/discount'} & metrics.keys()


def test_a_reward_at_a_termination_is_learned_within_a_joined_segment():
  """APV has no head but the behavioral one, which a bonus keeps from the last
  four entries of a segment, but not from the last steps of an episode."""
  step = _step('apv', True)

  def learned(entry):
    batch = _batch('apv', entry)
    batch.is_last[0, entry] = True
    base, _ = step(batch)
    batch.reward[0, entry] -= 100.0
    found, _ = step(batch)
    return 'reward' in _changed(found, base)

  assert learned(2)
  assert not learned(_T - 1)
