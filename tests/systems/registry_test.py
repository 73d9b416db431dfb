"""Tests of building from configs: errors by key, optimizer groups, batches."""

import jax
import numpy as np
import pytest

from configs import base
from drp_jax.systems import examples, optim, registry
from drp_jax.train import batches


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
    ('agent', 'dreamer'),
    ('motion', 'flow'),
    ('adapter.kind', 'linear'),
    ('prelar.rank', 'soft'),
    ('diswm.schedule', 'constant'),
    ('dreamerv3.size', 'size2m'),
    ('compute_dtype', 'float16'),
  ],
)
def test_wrong_values_raise_and_name_their_key(key, value):
  config = base.get_config('debug')
  config.update_from_flattened_dict({key: value})
  with pytest.raises(ValueError, match=rf'config\.{key}={value!r}'):
    registry.build(config, 2, None)


def test_the_middle_layers_fit_each_other(config):
  system = registry.build(config, 3, 'batch').system
  model = system.model
  assert system.deconstruction.dae.width == config.dae.width
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


_DRP_SLOW = {'dae', 'mae_decoder', 'latent_dynamics'}  # D3
_IPV_FROZEN = {'image_encoder', 'context_encoder', 'latent_dynamics'}
_FROZEN = {
  'drp': _IPV_FROZEN | {'dae', 'mae_decoder'},
  'ipv': _IPV_FROZEN,
  'apv': _IPV_FROZEN - {'context_encoder'},
  'prelar': _IPV_FROZEN - {'context_encoder'},
  'dreamerv2': set(),
  'diswm': set(),
  'dreamerv3': set(),
}
_LEARNER = {'actor', 'critic'}


def _config(agent, preset='paper'):
  config = base.get_config(preset)
  config.agent = agent
  return config


def _learner(config):
  """Also for numbers that no run may have."""
  return registry.SYSTEMS[config.agent].build(config, 2, None).finetuning


def _one_number_each(agent):
  """A parameter for every parameter set of the system."""
  config = _config(agent, 'debug')
  batch = registry.build(config, 2, None).finetuning.example()
  system = registry.build(config, 2, None).system
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  params = {name: np.zeros(1, np.float32) for name in shapes['params']}
  still = {'teacher'}  # tests/systems/diswm_test.py
  model = {k: v for k, v in params.items() if k not in _LEARNER | still}
  return model, {k: params[k] for k in _LEARNER}


@pytest.mark.parametrize(
  'agent', sorted(registry.SYSTEMS.keys() - {'dreamerv3'})
)
def test_groups_of_fine_tuning_have_their_rates(agent):
  """Adam's first step has the size of its rate."""
  config, (model, learner) = _config(agent), _one_number_each(agent)
  rates = _rates(_learner(config).model_tx, model, 1)
  slow = _DRP_SLOW if agent == 'drp' else set()
  for name, rate in rates.items():
    expected = 3e-5 if name in slow else 3e-4
    np.testing.assert_allclose(rate, expected, rtol=1e-3, err_msg=name)
  rates = _rates(_learner(config).behavior_tx, learner, 1)
  np.testing.assert_allclose(list(rates.values()), 8e-5, rtol=1e-3)
  rates = _rates(optim.pretraining(config), model, 1)
  np.testing.assert_allclose(list(rates.values()), 3e-4, rtol=1e-3)


def test_dreamerv3_has_one_rate_which_rises():
  config, (model, learner) = _config('dreamerv3'), _one_number_each('dreamerv3')
  config.dreamerv3.warmup = 4
  for updates, expected in ((1, 0.0), (3, 2e-5), (5, 4e-5), (7, 4e-5)):
    for tx, params in (
      (_learner(config).model_tx, model),
      (_learner(config).behavior_tx, learner),
    ):
      rates = list(_rates(tx, params, updates).values())
      np.testing.assert_allclose(rates, expected, rtol=1e-3)


@pytest.mark.parametrize('agent', registry.SYSTEMS)
def test_what_is_pre_trained_can_stand_still_at_first(agent):
  """All but the decoder: IPV's schedule, D3."""
  config, (model, _) = _config(agent), _one_number_each(agent)
  config.optim.encoder_frozen_updates = 2
  for updates, moved in ((2, set()), (3, _FROZEN[agent])):
    rates = _rates(_learner(config).model_tx, model, updates)
    still = {name for name, rate in rates.items() if rate == 0}
    assert still == _FROZEN[agent] - moved


@pytest.mark.parametrize(
  ('agent', 'groups'),
  [
    ('drp', [_DRP_SLOW, {'image_encoder', 'context_encoder'}]),
    ('ipv', [_FROZEN['ipv']]),
    ('apv', [_FROZEN['apv']]),
    ('prelar', [_FROZEN['prelar']]),
    ('dreamerv2', []),
  ],
)
def test_each_group_is_clipped_by_itself(agent, groups):
  """A set's huge gradient shrinks those of its group; the rest is one more."""
  config, (model, _) = _config(agent), _one_number_each(agent)
  config.optim.update(dict(eps=1e6, weight_decay=0.0))
  tx = _learner(config).model_tx
  rest = model.keys() - set().union(*groups)
  for group in [*groups, rest]:
    name = min(group)
    gradients = jax.tree.map(np.ones_like, model) | {
      name: np.full(1, 1e5, np.float32)
    }
    updates, _ = tx.update(gradients, tx.init(model), model)
    # With this eps, Adam's first step is the gradient times rate / eps.
    shrunk = {k for k, x in updates.items() if abs(float(x[0])) < 1e-12}
    assert shrunk == set(group) - {name}


def test_erasing_spares_the_tasks_that_the_config_names():
  """By default the one of the lineage."""
  for erasing, task, changes, expected in (
    (True, 'drawer-close', {}, True),
    (True, 'drawer-open', {}, False),
    (False, 'drawer-close', {}, False),
    (True, 'drawer-open', {'no_erasing_in': ()}, True),
    (True, 'reach', {'no_erasing_in': ('reach', 'door-lock')}, False),
  ):
    config = _config('ipv', 'debug')
    config.image.update(context_erasing=erasing, **changes)
    config.task = task
    model = registry.build(config, 2, None).system.model
    assert model.context_erasing == expected


def test_nothing_can_be_loaded_where_nothing_is_pre_trained():
  config = _config('dreamerv2', 'debug')
  config.init_from = 'runs/pretrain'
  with pytest.raises(ValueError, match="'dreamerv2'.*init_from='runs/pretrain"):
    registry.build(config, 2, None)


def test_slots_for_actions():
  for agent, width in (('drp', 3), ('ipv', 50), ('dreamerv2', 3)):
    model = registry.build(_config(agent, 'debug'), 3, None).system.model
    assert model.action_dynamics.action_size == width
    assert model.actor.action_size == 3
  with pytest.raises(ValueError, match="51 numbers.*50.*agent='ipv'"):
    registry.build(_config('ipv', 'debug'), 51, None)


@pytest.mark.parametrize('agent', registry.SYSTEMS)
def test_example_batches_have_motion_where_it_is_seen(agent):
  config = _config(agent, 'debug')
  built = registry.build(config, 2, None)
  replay = built.finetuning.example()
  video = examples.video_batch(built.num_keypoints)
  assert (replay.motion is None) == (video.motion is None) == (agent != 'drp')
  assert built.num_keypoints == (4 if agent == 'drp' else None)
  arrays = {'image': video.image}
  assert batches.video_batch(arrays).motion is None


def test_clips_become_batches_with_one_window():
  T = 4
  arrays = {
    'image': np.zeros((2, T, 64, 64, 3), np.uint8),
    'flow': np.zeros((2, T, 64, 64, 2), np.float16),
    'points': np.zeros((2, T, 3, 2), np.float32),
    'visible': np.ones((2, T, 3), bool),
  }
  batch = batches.video_batch(arrays)
  np.testing.assert_array_equal(batch.motion.window_step[1], [0, 0, 1, 2])
  np.testing.assert_array_equal(batch.is_first[1], [True, False, False, False])
  assert batch.motion.window_step.dtype == np.int32
  assert batch.motion.flow is arrays['flow']


def test_example_batches_have_the_types_of_real_ones(config, replay_batch):
  example = registry.build(config, 2, None).finetuning.example()

  def kind(x):
    return np.dtype(x.dtype), x.shape[2:]

  assert jax.tree.map(kind, example) == jax.tree.map(kind, replay_batch)
