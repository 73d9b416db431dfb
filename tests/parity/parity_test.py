"""What the comparisons are fed, and on which command lines.

The official code is not here. Whoever has a checkout runs `make parity`.
"""

import dataclasses
import importlib
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity import (
  arguments,
  contextwm_ours,
  diswm_ours,
  dreamerv3_ours,
)

pytest.importorskip('torch')

_GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
_SYSTEMS = 'contextwm', 'prelar', 'diswm', 'dreamerv3'
_ODD = dict(seed=1, sequences=3, steps=11, actions=5, horizon=5)


def _golden(name):
  with np.load(_GOLDEN / f'{name}.npz') as file:
    return contextwm_ours.unpack(dict(file))


def _inputs(name, **changes):
  """What `name` is fed, at the default sizes but for `changes`."""
  if name in ('diswm', 'dreamerv3'):
    ours = {'diswm': diswm_ours, 'dreamerv3': dreamerv3_ours}[name]
    sizes = dataclasses.replace(ours.GOLDEN, **changes)
    compare = importlib.import_module(f'tests.parity.compare_{name}')
    return compare._inputs(sizes)
  from tests.parity import compare_contextwm

  sizes = dataclasses.replace(contextwm_ours.GOLDEN, **changes)
  config = contextwm_ours.small_config(name, sizes)
  return compare_contextwm.make_inputs(config, sizes)


@pytest.mark.parametrize(
  'name', ['ipv', 'apv', 'dreamerv2', 'ipv_continuation', 'prelar', 'diswm']
)
def test_defaults_are_what_golden_arrays_were_made_with(name):
  """Bit for bit, so that --golden writes the same files again."""
  golden, found = _golden(name)['inputs'], _inputs(name)
  assert len(found) > 8
  for key, x in found.items():
    np.testing.assert_array_equal(x, golden[key], key)


def test_defaults_of_dreamerv3_are_what_golden_arrays_were_made_with():
  golden, found = _golden('dreamerv3')['inputs'], _inputs('dreamerv3')
  assert golden.keys() == found.keys()
  for key, x in found.items():
    np.testing.assert_array_equal(x, golden[key], key)


@pytest.mark.parametrize('name', ['ipv', 'prelar', 'diswm', 'dreamerv3'])
def test_inputs_of_other_sizes(name):
  found, same = _inputs(name, **_ODD), _inputs(name, **{**_ODD, 'seed': 2})
  assert found['image'].shape[:2] == (3, 11)
  assert found['action'].shape == (3, 11, 5)
  assert found.keys() == same.keys()
  assert not np.array_equal(found['image'], same['image'])
  if name == 'ipv':
    np.testing.assert_array_equal(found['context_index'], [4, 7, 10])


def test_widths_reach_the_networks():
  sizes = contextwm_ours.Sizes(
    deter=23, hidden=17, groups=5, classes=3, width=19, depth=6, latent=7
  )
  config = contextwm_ours.small_config('prelar', sizes)
  rssm = config.rssm
  widths = rssm.deter_size, rssm.hidden, rssm.groups, rssm.classes
  assert widths == (23, 17, 5, 3)
  assert (config.heads.width, config.prelar.latent_size) == (19, 7)
  assert config.image.depth == 6
  assert contextwm_ours.small_config('dreamerv2', sizes).image.depth == 3
  config = diswm_ours.small_config(sizes=diswm_ours.Sizes(deter=23, stoch=5))
  assert (config.diswm.width, config.diswm.stoch_size) == (23, 5)


def test_seed_0_draws_what_its_stream_alone_does():
  first = np.random.default_rng(2).normal(size=9)
  np.testing.assert_array_equal(
    arguments.Sizes().random(2).normal(size=9), first
  )
  for other in (arguments.Sizes().random(3), arguments.Sizes(1).random(2)):
    assert not np.array_equal(other.normal(size=9), first)


def _parse(monkeypatch, *words):
  monkeypatch.setattr(sys, 'argv', ['compare', *words])
  return arguments.parse('Compares.', 'wmlib', contextwm_ours.GOLDEN)


def test_command_line(monkeypatch, tmp_path):
  (tmp_path / 'wmlib').mkdir()
  checkout, sizes, golden = _parse(
    monkeypatch, f'--checkout={tmp_path}', '--seed=3', '--steps=11'
  )
  assert (checkout, golden) == (tmp_path, None)
  assert sizes == contextwm_ours.Sizes(seed=3, steps=11)
  assert str(sizes).startswith('seed 3, sequences 2, steps 11, actions 3')


@pytest.mark.parametrize(
  ('words', 'message'),
  [
    (['--steps=3'], '--steps=3 is not allowed: from 4 on.'),
    (['--sequences=1'], '--sequences=1 is not allowed: from 2 on.'),
    (['--depth=5'], '--depth=5 is not allowed: from 2 on, multiples of 2.'),
    (['--golden=x', '--seed=1'], '--golden takes the default sizes and seed'),
  ],
)
def test_mistakes_on_the_command_line(
  words, message, monkeypatch, tmp_path, capsys
):
  (tmp_path / 'wmlib').mkdir()
  with pytest.raises(SystemExit) as error:
    _parse(monkeypatch, f'--checkout={tmp_path}', *words)
  assert error.value.code == 2
  assert message in capsys.readouterr().err


@pytest.mark.parametrize('system', [*_SYSTEMS, 'sea_raft'])
def test_a_folder_without_the_code_is_an_error(
  system, monkeypatch, tmp_path, capsys
):
  compare = importlib.import_module(f'tests.parity.compare_{system}')
  monkeypatch.setattr(sys, 'argv', ['compare', f'--checkout={tmp_path}'])
  with pytest.raises(SystemExit) as error:
    compare.main()
  assert error.value.code == 2
  assert f'{tmp_path} holds no ' in capsys.readouterr().err


def test_both_sides_of_a_gradient_are_in_float64():
  """And so agree to what the golden arrays' float32 leaves."""
  case = contextwm_ours.as_double(_golden('ipv'))
  with contextwm_ours.double():
    found = contextwm_ours.behavior(
      'ipv', case['weights'], case['slow_critic'], case['inputs']
    )
  assert jnp.zeros(1, jnp.float32).dtype == np.float32
  for row, arrays in found.items():
    assert {x.dtype for x in jax.tree.leaves(arrays)} == {np.dtype('float64')}
    expected = contextwm_ours.as_ours('ipv', case['rows'][row])
    for name, difference in contextwm_ours.differences(arrays, expected):
      assert difference < 2e-6, f'{row}: {name} by {difference:.1e}'


def test_their_side_is_in_float64_too():
  """Also where the original asks for float32."""
  import torch

  from tests.parity import theirs

  layer = torch.nn.Linear(2, 3)
  before = layer.weight.detach().clone()
  with theirs.double(layer):
    inputs = theirs.tensors({'x': np.ones((1, 2), np.float32)})
    out = layer(inputs['x']).float()
    assert out.dtype == torch.zeros(1).dtype == torch.float64
  assert layer.weight.dtype == torch.zeros(1).dtype == torch.float32
  assert torch.equal(layer.weight, before)
  assert out.float().dtype == torch.float32
