"""The system in its debug preset, its variables and batches.

Beside conftest.py, so that `benchmarks.accelerator --check` has them without
the packages that reading videos needs.
"""

import dataclasses

import jax
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax.systems import registry, world_model
from drp_jax.systems.drp import drp

ACTION_SIZE = 2


@pytest.fixture(scope='session')
def config():
  """The debug preset of DMC Remastered: s also sees the embedding (D7)."""
  return finetune_dmcr.get_config('debug')


@pytest.fixture(scope='session')
def system(config) -> drp.DRP:
  return registry.build(config, ACTION_SIZE, None).system


@pytest.fixture(scope='session')
def variables(config, system):
  """All variables of `system`, none of them zero."""
  batch = registry.build(config, ACTION_SIZE, None).finetuning.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  return random_inputs.fill(shapes)


@pytest.fixture(scope='session')
def replay_batch(config):
  return random_inputs.replay_batch(config.dae.num_keypoints, ACTION_SIZE)


@pytest.fixture(scope='session')
def video_batch(config):
  return random_inputs.video_batch(config.dae.num_keypoints)


@pytest.fixture(scope='session')
def finetune_gradients(config, system, variables):
  """One fine-tuning step on one device that hands out its gradients.

  A function of (batch, weights: changes of the loss weights) that returns the
  gradients by parameter set, the state after the step and the metrics. The
  weights are traced, so one compilation serves all tests.
  """

  learner = random_inputs.recording(config, ACTION_SIZE)

  def step(state, batch, key, weights):
    changed = dataclasses.replace(
      system, weights=world_model.LossWeights(**weights)
    )
    return dataclasses.replace(learner, system=changed).update(
      state, batch, key
    )

  jitted = jax.jit(step)

  def call(batch, **changes):
    state = random_inputs.finetune_state(learner, variables)
    weights = dataclasses.asdict(system.weights) | changes
    weights = {name: float(value) for name, value in weights.items()}
    # With key 3, rounding moves a unit across its kink on several devices.
    state, metrics = jitted(state, batch, jax.random.key(4), weights)
    return {**state.model_opt, **state.behavior_opt}, state, metrics

  return call
