"""Steps of systems, as benchmarks take them."""

import jax
import numpy as np
import pytest

from benchmarks import steps


def _traced(step):
  """Shapes of the next state and names of the metrics."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(step.learner().update, step.state, step.example, key)


@pytest.mark.parametrize('agent', ['dreamerv2', 'dreamerv3'])
def test_fine_tuning_can_be_traced(agent):
  step = steps.make_step('dmcr', 'float32', 'debug', agent)
  state, metrics = _traced(step)
  assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, step.state)
  assert {'loss/critic', 'skipped'} <= metrics.keys(), metrics.keys()


def test_pre_training_can_be_traced():
  step = steps.make_step('pretrain', 'float32', 'debug', 'diswm')
  state, metrics = _traced(step)
  assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, step.state)
  assert 'grad_norm/all' in metrics


@pytest.mark.parametrize('agent', ['dreamerv2', 'dreamerv3'])
def test_what_is_not_pre_trained_has_no_such_step(agent):
  with pytest.raises(ValueError, match=f"agent='{agent}' has no pre-training"):
    steps.make_step('pretrain', 'float32', 'debug', agent)
