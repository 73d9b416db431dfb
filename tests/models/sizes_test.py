"""Parameter counts and shapes at the paper's size (spec of the baselines)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base, finetune_dmcr
from drp_jax import types
from drp_jax.models import rssm
from drp_jax.ops import noise
from drp_jax.train import build

_ACTION_SIZE = 4


def _count(tree) -> int:
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@functools.cache
def _system(config_file, agent='drp'):
  config = config_file.get_config('paper')
  config.agent = agent
  return config, build.system(config, _ACTION_SIZE, None)


@functools.cache
def _params(config_file, agent='drp'):
  config, system = _system(config_file, agent)
  batch = build.example_replay_batch(config, _ACTION_SIZE)
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  return shapes['params']


def test_image_towers():
  params = _params(base)
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
  params = _params(base, 'apv')
  assert _count(params['image_decoder']) == 7_519_227
  assert _count(params['image_encoder']) == 1_562_112
  assert not {'context_encoder', 'aux_reward'} & params.keys()


def test_plain_cnn_of_dreamerv2():
  params = _params(base, 'dreamerv2')
  assert _count(params['image_encoder']) == 1_551_312
  assert _count(params['image_decoder']) == 11_152_275
  # Observes 1536 numbers; its slot is as wide as the action.
  dynamics = 14_745_600 + (1536 - 3072 + _ACTION_SIZE - 50) * 1024
  assert _count(params['action_dynamics']) == dynamics


@pytest.mark.parametrize(
  ('config_file', 'action_model'),
  [(base, 13_697_024), (finetune_dmcr, 16_842_752)],
)
def test_ipv_is_as_large_as_its_lineage(config_file, action_model):
  """Without Meta-World's concatenated embedding (base) and with it."""
  params = _params(config_file, 'ipv')
  assert _count(params['latent_dynamics']) == 14_745_600
  assert _count(params['action_dynamics']) == action_model
  world = {k: v for k, v in params.items() if k not in ('actor', 'critic')}
  assert _count(world) == 41_948_253 - 13_697_024 + action_model


@pytest.mark.parametrize(
  ('config_file', 'observed'), [(base, 1024), (finetune_dmcr, 1024 + 3072)]
)
def test_rssms_of_drp(config_file, observed):
  params = _params(config_file)
  # Against the counts above: other widths of the action and of what is seen.
  latent = 14_745_600 + (256 - 50) * 1024
  assert _count(params['latent_dynamics']) == latent
  action = 14_745_600 + (_ACTION_SIZE - 50 + observed - 3072) * 1024
  assert _count(params['action_dynamics']) == action


def test_heads():
  params = _params(base)
  for name in ('reward', 'aux_reward', 'critic'):
    assert _count(params[name]) == 1_301_201
  assert _count(params['actor']) == 1_301_201 + 401 * (2 * _ACTION_SIZE - 1)


def test_dual_attention_encoder():
  """Six matrices of both attentions (no output matrix, B2), norms, MLP."""
  d, values, bands = 256, 2 * 16 * 16, 64
  block = 6 * d * d + 3 * 2 * d + (4 * d * d + 4 * d) + (4 * d * d + d)
  tokens = (values + 1) * d + (bands + 1) * d + d
  assert _count(_params(base)['dae']) == 6 * block + tokens + 2 * d


def test_adapter():
  width = 1024
  block = 2 * width + (width + 1) * 2 * width + (2 * width + 1) * width
  expected = (2048 + 1) * width + 2 * block + 2 * width
  assert _count(_params(base)['adapter']) == expected


def test_parameter_sets_of_algorithm_2():
  names = {
    'dae',
    'mae_decoder',
    'image_encoder',
    'context_encoder',
    'image_decoder',
    'latent_dynamics',
  }
  config, system = _system(base)
  video = build.example_video_batch(config)
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
  assert set(_params(base)) == names | more
  for name in names:  # what fine-tuning loads fits
    shape = jax.tree.map(lambda x: x.shape, shapes['params'][name])
    assert shape == jax.tree.map(lambda x: x.shape, _params(base)[name])


def test_shapes_on_the_way():
  config, system = _system(finetune_dmcr)
  B, T, K, P = 2, 25, config.dae.num_keypoints, config.dae.patch_size

  def array(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct((B, T, *shape), dtype)

  batch = types.ReplayBatch(
    image=array(64, 64, 3, dtype=jnp.uint8),
    motion=types.Motion(
      flow=array(64, 64, 2, dtype=jnp.float16),
      points=array(K, 2),
      visible=array(K, dtype=bool),
      window_step=array(dtype=jnp.int32),
    ),
    action=array(_ACTION_SIZE),
    reward=array(),
    is_first=array(dtype=bool),
    is_terminal=array(dtype=bool),
  )

  def forward(batch, key):
    keys = noise.example_keys(key, 0, B)
    init_key, key = jax.random.split(key)
    keys = noise.split(keys, 6)
    variables = system.init(init_key, batch)
    motion = system.deconstruction.apply(
      variables, batch.motion, batch.is_first, keys[0]
    )
    out, _ = system.model.apply(
      variables,
      batch,
      motion['tokens'][:, :, 0],
      keys[1:4],
      keys[4:],
      decode_z=True,
      method='finetune',
      mutable=['batch_stats'],
    )
    return dict(out, **motion, z_feat=out['z'].feat, s_feat=out['s'].feat)

  out = jax.eval_shape(forward, batch, jax.random.key(0))
  shapes = {
    'patches': (K, 2 * P * P),
    'recon': (K, 2 * P * P),
    'hidden': (K,),
    'tokens': (K + 1, 256),
    'embed': (3072,),
    'z_decoded': (64, 64, 3),
    's_decoded': (64, 64, 3),
    'reward': (),
    'aux_reward': (),
    'z_feat': (2048,),
    's_feat': (2048,),
  }
  for name, shape in shapes.items():
    assert out[name].shape == (B, T, *shape), name
  assert out['context'].coarse.shape == (B, 8, 8, 192)
  assert out['context'].fine.shape == (B, 16, 16, 96)
