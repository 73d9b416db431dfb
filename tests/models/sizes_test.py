"""Parameter counts and shapes at the paper's size (spec of the baselines)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import finetune_dmcr, finetune_metaworld, pretrain
from drp_jax.models import rssm
from drp_jax.ops import noise
from drp_jax.systems import registry

_ACTION_SIZE = 4


def _count(tree) -> int:
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@functools.cache
def _system(config_file, agent='drp'):
  config = config_file.get_config('paper')
  config.agent = agent
  return config, registry.build(config, _ACTION_SIZE, None).system


@functools.cache
def _variables(config_file, agent='drp'):
  config, system = _system(config_file, agent)
  batch = registry.build(config, _ACTION_SIZE, None).finetuning.example()
  return jax.eval_shape(system.init, jax.random.key(0), batch)


def _params(config_file, agent='drp'):
  return _variables(config_file, agent)['params']


def test_image_towers():
  params = _params(finetune_metaworld)
  assert _count(params['image_encoder']) == 1_562_112
  assert _count(params['context_encoder']) == 1_562_112
  attention = {
    name: tree
    for name, tree in params['image_decoder'].items()
    if name.startswith('context')
  }
  assert len(attention) == 2
  assert _count(attention) == 259_776
  assert _count(params['image_decoder']) - _count(attention) == 7_519_227


@pytest.mark.parametrize(
  ('embed_size', 'count'),
  [(3072, 14_745_600), (2048, 13_697_024), (5120, 16_842_752)],
)
def test_rssm_of_the_lineage(embed_size, count):
  """Action slots of 50, as there: latent, Meta-World's and DMCR's model."""
  model = rssm.RSSM(1024, 1024, 32, 32, action_size=50, embed_size=embed_size)
  shapes = jax.eval_shape(
    lambda key: model.init(
      key,
      jnp.zeros([1, 2, embed_size]),
      jnp.zeros([1, 2, 50]),
      jnp.zeros([1, 2], bool),
      None,
      method='observe',
    ),
    jax.random.key(0),
  )
  assert _count(shapes) == count


def test_apv_has_the_plain_decoder():
  params = _params(finetune_metaworld, 'apv')
  assert _count(params['image_decoder']) == 7_519_227
  assert _count(params['image_encoder']) == 1_562_112
  assert not {'context_encoder', 'aux_reward'} & params.keys()


def test_plain_cnn_of_dreamerv2():
  params = _params(finetune_metaworld, 'dreamerv2')
  assert _count(params['image_encoder']) == 1_551_312
  assert _count(params['image_decoder']) == 11_152_275
  # Observes 1536 numbers; its slot is as wide as the action.
  dynamics = 14_745_600 + (1536 - 3072 + _ACTION_SIZE - 50) * 1024
  assert _count(params['action_dynamics']) == dynamics


@pytest.mark.parametrize(
  ('config_file', 'action_model'),
  [(finetune_metaworld, 13_697_024), (finetune_dmcr, 16_842_752)],
)
def test_ipv_is_as_large_as_its_lineage(config_file, action_model):
  """Without a concatenated embedding, and with it."""
  params = _params(config_file, 'ipv')
  assert _count(params['latent_dynamics']) == 14_745_600
  assert _count(params['action_dynamics']) == action_model
  world = {k: v for k, v in params.items() if k not in ('actor', 'critic')}
  assert _count(world) == 41_948_253 - 13_697_024 + action_model


@pytest.mark.parametrize(
  ('config_file', 'observed'),
  [(finetune_metaworld, 1024), (finetune_dmcr, 1024 + 3072)],
)
def test_rssms_of_drp(config_file, observed):
  params = _params(config_file)
  # Against the counts above: other widths of the action and of what is seen.
  latent = 14_745_600 + (256 - 50) * 1024
  assert _count(params['latent_dynamics']) == latent
  action = 14_745_600 + (_ACTION_SIZE - 50 + observed - 3072) * 1024
  assert _count(params['action_dynamics']) == action


def test_heads():
  params = _params(finetune_metaworld)
  for name in ('reward', 'aux_reward', 'critic'):
    assert _count(params[name]) == 1_301_201
  assert _count(params['actor']) == 1_301_201 + 401 * (2 * _ACTION_SIZE - 1)


def test_dual_attention_encoder():
  """Six matrices of both attentions (no output matrix, B2), norms, MLP."""
  d, values, bands = 256, 2 * 16 * 16, 64
  block = 6 * d * d + 3 * 2 * d + (4 * d * d + 4 * d) + (4 * d * d + d)
  tokens = (values + 1) * d + (bands + 1) * d + d
  count = _count(_params(finetune_metaworld)['dae'])
  assert count == 6 * block + tokens + 2 * d
  # The spec counts output matrices, a learned time table (B6) and no [MAT].
  np.testing.assert_allclose(count + 12 * d * d + 25 * d - d, 6.46e6, rtol=1e-3)


def test_adapter():
  width = 1024
  block = 2 * width + (width + 1) * 2 * width + (2 * width + 1) * width
  expected = (2048 + 1) * width + 2 * block + 2 * width
  assert _count(_params(finetune_metaworld)['adapter']) == expected


def test_parameter_sets_of_algorithm_2():
  names = {
    'dae',
    'mae_decoder',
    'image_encoder',
    'context_encoder',
    'image_decoder',
    'latent_dynamics',
  }
  config, system = _system(finetune_metaworld)
  video = registry.build(config, 1, None).pretraining.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), video)
  assert set(shapes['params']) == names
  more = {
    'adapter',
    'action_dynamics',
    'reward',
    'aux_reward',
    'actor',
    'critic',
  }
  assert set(_params(finetune_metaworld)) == names | more
  for name in names:  # what fine-tuning loads fits
    shape = jax.tree.map(lambda x: x.shape, shapes['params'][name])
    assert shape == jax.tree.map(
      lambda x: x.shape, _params(finetune_metaworld)[name]
    )


def _traced(fn, *args):
  """What `fn` returns, and what every module in it did, in shapes.

  Modules by path, the last call counts; methods but __call__ as path.method.
  Parts of states and of contexts as one more name.
  """
  found = {}

  def listen(call, args, kwargs, context):
    out = call(*args, **kwargs)
    name = '/'.join(context.module.path)
    if context.method_name != '__call__':
      name += f'.{context.method_name}'
    for path, leaf in jax.tree.leaves_with_path(out):
      if isinstance(leaf, nn.Variable):  # of running statistics
        continue
      part = jax.tree_util.keystr(path, simple=True, separator='.')
      found[f'{name}:{part}' if part else name] = leaf.shape
    return out

  with nn.intercept_methods(listen):
    out = jax.eval_shape(fn, *args)
  return out, found


def _shapes_of_pretraining(B, T):
  """Algorithm 1, of `B` clips of `T` frames."""
  N, K, D = B * T, 16, 256
  tokens, encoder = (2 * B, T, K + 1, D), {}  # masked and unmasked pass
  for i in range(6):
    for name in ('query', 'key', 'value'):
      encoder[f'dae/blocks_{i}/intra_{name}'] = tokens
      encoder[f'dae/blocks_{i}/inter_{name}'] = (2 * B, K + 1, T, D)
    encoder[f'dae/blocks_{i}/mlp_in'] = (2 * B, T, K + 1, 4 * D)
    encoder[f'dae/blocks_{i}'] = tokens
  return {
    ':patches': (B, T, K, 512),  # 2 P^2
    ':hidden': (B, T, K),
    'dae/tokens/content': (2 * B, T, K, D),
    'dae/tokens/coordinate': (2 * B, T, K, D),
    'dae/tokens': tokens,
    **encoder,
    'dae': tokens,
    ':tokens': (B, T, K + 1, D),  # slot 0 is a_agg
    'mae_decoder/embed': (B, T, K + 1, 128),
    'mae_decoder/block0': (B, T, K + 1, 128),
    'mae_decoder/block1': (B, T, K + 1, 128),
    'mae_decoder': (B, T, K, 512),
    ':recon': (B, T, K, 512),
    'image_encoder/conv_in': (N, 32, 32, 48),
    'image_encoder/stage0_layer1': (N, 32, 32, 48),
    'image_encoder/stage1_layer1': (N, 16, 16, 96),
    'image_encoder/stage2_layer1': (N, 8, 8, 192),
    '.encode': (B, T, 3072),
    'context_encoder:1.0': (B, 32, 32, 48),  # not looked at
    '.context:fine': (B, 16, 16, 96),
    '.context:coarse': (B, 8, 8, 192),
    'latent_dynamics/action_in': (B, T, 1024),
    'latent_dynamics/post_embed': (B, T, 1024),
    '.observe_z:0.deter': (B, T, 1024),
    '.observe_z:0.stoch': (B, T, 32, 32),
    '.observe_z:0.logits': (B, T, 32, 32),
    '.observe_z:1.logits': (B, T, 32, 32),
    'image_decoder/dense': (B, T, 3072),
    'image_decoder/context0': (N, 8, 8, 192),
    'image_decoder/stage0_layer0': (N, 8, 8, 192),
    'image_decoder/stage0_layer1': (N, 8, 8, 96),
    'image_decoder/context1': (N, 16, 16, 96),
    'image_decoder/stage1_layer1': (N, 16, 16, 48),
    'image_decoder/stage2_layer1': (N, 32, 32, 24),
    'image_decoder/conv_out': (N, 64, 64, 3),
    'image_decoder': (B, T, 64, 64, 3),
  }


def _shapes_of_finetuning(B, T, observed):
  """What Algorithm 2 adds; s observes `observed` numbers."""
  hidden_layers = {
    f'{name}/mlp/dense{i}': (B, T, 400)
    for name in ('reward', 'aux_reward')
    for i in range(4)
  }
  return {
    'adapter/in': (B, T, 1024),
    'adapter/block1_in': (B, T, 2048),
    'adapter': (B, T, 1024),
    '.adapt': (B, T, observed),
    'action_dynamics/action_in': (B, T, 1024),
    '.observe_s:0.deter': (B, T, 1024),
    '.observe_s:0.stoch': (B, T, 32, 32),
    '.observe_s:0.logits': (B, T, 32, 32),
    '.observe_s:1.logits': (B, T, 32, 32),
    **hidden_layers,
    'reward': (B, T),
    'aux_reward': (B, T),
    '.finetune:0.z_decoded': (B, T, 64, 64, 3),
    '.finetune:1.s_decoded': (B, T, 64, 64, 3),
  }


def _shapes_of_imagination(N):
  """`N` starts, 15 steps; returns use 16 values."""
  return {
    'actor/mlp/out': (N, 2 * _ACTION_SIZE),
    'actor:0': (N, _ACTION_SIZE),
    'actor:1': (N, _ACTION_SIZE),
    'action_dynamics.img_step:deter': (N, 1024),
    'action_dynamics.img_step:stoch': (N, 32, 32),
    'action_dynamics.img_step:logits': (N, 32, 32),
    'reward': (15, N),
    'critic': (15, N),  # of the slow one, before it: 16
  }


def _assert_shapes(found, expected):
  assert {name: found.get(name) for name in expected} == expected


@pytest.mark.slow  # fine-tuning has all of it
def test_shapes_in_pre_training():
  config, system = _system(finetune_metaworld)
  B, T = 16, 25
  paper = pretrain.get_config('paper')
  assert (paper.data.batch_size, paper.data.clip_length) == (B, T)
  batch = registry.build(config, 1, None).pretraining.example((B, T))

  def loss(variables, batch, key):
    params = variables.pop('params')
    keys = noise.example_keys(key, 0, B)
    return system.pretrain_loss(params, variables, batch, keys)[0]

  variables = dict(_variables(finetune_metaworld))
  out, found = _traced(loss, variables, batch, jax.random.key(0))
  assert out.shape == ()
  _assert_shapes(found, _shapes_of_pretraining(B, T))


@pytest.mark.parametrize(
  ('config_file', 'B', 'observed'),
  [
    (finetune_dmcr, 16, 3072 + 1024),
    pytest.param(finetune_metaworld, 50, 1024, marks=pytest.mark.slow),
  ],
)
def test_shapes_in_fine_tuning(config_file, B, observed):
  config, system = _system(config_file)
  T = 50
  assert (config.replay.batch_size, config.replay.segment_length) == (B, T)
  batch = registry.build(config, _ACTION_SIZE, None).finetuning.example((B, T))

  def world_model_loss(variables, batch, key):
    params = variables.pop('params')
    keys = noise.example_keys(key, 0, B)
    loss, out = system.world_model_loss(
      params,
      variables,
      batch,
      keys,
      lambda feat, _: (feat[:, : T - 4, 0], None),
    )
    return loss, system.start_states(out)

  def behavior_loss(variables, start, key):
    params = variables.pop('params')
    learner = {name: params[name] for name in ('actor', 'critic')}
    keys = noise.example_keys(key, 0, B)
    return system.behavior_loss(
      learner,
      params['critic'],
      params,
      variables,
      start,
      np.zeros(B * T, bool),
      keys,
    )[0]

  variables = _variables(config_file)
  (loss, start), found = _traced(
    world_model_loss, dict(variables), batch, jax.random.key(0)
  )
  assert loss.shape == ()
  assert start.deter.shape == (B * T, 1024)
  assert start.stoch.shape == (B * T, 32, 32)
  _assert_shapes(found, _shapes_of_pretraining(B, T))
  _assert_shapes(found, _shapes_of_finetuning(B, T, observed))
  loss, found = _traced(
    behavior_loss, dict(variables), start, jax.random.key(0)
  )
  assert loss.shape == ()
  _assert_shapes(found, _shapes_of_imagination(B * T))
