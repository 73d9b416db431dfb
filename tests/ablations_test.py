"""Tests of the paper's ablations: what differs, what is gone, that they train.

Two steps of both stages are run (slow tests) for the two that differ most from
DRP; of the other networks the losses are traced, and the modules that differ
are computed by their own tests (tests/models/dae_test.py, adapter_test.py).
"""

import dataclasses
import functools

import flax.traverse_util
import jax
import numpy as np
import pytest
import random_inputs

from configs import ablations
from drp_jax import types
from drp_jax.convert import checkpoints
from drp_jax.systems import registry
from drp_jax.train import evaluate

_A, _B, _T = 2, 2, 6
_STAGES = [
  (name, stage)
  for name, ablation in ablations.ABLATIONS.items()
  for stage in ablations.STAGES
  if stage != 'pretrain' or ablation.pretrains
]
# Modules of the parameter tree that DRP has and an ablation has not, and those
# that it has instead: the first names of what differs.
_TREES = {
  'global_flow': ({'dae', 'mae_decoder'}, {'flow_encoder'}),
  'without_intra': (
    {
      'dae/blocks_0/intra_key',
      'dae/blocks_0/intra_norm',
      'dae/blocks_0/intra_query',
      'dae/blocks_0/intra_value',
      'dae/tokens/mat',
    },
    {'dae/aggregate'},
  ),
  'without_inter': (
    {
      'dae/blocks_0/inter_key',
      'dae/blocks_0/inter_norm',
      'dae/blocks_0/inter_query',
      'dae/blocks_0/inter_value',
    },
    set(),
  ),
  'without_coordinate': (
    {'dae/tokens/coordinate', 'mae_decoder/coordinate'},
    set(),
  ),
  'mlp_projection': (
    {
      f'adapter/{name}'
      for name in ('in', 'norm0', 'block0_in', 'block0_out', 'norm_out')
    },
    {'adapter/dense'},
  ),
}
# What has another number of values, and which.
_SIZES = {
  'patch_12': {
    'dae/tokens/content/kernel': (288, 16),
    'mae_decoder/out/kernel': (16, 288),
    'mae_decoder/out/bias': (288,),
  },
  'patch_24': {
    'dae/tokens/content/kernel': (1152, 16),
    'mae_decoder/out/kernel': (16, 1152),
    'mae_decoder/out/bias': (1152,),
  },
}


_NETWORKS = (*_TREES, 'without_temporal')


def _config(name, stage='dmcr'):
  return ablations.get_config(f'{name},{stage},debug')


def _flat(config) -> dict:
  return flax.traverse_util.flatten_dict(config.to_dict(), sep='.')


@functools.cache
def _system(name):
  return registry.build(_config(name), _A, None).system


def _shapes(system, config):
  batch = registry.build(config, _A, None).finetuning.example()
  return jax.eval_shape(system.init, jax.random.key(0), batch)


@functools.cache
def _variables(name):
  """None of them zero."""
  return random_inputs.fill(_shapes(_system(name), _config(name)))


@functools.cache
def _parent_shapes():
  config = ablations.finetune_dmcr.get_config('debug')
  system = registry.build(config, _A, None).system
  return _flat_shapes(_shapes(system, config)['params'])


def _flat_shapes(params):
  flat = flax.traverse_util.flatten_dict(params, sep='/')
  return {path: leaf.shape for path, leaf in flat.items()}


def _nonzero(gradients) -> set[str]:
  """Parameter sets with a gradient; all must be finite."""
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
  return {
    name
    for name, tree in gradients.items()
    if any(np.any(leaf != 0) for leaf in jax.tree.leaves(tree))
  }


@pytest.mark.parametrize(('name', 'stage'), _STAGES)
def test_an_ablation_changes_what_it_says_of_its_parent(name, stage):
  ablation = ablations.ABLATIONS[name]
  for variant, preset in ((f'{name},{stage}', 'paper'), *_presets(name, stage)):
    config = ablations.get_config(variant)
    parent = ablations.STAGES[stage].get_config(preset)
    parent.agent = ablation.parent
    assert config.is_locked
    one, other = _flat(parent), _flat(config)
    assert one.keys() == other.keys()
    changed = {key: other[key] for key in one if one[key] != other[key]}
    if preset == 'paper':
      assert changed == ablation.changes
      assert 1 <= len(changed) <= 3
    else:  # whose K may be that of the ablation
      assert changed.items() <= ablation.changes.items()


def _presets(name, stage):
  return [(f'{name},{stage},{preset}', preset) for preset in ('nano', 'debug')]


def test_the_values_of_the_tables():
  """The middle ones are DRP's own."""
  for key, prefix, values in (
    ('dae.num_keypoints', 'keypoints', (8, 16, 32)),
    ('dae.mask_ratio', 'mask_ratio', (0.3, 0.5, 0.7)),
    ('dae.patch_size', 'patch', (12, 16, 24)),
  ):
    own = {
      ablation.changes[key]
      for name, ablation in ablations.ABLATIONS.items()
      if name.startswith(prefix)
    }
    assert own | {_flat(ablations.pretrain.get_config())[key]} == set(values)


@pytest.mark.parametrize(
  ('variant', 'message'),
  [
    ('without_inter', "not 'without_inter'"),
    ('without,dmcr', "'without_inter'.*not 'without,dmcr'"),
    ('without_inter,robot', "'metaworld'.*not 'without_inter,robot'"),
    ('without_inter,dmcr,tiny', "not 'tiny'"),
    ('after_ipv,pretrain', 'after_ipv differs in fine-tuning only'),
  ],
)
def test_a_wrong_variant_raises(variant, message):
  with pytest.raises(ValueError, match=message):
    ablations.get_config(variant)


@pytest.mark.parametrize('name', ablations.ABLATIONS)
def test_parameter_trees(name):
  """Against DRP's: what is gone, what is new, what has another size."""
  if ablations.ABLATIONS[name].parent != 'drp':
    return
  base, found = _parent_shapes(), _flat_shapes(_variables(name)['params'])
  gone, new = _TREES.get(name, (set(), set()))

  def under(paths, prefixes):
    chosen = {p for p in paths if any(p.startswith(x) for x in prefixes)}
    for x in prefixes:
      assert any(p.startswith(x) for p in chosen), x
    return chosen

  assert base.keys() - found.keys() == under(base, gone)
  assert found.keys() - base.keys() == under(found, new)
  resized = {
    path: found[path]
    for path in found.keys() & base.keys()
    if found[path] != base[path]
  }
  assert resized == _SIZES.get(name, {})
  pretrained = set(_system(name).pretrained)
  assert pretrained <= {path.split('/')[0] for path in found}


@pytest.mark.parametrize('name', _NETWORKS)
def test_losses_of_both_stages_fit(name):
  """Traced, not compiled."""
  config, system = _config(name), _system(name)
  params = dict(_variables(name)['params'])
  collections = {k: v for k, v in _variables(name).items() if k != 'params'}

  def finetuning(params, collections, keys):
    batch = registry.build(config, _A, None).finetuning.example((_B, _T))
    return system.world_model_loss(
      params, collections, batch, keys, lambda feat, _: (feat[:, :2, 0], None)
    )

  def pretraining(params, collections, keys):
    batch = registry.build(config, 1, None).pretraining.example((_B, _T))
    return system.pretrain_loss(params, collections, batch, keys)

  keys = random_inputs.keys(0, _B)
  _, out = jax.eval_shape(finetuning, params, collections, keys)
  shape = lambda x: (np.shape(x), x.dtype)  # noqa: E731
  before = jax.tree.map(shape, collections)
  assert jax.tree.map(shape, dict(out.collections)) == before
  _, (after, metrics) = jax.eval_shape(pretraining, params, collections, keys)
  assert jax.tree.map(shape, dict(after)) == before
  assert ('loss/mae' in metrics) == (name != 'global_flow')


def _pretrain_state(name):
  system, variables = _system(name), _variables(name)
  batch = registry.build(
    _config(name, 'pretrain'), 1, None
  ).pretraining.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  params = {key: variables['params'][key] for key in shapes['params']}
  collections = {
    kind: {key: variables[kind][key] for key in tree}
    for kind, tree in shapes.items()
    if kind != 'params'
  }
  opt_state = random_inputs.recording_sgd().init(params)
  return types.PretrainState(np.int32(0), params, collections, opt_state)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['global_flow', 'without_intra'])
def test_two_steps_of_pre_training(name):
  """Loss finite; what should learn has a gradient."""
  K = _config(name).dae.num_keypoints
  batch = random_inputs.video_batch(K, _B, _T)
  learner = dataclasses.replace(
    registry.build(_config(name), _A, None).pretraining,
    tx=random_inputs.recording_sgd(),
  )
  step, state = jax.jit(learner.update), _pretrain_state(name)
  before = state.collections
  for _ in range(2):
    state, metrics = step(state, batch, jax.random.key(1))
    assert _nonzero(state.opt_state) == set(_system(name).pretrained)
    assert np.isfinite(metrics['loss/total'])
  if name == 'global_flow':
    moved = jax.tree.map(
      lambda a, b: bool(np.any(a != b)),
      state.collections['batch_stats']['flow_encoder'],
      before['batch_stats']['flow_encoder'],
    )
    assert all(jax.tree.leaves(moved))
  assert state.collections['constants'] == before['constants']


@pytest.mark.slow
@pytest.mark.parametrize('name', ['global_flow', 'without_intra'])
def test_two_steps_of_fine_tuning(name):
  config = _config(name)
  learner = random_inputs.recording(config, _A)
  state = random_inputs.finetune_state(learner, _variables(name))
  batch = random_inputs.replay_batch(config.dae.num_keypoints, _A, _B, _T)
  step = jax.jit(learner.update)
  for _ in range(2):
    state, metrics = step(state, batch, jax.random.key(1))
    assert np.isfinite(metrics['loss/total'])
    gradients = {**state.model_opt, **state.behavior_opt}
    assert _nonzero(gradients) == set(state.params)


def test_global_flow_acts_on_the_flow_of_one_frame():
  """aggregate = step by step; zero at first entries; not its points."""
  config, system = _config('global_flow'), _system('global_flow')
  variables = _variables('global_flow')
  batch = random_inputs.video_batch(config.dae.num_keypoints, _B, _T)
  module = system.deconstruction

  @jax.jit
  def aggregate(motion):
    return module.apply(
      variables, motion, batch.is_first, method=module.aggregate
    )

  a_agg = aggregate(batch.motion)
  np.testing.assert_array_equal(a_agg[:, 0], 0)
  assert (np.abs(a_agg[:, 1:]).max(-1) > 1e-3).all()
  other = batch.motion.replace(points=batch.motion.points + 1)
  np.testing.assert_array_equal(aggregate(other), a_agg)
  flow = batch.motion.flow.copy()
  flow[:, 3] *= -1
  moved = np.abs(aggregate(batch.motion.replace(flow=flow)) - a_agg).max((0, 2))
  np.testing.assert_array_equal(moved > 0, np.arange(_T) == 3)
  step = jax.jit(
    lambda *args: module.apply(variables, *args, None, method=module.step)
  )
  for t in range(_T):
    motion = jax.tree.map(lambda x, t=t: x[:, t], batch.motion)
    found, cache = step(motion, batch.is_first[:, t])
    assert cache is None
    np.testing.assert_allclose(found, a_agg[:, t], atol=1e-5)
  assert system.initial_carry(_B, 4).cache is None


def test_global_flow_has_no_masked_autoencoder_to_evaluate():
  """Of the held-out metrics those of motion are left out, nothing else."""
  config, system = _config('global_flow', 'pretrain'), _system('global_flow')
  batch = registry.build(config, 1, None).pretraining.example(
    (4, evaluate.CONTEXT_STEPS + 2)
  )
  (metrics, _) = jax.eval_shape(
    lambda variables: evaluate._held_out(system, variables, batch)[::2],
    _variables('global_flow'),
  )
  assert metrics.keys() == {
    'held_out/recon_mse',
    'held_out/open_loop_mse',
    'held_out/copy_last_mse',
  }


@pytest.fixture(scope='module')
def ipv_run(tmp_path_factory):
  """A workdir as IPV's pre-training leaves it, and what it holds."""
  config = ablations.pretrain.get_config('debug')
  config.agent = 'ipv'
  batch = registry.build(config, 1, None).pretraining.example()
  system = registry.build(config, 1, None).system
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  variables = random_inputs.fill(shapes, 8)
  workdir = tmp_path_factory.mktemp('ipv')
  checkpoints.save(workdir, variables, {})
  return workdir, variables


def _loaded(name, workdir):
  config = _config(name)
  config.init_from = str(workdir)
  return registry.build(config, _A, None).finetuning.init()


def _same(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_after_ipv_a_agg_starts_without_influence(ipv_run):
  """E7: all of IPV's is loaded, but the rows of the actions it never saw."""
  workdir, ipv = ipv_run
  state = _loaded('after_ipv', workdir)
  params = jax.device_get(state.params)
  for name in ('image_encoder', 'image_decoder', 'context_encoder'):
    _same(params[name], ipv['params'][name])
  _same(dict(state.collections['batch_stats']), ipv['batch_stats'])
  theirs = ipv['params']['latent_dynamics']
  ours = params['latent_dynamics']
  width = _config('after_ipv').dae.width
  assert ours['action_in']['kernel'].shape[0] == width
  assert not ours['action_in']['kernel'].any()
  _same(ours['action_in']['bias'], theirs['action_in']['bias'])
  rest = [name for name in theirs if name != 'action_in']
  _same({k: ours[k] for k in rest}, {k: theirs[k] for k in rest})


@pytest.mark.slow
@pytest.mark.parametrize(
  'name', ['ipv_without_dynamics', 'without_pretraining']
)
def test_what_is_left_out_stays_random(name, ipv_run):
  workdir, ipv = ipv_run
  state = jax.device_get(_loaded(name, workdir))
  fresh = jax.device_get(
    registry.build(_config(name), _A, None).finetuning.init()
  )
  _same(state.params['latent_dynamics'], fresh.params['latent_dynamics'])
  kept = fresh.params if name == 'without_pretraining' else ipv['params']
  _same(state.params['image_decoder'], kept['image_decoder'])


def test_what_cannot_start_at_zero_is_named(ipv_run):
  config = _config('after_ipv')
  config.init_from = str(ipv_run[0])
  for path in ('latent_dynamics/action_in', 'dae/norm/scale'):
    config.init_zero = (path,)
    with pytest.raises(ValueError, match=f"config.init_zero=.*'{path}'"):
      registry.build(config, _A, None).finetuning.init()


def test_observations_of_ablations_are_those_of_drp():
  """So one replay and one set of shards serves all of them."""
  for name, ablation in ablations.ABLATIONS.items():
    system = _system(name)
    assert system.sees_motion == (ablation.parent == 'drp')
    batch = registry.build(_config(name), _A, None).finetuning.example()
    assert isinstance(batch.motion, types.Motion) == system.sees_motion
