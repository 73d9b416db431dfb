"""Every command looks at all of its settings before it touches anything."""

import functools
import math

import pytest

from configs import base, demo, preprocess
from configs.studies import base as study_base
from drp_jax.runs import limits, ranges
from drp_jax.train import finetune, pretrain
from experiments import demo as demo_lib
from experiments import run_preprocess, study


def _fails(*_):
  raise AssertionError('It has begun.')


def _study(workdir, values):
  config = study_base.get_config()
  config.systems, config.tasks, config.presets = (
    ('drp',),
    ('dmc/walker_run',),
    ('debug',),
  )
  config.update(values)
  study.run_study(config, str(workdir), 1)


_NAN = math.nan
_DOORS = {
  'pretrain': pretrain.pretrain,
  'finetune': functools.partial(
    finetune.finetune, make_envs=_fails, make_extractor=_fails
  ),
}


@pytest.mark.parametrize('command', _DOORS)
@pytest.mark.parametrize(
  ('key', 'value'),
  [('seed', -1), ('optim.lr', _NAN), ('dae.mask_ratio', 0.001), ('agent', 'x')],
)
def test_a_run_is_checked_before_it_touches_anything(
  command, key, value, tmp_path
):
  config = base.get_config('debug')
  config.update_from_flattened_dict({key: value})
  workdir = tmp_path / 'run'
  with pytest.raises(ValueError, match=rf'^config\.{key}={value!r} '):
    _DOORS[command](config, workdir)
  assert not workdir.exists()


@pytest.mark.parametrize('key', sorted(ranges.PREPROCESS))
def test_preprocessing_is_checked_before_it_touches_anything(key, tmp_path):
  """Every number of it: below the smallest value, and of floats NaN."""
  config = preprocess.get_config('embedded')
  config.path, config.data.shards_dir = (
    str(tmp_path / name) for name in ('videos', 'shards')
  )
  old, low = dict(limits.leaves(config))[key], ranges.PREPROCESS[key][0]
  if isinstance(old, tuple):
    wrong = [(_NAN, *old[1:]), (low - 1e9, *old[1:])]
  else:
    wrong = [_NAN, low - 1.0] if isinstance(old, float) else [low - 1]
  for value in wrong:
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match='^config.* must be') as error:
      run_preprocess.preprocess(config)
    assert f'config.{key}={value!r} ' in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('key', 'value'),
  [
    ('random_episodes', 0),
    ('preprocess.data.num_workers', 0),
    ('pretrain.optim.lr', math.inf),
    ('pretrain.dae.mask_ratio', 0.001),
    ('finetune.seed', -1),
    ('finetune.compute_dtype', 'float8'),
  ],
)
def test_the_demo_is_checked_before_it_touches_anything(key, value, tmp_path):
  config = demo.get_config('debug')
  config.update_from_flattened_dict({key: value})
  workdir = tmp_path / 'demo'
  with pytest.raises(ValueError, match=rf'^config\.{key}={value!r} '):
    demo_lib.demo(config, str(workdir))
  assert not workdir.exists()


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'seeds': (0, -1)}, r'^config\.seeds=\(0, -1\) must be in 0\.\.'),
    (
      {'pretrain': ('optim.lr=1e999',)},
      r'^pretrain/drp-debug-\w+: config\.optim\.lr=inf must be in 0\.\.1',
    ),
    (
      {'finetune': ('replay.batch_size=0',)},
      r'^finetune/dmc-walker_run/.*: config\.replay\.batch_size=0 must be in',
    ),
  ],
)
def test_a_study_is_checked_before_it_touches_anything(
  values, message, tmp_path
):
  with pytest.raises(ValueError, match=message):
    _study(tmp_path / 'study', values)
  assert not (tmp_path / 'study').exists()
