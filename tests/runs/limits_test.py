"""Any value of any number of any config either is possible or is named.

The keys are those of the configs, so a setting cannot be forgotten in the table
that is tested.
"""

import importlib
import math
import pathlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import (
  ablations,
  base,
  demo,
  finetune_dmcr,
  finetune_metaworld,
  preprocess,
  pretrain,
)
from configs.studies import base as study_base
from drp_jax.runs import limits, ranges
from drp_jax.systems import registry
from experiments import study


def _study(name):
  """The config that `--config=name` is."""
  path, _, argument = name.partition(':')
  module = path.removesuffix('.py').replace('/', '.')
  arguments = [argument] if argument else []
  return importlib.import_module(module).get_config(*arguments)


def _demo(variant):
  """What the demo has beside the settings of its stages."""
  config = demo.get_config(variant).copy_and_resolve_references()
  return {k: v for k, v in config.items() if k not in _STAGES}


_STAGES = ('preprocess', 'pretrain', 'finetune')

# As `registry.check` has them: what all systems read, and what one alone does.
_TABLES = {
  'BASE': ranges.BASE | registry.ranges(),
  'PREPROCESS': ranges.PREPROCESS,
  'STUDY': ranges.STUDY,
  'DEMO': ranges.DEMO,
}

# Name of a table -> all configs that it is of.
_CONFIGS = {
  'BASE': [
    *(
      module.get_config(preset)
      for module in (base, pretrain, finetune_dmcr, finetune_metaworld)
      for preset in base.PRESETS
    ),
    *(
      ablations.get_config(f'{name},{stage}')
      for name, ablation in ablations.ABLATIONS.items()
      for stage in ablations.STAGES
      if stage != 'pretrain' or ablation.pretrains
    ),
    *(
      demo.get_config(variant)[stage]
      for variant in demo.VARIANTS
      for stage in ('pretrain', 'finetune')
    ),
  ],
  'PREPROCESS': [
    *(preprocess.get_config(variant) for variant in preprocess.VARIANTS),
    *(demo.get_config(variant).preprocess for variant in demo.VARIANTS),
  ],
  'STUDY': [study_base.get_config(), *map(_study, study.names())],
  'DEMO': [_demo(variant) for variant in demo.VARIANTS],
}
_KEYS = sorted(_TABLES['BASE'])


def _is_number(value):
  return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric(config):
  """Keys and values of all settings that are numbers, or tuples of some."""
  return {
    key: value
    for key, value in limits.leaves(config)
    if _is_number(value)
    or (isinstance(value, tuple) and any(map(_is_number, value)))
  }


@pytest.mark.parametrize('name', _CONFIGS)
def test_every_number_of_every_config_has_a_range(name):
  table = _TABLES[name]
  found = set().union(*map(_numeric, _CONFIGS[name]))
  for key in sorted(found - table.keys()):
    pytest.fail(
      f'Add a row to {name} in drp_jax/runs/ranges.py, or to the ranges of a'
      f' system in drp_jax/systems/: {key!r}: (smallest'
      ' possible value, largest possible value),'
    )
  for key in sorted(table.keys() - found):
    pytest.fail(f'{key!r} of {name} is no setting.')
  for key, (low, high) in table.items():
    assert low < high, key


def test_every_config_file_is_among_them():
  root = pathlib.Path(base.__file__).parent
  assert {path.stem for path in root.glob('*.py')} == {
    *('__init__', 'ablations', 'base', 'demo', 'extract', 'finetune_dmcr'),
    *('finetune_metaworld', 'preprocess', 'pretrain'),
  }, 'Add the new file to _CONFIGS.'


@pytest.mark.parametrize('name', _CONFIGS)
def test_every_value_of_every_config_is_possible(name):
  for config in _CONFIGS[name]:
    limits.check(config, _TABLES[name])
    if name == 'BASE':
      limits.check_run(config)
    elif name == 'PREPROCESS':
      limits.check_preprocessing(config)


def _config(values):
  config = base.get_config('debug')
  config.update_from_flattened_dict(values)
  return config


def _base_value(key):
  return dict(limits.leaves(base.get_config('debug')))[key]


def _values(value):
  """Values of the type of `value`."""
  if isinstance(value, tuple):
    return st.tuples(*map(_values, value))
  if isinstance(value, float):
    return st.floats(allow_nan=True, allow_infinity=True)
  return st.integers(-(2**40), 2**40) | st.integers(-2, 70)


def _is_possible(key, value):
  low, high = _TABLES['BASE'][key]
  numbers = value if isinstance(value, tuple) else (value,)
  return all(low <= x <= high and math.isfinite(x) for x in numbers)


@settings(max_examples=250, deadline=None, derandomize=True)
@given(
  st.sampled_from(_KEYS).flatmap(
    lambda key: st.tuples(st.just(key), _values(_base_value(key)))
  )
)
def test_a_value_is_possible_or_named(pair):
  key, value = pair
  config = _config({key: value})
  try:
    registry.check(config)
  except ValueError as error:
    text = str(error)
    assert f'config.{key}={value}' in text, text
    assert 'must' in text
  else:
    assert _is_possible(key, value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(_KEYS), st.integers(1, 64), max_size=9))
def test_several_values_at_once_never_end_in_another_error(values):
  new = {}
  for key, value in values.items():
    old = _base_value(key)
    new[key] = (
      (float(value),) * len(old) if isinstance(old, tuple) else type(old)(value)
    )
  try:
    registry.check(_config(new))
  except ValueError as error:
    assert 'config.' in str(error)


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'dae.num_keypoints': 33}, r'dae\.num_keypoints=33 must be in 1\.\.32'),
    ({'dae.patch_size': 65}, r'dae\.patch_size=65 must be in 1\.\.64'),
    ({'dae.width': 10**9}, r'dae\.width=1000000000 must be in 2\.\.8192'),
    ({'data.clip_length': 26}, r'data\.clip_length=26 must be in 6\.\.25'),
    ({'data.clip_length': 5}, r'data\.clip_length=5 must be in 6\.\.25'),
    (
      {'dae.num_heads': 3},
      r'dae\.num_heads=3 must divide config\.dae\.width=16',
    ),
    (
      {'image.num_heads': 3},
      r'image\.num_heads=3 must divide twice config\.image\.depth=4',
    ),
    ({'loss.mae': -1.0}, r'loss\.mae=-1\.0 must be in 0\.\.1e\+09'),
    ({'replay.capacity': 7}, r'replay\.segment_length=8 must not .*capacity=7'),
    (
      {'finetune.eval_episodes': 0},
      r'finetune\.eval_episodes=0 must be at least 1',
    ),
    ({'optim.max_bad_steps': 0}, r'optim\.max_bad_steps=0 must be at least 1'),
    ({'dreamerv3.lr': -1.0}, r'dreamerv3\.lr=-1\.0 must be in 0\.\.1'),
    ({'dreamerv3.warmup': 0}, r'dreamerv3\.warmup=0 must be at least 1'),
    ({'prelar.latent_size': 0}, r'prelar\.latent_size=0 must be in 1\.\.8192'),
    (
      {'prelar.rank_temperature': 0.0},
      r'prelar\.rank_temperature=0\.0 must be in 1e-06\.\.1e\+06',
    ),
    ({'seed': -1}, r'seed=-1 must be in 0\.\.2147483646'),
    ({'env.shadow_size': 0}, r'env\.shadow_size=0 must be in 1\.\.16384'),
    ({'env.texture_size': -8}, r'env\.texture_size=-8 must be in 1\.\.8192'),
    ({'env.num_envs': 10**9}, r'env\.num_envs=1000000000 must be in 1\.\.1024'),
    ({'env.action_repeat': 10**9}, r'env\.action_repeat=10+ must be in'),
    (
      {'dae.mask_ratio': 0.001},
      r'dae\.mask_ratio=0\.001 hides 0 of the 96 patches of'
      r' config\.dae\.num_keypoints=4 in config\.data\.clip_length=25 frames',
    ),
    (
      {'dae.mask_ratio': 0.02},  # two of a clip's, none of a segment's
      r'dae\.mask_ratio=0\.02 hides 0 of the 28 .*segment_length=8 frames',
    ),
    ({'dae.mask_ratio': 1.0}, r'dae\.mask_ratio=1\.0 hides 96 of the 96'),
    (
      {'image.context_mask_ratio': 0.99},
      r'image\.context_mask_ratio=0\.99 must be in 0\.\.0\.984',
    ),
    (
      {'extract.onnx.mean': (1.0, math.nan, 1.0)},
      r'extract\.onnx\.mean=\(1\.0, nan, 1\.0\) must be in -1e\+09\.\.1e\+09',
    ),
    (
      {'extract.onnx.scale': (256.0,)},
      r'extract\.onnx\.scale=\(256\.0,\) must be three numbers',
    ),
    (
      {'init_without': ('latent_dynamics',)},
      r"init_without=\('latent_dynamics',\) .*config\.init_from='' must name",
    ),
    (
      {'init_zero': ('latent_dynamics/action_in/kernel',)},
      r"init_zero=\('latent.*',\) .*config\.init_from='' must name",
    ),
    (
      {'agent': 'dreamerv2', 'init_without': ('dae',)},
      r"init_without=\('dae',\) .*config\.init_from='' must name",
    ),
  ],
)
def test_what_is_impossible_is_named(values, message):
  with pytest.raises(ValueError, match=rf'config\.{message}'):
    registry.check(_config(values))


def test_what_leaves_all_of_a_pre_training_out_needs_none():
  """DRP w/o pre of Fig. 7."""
  config = ablations.get_config('without_pretraining,dmcr,debug')
  assert config.init_without and not config.init_from
  registry.check(config)


_UNKNOWN = st.text(string.ascii_letters, min_size=1, max_size=12).flatmap(
  lambda name: st.sampled_from([name, f'optim.{name}'])
)
_WRONG = st.one_of(
  st.text(max_size=5),
  st.lists(st.integers(), max_size=2),
  st.none(),
  st.booleans(),
  st.floats(),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.sampled_from(_KEYS) | _UNKNOWN, _WRONG)
def test_the_config_takes_nothing_of_another_name_or_type(key, value):
  """Nor, once it has taken it, does the check let it pass."""
  config = base.get_config('debug')
  try:
    config.update_from_flattened_dict({key: value})
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    assert key.rpartition('.')[2] in str(error)
    return
  assert key in _KEYS
  try:
    registry.check(config)
  except ValueError as error:
    assert f'config.{key}=' in str(error)


@pytest.mark.parametrize(
  ('source', 'key', 'value'),
  [
    ('folder', 'data.max_frames', 24),
    ('embedded', 'embedded.frames', 24),
    ('sim', 'sim.frames', 24),
  ],
)
def test_fewer_frames_than_a_clip_are_named(source, key, value):
  config = preprocess.get_config(source)
  config.update_from_flattened_dict({key: value})
  with pytest.raises(
    ValueError,
    match=rf'^config\.{key}=24 must be at least config\.data\.clip_length=25',
  ):
    limits.check_preprocessing(config)
