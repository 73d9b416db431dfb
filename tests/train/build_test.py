"""Tests of building from configs: errors by key, optimizer groups, batches."""

import jax
import numpy as np
import pytest

from configs import base
from drp_jax.train import build


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('dae.num_keypoints', 33),
    ('dae.num_keypoints', 0),
    ('dae.patch_size', 65),
    ('dae.mask_ratio', 1.0),
    ('data.clip_length', 26),
    ('data.clip_length', 1),
    ('replay.segment_length', 5),
    ('dae.width', 15),
    ('intrinsic.neighbours', 65),
  ],
)
def test_wrong_values_raise_and_name_their_key(key, value):
  config = base.get_config('debug')
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=rf'config\.{key}={value}'):
    build.system(config, 2, None)


def test_the_middle_layers_fit_each_other(config):
  system = build.system(config, 3, 'batch')
  model = system.model
  assert model.latent_dynamics.action_size == config.dae.width
  assert model.action_dynamics.action_size == model.actor.action_size == 3
  assert model.image_encoder.axis_name == system.axis_name == 'batch'
  assert model.image_decoder.axis_name == 'batch'
  joined = config.adapter.width + model.latent_dynamics.embed_size
  assert model.action_dynamics.embed_size == joined


def _rates(tx, params, updates):
  """Size of every parameter's step after some updates of unit gradients."""
  state = tx.init(params)
  gradients = jax.tree.map(np.ones_like, params)
  for _ in range(updates):
    change, state = tx.update(gradients, state, params)
  return {name: float(-x[0]) for name, x in change.items()}


_SLOW = {'dae', 'mae_decoder', 'latent_dynamics'}
_ENCODERS = {'image_encoder', 'context_encoder'}
_LEARNER = {'actor', 'critic'}


def _one_number_each(variables):
  return {name: np.zeros(1, np.float32) for name in variables['params']}


def test_groups_of_fine_tuning_have_their_rates(variables):
  """Adam's first step has the size of its rate."""
  config = base.get_config('paper')
  params = _one_number_each(variables)
  model = {k: v for k, v in params.items() if k not in _LEARNER}
  rates = _rates(build.model_optimizer(config), model, 1)
  for name, rate in rates.items():
    expected = 3e-5 if name in _SLOW else 3e-4  # D3
    np.testing.assert_allclose(rate, expected, rtol=1e-3, err_msg=name)
  learner = {k: params[k] for k in _LEARNER}
  rates = _rates(build.behavior_optimizer(config), learner, 1)
  np.testing.assert_allclose(list(rates.values()), 8e-5, rtol=1e-3)
  rates = _rates(build.pretrain_optimizer(config), model, 1)
  np.testing.assert_allclose(list(rates.values()), 3e-4, rtol=1e-3)


def test_encoders_can_be_frozen_at_first(variables):
  config = base.get_config('paper')
  config.optim.encoder_frozen_updates = 2
  params = _one_number_each(variables)
  model = {k: v for k, v in params.items() if k not in _LEARNER}
  for updates, frozen in ((2, True), (3, False)):
    rates = _rates(build.model_optimizer(config), model, updates)
    for name in _ENCODERS:
      assert (rates[name] == 0) == frozen
    assert rates['image_decoder'] > 0


def test_clips_become_batches_with_one_window():
  T = 4
  arrays = {
    'image': np.zeros((2, T, 64, 64, 3), np.uint8),
    'flow': np.zeros((2, T, 64, 64, 2), np.float16),
    'points': np.zeros((2, T, 3, 2), np.float32),
    'visible': np.ones((2, T, 3), bool),
  }
  batch = build.video_batch(arrays)
  np.testing.assert_array_equal(batch.motion.window_step[1], [0, 0, 1, 2])
  np.testing.assert_array_equal(batch.is_first[1], [True, False, False, False])
  assert batch.motion.window_step.dtype == np.int32
  assert batch.motion.flow is arrays['flow']


def test_example_batches_have_the_types_of_real_ones(config, replay_batch):
  example = build.example_replay_batch(config, 2)

  def kind(x):
    return np.dtype(x.dtype), x.shape[2:]

  assert jax.tree.map(kind, example) == jax.tree.map(kind, replay_batch)
