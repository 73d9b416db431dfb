"""Tests of configs: locked, complete, read, and presets that keep to sizes."""

import importlib
import pathlib
import re

import pytest

from configs import base, demo
from configs import preprocess as preprocess_config
from drp_jax.systems import registry

_ROOT = pathlib.Path(__file__).parents[1]
_RUN_FILES = tuple(
  path.stem
  for path in sorted((_ROOT / 'configs').glob('*.py'))
  if path.stem
  not in ('__init__', 'ablations', 'base', 'preprocess', 'extract', 'demo')
)

# What a preset may change: sizes, and how long and how often. Never what the
# algorithm does: losses, rates, discounts, ratios.
_SIZES = {
  'preset',
  'dae.num_keypoints',
  'dae.num_blocks',
  'dae.width',
  'dae.decoder_width',
  'dae.decoder_blocks',
  'image.depth',
  'image.num_layers',
  'image.num_heads',
  'rssm.deter_size',
  'rssm.hidden',
  'rssm.groups',
  'rssm.classes',
  'adapter.width',
  'prelar.latent_size',
  'diswm.depth',
  'diswm.stoch_size',
  'diswm.width',
  'adapter.num_blocks',
  'heads.width',
  'heads.depth',
  'dreamerv3.size',
  'behavior.horizon',
  'intrinsic.queue_size',
  'intrinsic.projection',
  'intrinsic.neighbours',
  'data.batch_size',
  'replay.batch_size',
  'replay.segment_length',
  'env.shadow_size',
  'env.texture_size',
  'env.episode_length',
  'pretrain.num_steps',
  'pretrain.log_every',
  'pretrain.eval_every',
  'pretrain.eval_batches',
  'pretrain.checkpoint_every',
  'finetune.num_steps',
  'finetune.prefill',
  'finetune.initial_updates',
  'finetune.train_every',
  'finetune.log_every',
  'finetune.eval_every',
  'finetune.eval_episodes',
  'finetune.checkpoint_every',
}
# What is no size, but what a small decoder needs (N44).
_NANO = {'image.context_mask_ratio', 'image.local_start'}
# Of the sizes, what only the tests' preset may change.
_DEBUG_ONLY = {
  'prelar.latent_size',
  'diswm.depth',
  'diswm.stoch_size',
  'diswm.width',
  'dae.decoder_blocks',
  'behavior.horizon',
  'intrinsic.neighbours',
  'env.episode_length',
  'finetune.prefill',
  'finetune.initial_updates',
  'finetune.train_every',
  'finetune.log_every',
}


def _flat(config, prefix='') -> dict:
  out = {}
  for key, value in config.items():
    if hasattr(value, 'items'):
      out |= _flat(value, f'{prefix}{key}.')
    else:
      out[prefix + key] = value
  return out


def _load(name, preset):
  return importlib.import_module(f'configs.{name}').get_config(preset)


@pytest.mark.parametrize('agent', registry.SYSTEMS)
@pytest.mark.parametrize('preset', base.PRESETS)
@pytest.mark.parametrize('name', ('base', *_RUN_FILES))
def test_every_preset_builds_every_system_and_its_optimizers(
  name, preset, agent
):
  config = _load(name, preset)
  assert config.is_locked
  assert config.preset == preset
  assert config.agent == 'drp'
  config.agent = agent
  built = registry.build(config, 3, None)
  assert built.system.model.actor.action_size == 3
  assert (built.pretraining is None) == (not built.system.pretrained)
  assert config.dae.width % 2 == config.dae.decoder_width % 2 == 0
  assert config.intrinsic.neighbours <= config.intrinsic.queue_size


@pytest.mark.parametrize('variant', preprocess_config.VARIANTS)
def test_every_variant_of_preprocessing_is_locked(variant):
  config = preprocess_config.get_config(variant)
  assert config.is_locked
  sources = {'bodies': 'embedded', 'unseen_bodies': 'sim'}
  assert config.source == sources.get(variant, variant)


@pytest.mark.parametrize('variant', demo.VARIANTS)
def test_the_demo_is_made_of_the_run_files(variant):
  config = demo.get_config(variant)
  assert config.is_locked
  preset = 'nano' if variant == 'demo' else 'debug'
  for name, part in (
    ('pretrain', config.pretrain),
    ('finetune_dmcr', config.finetune),
  ):
    assert part.is_locked
    plain, changed = _flat(_load(name, preset)), _flat(part)
    assert plain.keys() == changed.keys()
    different = {key for key in plain if plain[key] != changed[key]}
    assert different <= _SIZES | {'task', 'optim.lr'}, different - _SIZES
    registry.build(part, 3, None)


def test_preprocessing_and_the_agent_extract_alike():
  agent, videos = base.get_config(), preprocess_config.get_config()
  agent_extract, extract = _flat(agent.extract), _flat(videos.extract)
  different = {k for k in extract if extract[k] != agent_extract[k]}
  assert agent_extract.keys() == extract.keys()
  assert different <= {'grounded_sam.prompt'}  # other things are to be seen
  assert agent.data.clip_length == videos.data.clip_length


@pytest.mark.parametrize('name', ('base', *_RUN_FILES, 'preprocess'))
def test_unknown_preset_raises_and_says_which_there_are(name):
  with pytest.raises(ValueError, match=r"\('.*', '.*'\), not 'tiny'"):
    _load(name, 'tiny')


def test_a_typo_raises_and_names_itself():
  config = base.get_config()
  with pytest.raises(AttributeError, match='patchsize'):
    config.dae.patchsize = 12
  with pytest.raises(KeyError, match='patchsize'):
    config.update_from_flattened_dict({'dae.patchsize': 12})
  with pytest.raises(AttributeError, match='patchsize'):
    _ = config.dae.patchsize


@pytest.mark.parametrize(
  ('key', 'value'),
  [('dae.width', 'wide'), ('optim.lr', '1e-3'), ('env.factors', 'body')],
)
def test_a_wrong_type_raises(key, value):
  config = base.get_config()
  with pytest.raises(TypeError):
    config.update_from_flattened_dict({key: value})


@pytest.mark.parametrize('preset', base.PRESETS[1:])
@pytest.mark.parametrize('name', ('base', *_RUN_FILES))
def test_presets_change_sizes_only(name, preset):
  paper, other = _flat(_load(name, 'paper')), _flat(_load(name, preset))
  assert paper.keys() == other.keys()
  changed = {key for key in paper if paper[key] != other[key]}
  allowed = _SIZES if preset == 'debug' else _SIZES - _DEBUG_ONLY
  if preset in ('nano', 'debug'):
    allowed = allowed | _NANO
  assert changed <= allowed, changed - allowed


def test_run_files_change_what_they_say_in_every_preset():
  """Save sizes: what two cores can do need not differ between run files."""
  for name in _RUN_FILES:
    changes = []
    for preset in base.PRESETS:
      plain, config = _flat(base.get_config(preset)), _flat(_load(name, preset))
      assert plain.keys() == config.keys()
      changed = {k: v for k, v in config.items() if plain[k] != v}
      changes.append({k: v for k, v in changed.items() if k not in _SIZES})
    assert all(change == changes[0] for change in changes), name


def test_metaworld_is_as_the_lineage_ran_it():
  config = _flat(_load('finetune_metaworld', 'paper'))
  expected = {
    'adapter.concat_embed': False,
    'env.action_repeat': 1,
    'env.episode_length': 500,
    'env.suite': 'metaworld',
    'finetune.eval_episodes': 10,
    'finetune.eval_every': 10_000,
    'finetune.initial_updates': 100,
    'finetune.num_steps': 255_000,
    'finetune.prefill': 5_000,
    'finetune.train_every': 5,
    'image.context_erasing': True,
    'image.no_erasing_in': ('drawer-open',),
    'intrinsic.scale': 1.0,
    'loss.free_nats': 0.0,
    'optim.encoder_frozen_updates': 100,
    'replay.batch_size': 50,
    'replay.capacity': 1_000_000,
    'replay.prioritize_ends': True,
    'replay.segment_length': 50,
  }
  assert {key: config[key] for key in expected} == expected


def test_every_key_is_read_somewhere():
  """As an attribute, or whole sections by `to_dict` into named arguments."""
  source = '\n'.join(
    path.read_text(encoding='utf-8')
    for folder in ('drp_jax', 'experiments')
    for path in (_ROOT / folder).rglob('*.py')
  )
  for key in _flat(base.get_config()):
    section, _, name = key.rpartition('.')
    top = key.partition('.')[0]
    if re.search(rf'config\.({section}|{top})\.to_dict\(\)', source):
      assert re.search(rf'\b{name}: ', source), key
    else:
      assert re.search(rf'\.{name}\b', source), key
