"""Any value of any number either is possible or is named."""

import math
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import base
from drp_jax.train import limits

_KEYS = sorted(limits.RANGES)


def _config(values):
  config = base.get_config('debug')
  config.update_from_flattened_dict(values)
  return config


def _get(key):
  section, name = key.split('.')
  return base.get_config('debug')[section][name]


def _values(key):
  if isinstance(_get(key), float):
    return st.floats(allow_nan=True, allow_infinity=True)
  return st.integers(-(2**40), 2**40) | st.integers(-2, 70)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
  st.sampled_from(_KEYS).flatmap(
    lambda key: st.tuples(st.just(key), _values(key))
  )
)
def test_a_value_is_possible_or_named(pair):
  key, value = pair
  config = _config({key: value})
  low, high = limits.RANGES[key]
  try:
    limits.check(config)
  except ValueError as error:
    text = str(error)
    assert f'config.{key}={value}' in text, text
    assert 'must' in text
  else:
    assert low <= value <= high and math.isfinite(value)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(_KEYS), st.integers(1, 64), max_size=9))
def test_several_values_at_once_never_end_in_another_error(values):
  values = {key: type(_get(key))(value) for key, value in values.items()}
  try:
    limits.check(_config(values))
  except ValueError as error:
    assert 'config.' in str(error)


@pytest.mark.parametrize('preset', base.PRESETS)
def test_presets_are_possible(preset):
  limits.check(base.get_config(preset))


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'dae.num_keypoints': 33}, r'dae\.num_keypoints=33 must be in 1\.\.32'),
    ({'dae.patch_size': 65}, r'dae\.patch_size=65 must be in 1\.\.64'),
    ({'data.clip_length': 26}, r'data\.clip_length=26 must be in 2\.\.25'),
    (
      {'dae.num_heads': 3},
      r'dae\.num_heads=3 must divide config\.dae\.width=16',
    ),
    ({'loss.mae': -1.0}, r'loss\.mae=-1\.0 must be at least 0'),
    ({'replay.capacity': 7}, r'replay\.segment_length=8 must not .*capacity=7'),
    (
      {'env.episode_length': 6},
      r'replay\.segment_length=8 .*episode_length=6 \+ 1',
    ),
    (
      {'finetune.eval_episodes': 0},
      r'finetune\.eval_episodes=0 must be at least 1',
    ),
    ({'optim.max_bad_steps': 0}, r'optim\.max_bad_steps=0 must be at least 1'),
  ],
)
def test_what_is_impossible_is_named(values, message):
  with pytest.raises(ValueError, match=rf'config\.{message}'):
    limits.check(_config(values))


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
    limits.check(config)
  except ValueError as error:
    assert f'config.{key}=' in str(error)
