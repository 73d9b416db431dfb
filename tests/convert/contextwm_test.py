"""Conversion of official checkpoints: strict, whole, ready for `init_from`.

That converted networks compute the same is tests/golden_test.py's.
"""

import pathlib
import sys

import flax.traverse_util
import jax
import numpy as np
import pytest

from configs import ablations
from drp_jax.convert import contextwm
from drp_jax.runs import checkpoint
from drp_jax.systems import registry
from tests.parity import contextwm_ours as ours

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

_GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'


def _arrays(agent='ipv'):
  """Official arrays as pre-training saves them."""
  with np.load(_GOLDEN / f'{agent}.npz') as file:
    weights = ours.unpack(dict(file))['weights']
  prefixes = 'wm.encoder.', 'wm.heads.decoder.', 'wm.af_rssm.'
  return {
    name.replace('wm.af_rssm.', 'wm.rssm.'): array
    for name, array in weights.items()
    if name.startswith(prefixes)
  }


def _save(arrays, path):
  torch.save({name: torch.tensor(x) for name, x in arrays.items()}, path)
  return path


def _run(monkeypatch, *args):
  monkeypatch.setattr(sys, 'argv', ['contextwm', *map(str, args)])
  contextwm.main()


def _system(agent, workdir, **changes):
  """Config and system of a fine-tuning that loads what `workdir` holds."""
  config = ours.small_config('apv' if agent == 'apv' else 'ipv')
  config.agent, config.init_from = agent, str(workdir)
  config.update(changes)
  return config, registry.build(config, ours.GOLDEN.actions, None).system


@pytest.mark.parametrize('agent', ['ipv', 'apv'])
def test_fine_tuning_finds_all_that_it_loads(agent, tmp_path, monkeypatch):
  path = _save(_arrays(agent), tmp_path / 'variables.pt')
  _run(monkeypatch, '--checkpoint', path, '--out', tmp_path / 'out')
  config, system = _system(agent, tmp_path / 'out')
  batch = registry.build(config, ours.GOLDEN.actions, None).finetuning.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  wanted = {
    'params': {name: shapes['params'][name] for name in system.pretrained},
    'collections': {'batch_stats': shapes['batch_stats']},
  }
  loaded = checkpoint.load_part(config.init_from, wanted)
  expected = contextwm.convert(_arrays(agent))
  assert set(expected['params']) == set(system.pretrained)
  jax.tree.map(
    np.testing.assert_array_equal,
    {**loaded['collections'], 'params': loaded['params']},
    expected,
  )


def test_drp_starts_from_ipv_with_an_a_agg_of_no_influence(
  tmp_path, monkeypatch
):
  """IPV_pre_DRP_ft (E7): the DAE is random."""
  path, out = _save(_arrays(), tmp_path / 'variables.pt'), tmp_path / 'out'
  size = ours.small_config('ipv').dae.width
  _run(monkeypatch, '--checkpoint', path, '--out', out)
  changes = ablations.ABLATIONS['after_ipv'].changes
  without = changes['init_without']
  config, system = _system('drp', out, **changes)
  state = registry.build(config, ours.GOLDEN.actions, None).finetuning.init()
  expected = contextwm.convert(_arrays())
  action_in = expected['params']['latent_dynamics']['action_in']
  hidden = action_in['bias'].size
  action_in['kernel'] = np.zeros((size, hidden), np.float32)
  assert set(expected['params']) == set(system.pretrained) - set(without)
  found = {name: state.params[name] for name in expected['params']}
  jax.tree.map(np.testing.assert_array_equal, found, expected['params'])
  jax.tree.map(
    np.testing.assert_array_equal,
    state.collections['batch_stats'],
    expected['batch_stats'],
  )
  scale = state.collections['constants']['flow_scale']
  assert scale == config.finetune.flow_scale


@pytest.mark.parametrize(
  ('without', 'message'),
  [
    ((), 'config.init_from=.*params/dae'),
    (('critic',), r"config.init_without=.*\['critic'\]"),
  ],
)
def test_what_cannot_be_loaded_is_named(
  without, message, tmp_path, monkeypatch
):
  path = _save(_arrays(), tmp_path / 'variables.pt')
  _run(monkeypatch, '--checkpoint', path, '--out', tmp_path / 'out')
  config, system = _system('drp', tmp_path / 'out', init_without=without)
  with pytest.raises(ValueError, match=message):
    registry.build(config, ours.GOLDEN.actions, None).finetuning.init()


@pytest.mark.parametrize('agent', ['ipv', 'apv'])
def test_every_number_is_used_once(agent):
  """All their numbers differ, and ours are the same ones."""
  arrays, count = _arrays(agent), 0
  for name, array in arrays.items():
    if name.endswith('num_batches_tracked'):  # what ours do not count
      continue
    arrays[name] = np.arange(count, count + array.size, dtype=np.float32)
    arrays[name] = arrays[name].reshape(array.shape)
    count += array.size
  found = np.concatenate(
    [leaf.ravel() for leaf in jax.tree.leaves(contextwm.convert(arrays))]
  )
  np.testing.assert_array_equal(np.sort(found), np.arange(count))


def test_missing_and_unknown_arrays_are_named():
  arrays = _arrays()
  del arrays['wm.rssm.obs_out.weight'], arrays['wm.encoder.cond_convin.bias']
  arrays['wm.encoder.extra'] = np.zeros(3)
  with pytest.raises(ValueError) as error:
    contextwm.convert(arrays)
  assert 'Missing: wm.encoder.cond_convin.bias, wm.rssm.obs_out.weight.' in str(
    error.value
  )
  assert 'Unknown: wm.encoder.extra.' in str(error.value)


def test_a_file_of_something_else_says_what_is_expected(tmp_path):
  path = _save({'weight': np.zeros((2, 3))}, tmp_path / 'variables.pt')
  with pytest.raises(ValueError, match='and .* more.*Unknown: weight.*thuml'):
    contextwm.convert(contextwm.read(path))
  path.write_bytes(b'no checkpoint')
  with pytest.raises(ValueError, match='--checkpoint=.*cannot be read'):
    contextwm.read(path)
  with pytest.raises(ValueError, match='--checkpoint=.*rssm_variables.pt'):
    contextwm.read(tmp_path)


@pytest.mark.parametrize(
  ('name', 'shape', 'message'),
  [
    ('wm.encoder.convin.bias', (3,), r'conv_in/bias \(3,\) instead of \(4,\)'),
    (
      'wm.encoder.res1.stack.0.res_block.0.weight',
      (2, 2),
      'res1.*does not fit',
    ),
    ('wm.rssm.obs_out.weight', (16, 20), 'obs_out.*does not fit'),
    (
      'wm.rssm.img_in.bias',
      (15,),
      r'action_in/bias \(15,\) instead of \(16,\)',
    ),
  ],
)
def test_other_shapes_are_named(name, shape, message):
  arrays = {**_arrays(), name: np.zeros(shape, np.float32)}
  with pytest.raises(ValueError, match=message):
    contextwm.convert(arrays)


def test_a_folder_of_three_files_is_the_same(tmp_path):
  arrays = _arrays()
  for part, prefix in (
    ('rssm', 'wm.rssm.'),
    ('encoder', 'wm.encoder.'),
    ('decoder', 'wm.heads.decoder.'),
  ):
    own = {
      name.removeprefix(prefix): array
      for name, array in arrays.items()
      if name.startswith(prefix)
    }
    _save(own, tmp_path / f'{part}_variables.pt')
  found = contextwm.read(tmp_path)
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)


def test_nothing_is_written_over(tmp_path, monkeypatch, capsys):
  path = _save(_arrays('apv'), tmp_path / 'variables.pt')
  args = '--checkpoint', path, '--out', tmp_path / 'out'
  _run(monkeypatch, *args)
  with pytest.raises(SystemExit):
    _run(monkeypatch, *args)
  assert 'holds a checkpoint already' in capsys.readouterr().err


def test_half_precision_becomes_float32(tmp_path):
  path = tmp_path / 'variables.pt'
  torch.save({k: torch.tensor(x).half() for k, x in _arrays().items()}, path)
  found = contextwm.convert(contextwm.read(path))
  flat = flax.traverse_util.flatten_dict(found)
  assert {leaf.dtype for leaf in flat.values()} == {np.dtype(np.float32)}
