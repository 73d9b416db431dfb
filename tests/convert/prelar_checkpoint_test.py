"""Conversion of official PreLAR checkpoints: strict, whole, for `init_from`.

That converted networks compute the same is tests/golden_prelar_test.py's.
"""

import pathlib
import sys

import jax
import numpy as np
import pytest

from drp_jax.convert import prelar
from drp_jax.runs import checkpoint
from drp_jax.systems import registry
from tests.parity import contextwm_ours as ours

torch = pytest.importorskip('torch')
pytest.importorskip('safetensors')

_GOLDEN = pathlib.Path(__file__).parents[1] / 'golden'
_PARTS = {
  'rssm': 'wm.rssm.',
  'va_encoder': 'wm.va_encoder.',
  'encoder': 'wm.encoder.',
  'decoder': 'wm.heads.decoder.',
}


def _arrays():
  """Official arrays as pre-training saves them."""
  with np.load(_GOLDEN / 'prelar.npz') as file:
    weights = ours.unpack(dict(file))['weights']
  prefixes = tuple(_PARTS.values())
  return {k: x for k, x in weights.items() if k.startswith(prefixes)}


def _save(arrays, path):
  torch.save({name: torch.tensor(x) for name, x in arrays.items()}, path)
  return path


def _run(monkeypatch, *args):
  monkeypatch.setattr(sys, 'argv', ['prelar', *map(str, args)])
  prelar.main()


def test_fine_tuning_finds_all_that_it_loads(tmp_path, monkeypatch):
  path, out = _save(_arrays(), tmp_path / 'variables.pt'), tmp_path / 'out'
  _run(monkeypatch, '--checkpoint', path, '--out', out)
  config = ours.small_config('prelar')
  system = registry.build(config, ours.GOLDEN.actions, None).system
  batch = registry.build(config, ours.GOLDEN.actions, None).finetuning.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  wanted = {
    'params': {name: shapes['params'][name] for name in system.pretrained},
    'collections': {'batch_stats': shapes['batch_stats']},
  }
  loaded = checkpoint.load_part(out, wanted)
  expected = prelar.convert(_arrays())
  assert expected['params'].keys() == {*system.pretrained, 'inverse_dynamics'}
  for tree in expected.values():
    tree.pop('inverse_dynamics')
  jax.tree.map(
    np.testing.assert_array_equal,
    {**loaded['collections'], 'params': loaded['params']},
    expected,
  )


def test_pre_training_could_go_on_from_it():
  """The tree is that of our own pre-training."""
  config = ours.small_config('prelar')
  system = registry.build(config, 1, None).system
  batch = registry.build(config, 1, None).pretraining.example()
  shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
  assert jax.tree.map(np.shape, prelar.convert(_arrays())) == jax.tree.map(
    np.shape, shapes
  )


def test_every_number_is_used_once():
  """All their numbers differ, and ours are the same ones."""
  arrays, count = _arrays(), 0
  for name, array in arrays.items():
    if name.endswith('num_batches_tracked'):  # what ours do not count
      continue
    arrays[name] = np.arange(count, count + array.size, dtype=np.float32)
    arrays[name] = arrays[name].reshape(array.shape)
    count += array.size
  found = np.concatenate(
    [leaf.ravel() for leaf in jax.tree.leaves(prelar.convert(arrays))]
  )
  np.testing.assert_array_equal(np.sort(found), np.arange(count))


def test_missing_and_unknown_arrays_are_named_as_they_are_there():
  arrays = _arrays()
  del (
    arrays['wm.rssm._obs_out.0.weight'],
    arrays['wm.va_encoder.action_in.2.bias'],
  )
  arrays['wm.encoder.extra'] = np.zeros(3)
  with pytest.raises(ValueError) as error:
    prelar.convert(arrays)
  message = str(error.value)
  missing = 'wm.rssm._obs_out.0.weight, wm.va_encoder.action_in.2.bias'
  assert f'Missing: {missing}.' in message
  assert 'Unknown: wm.encoder.extra.' in message
  assert 'PreLAR' in message and 'thuml' not in message


@pytest.mark.parametrize(
  ('name', 'shape', 'message'),
  [
    (
      'wm.va_encoder.va_encoder._cnn_net.convin.weight',
      (4, 3, 3, 3),
      r'inverse_dynamics/.*conv_in/kernel \(3, 3, 3, 4\) instead of \(3, 3, 6',
    ),
    (
      'wm.va_encoder.action_in.2.bias',
      (8,),
      r'out/bias \(8,\) instead of \(16,\)',
    ),
    ('wm.rssm._obs_out.0.weight', (16, 20), '_obs_out.*does not fit'),
  ],
)
def test_other_variants_of_theirs_are_refused(name, shape, message):
  """Latent actions of differences or flow, deterministic ones."""
  arrays = {**_arrays(), name: np.zeros(shape, np.float32)}
  with pytest.raises(ValueError, match=message):
    prelar.convert(arrays)


def test_a_folder_of_four_files_is_the_same(tmp_path):
  arrays = _arrays()
  for part, prefix in _PARTS.items():
    own = {
      name.removeprefix(prefix): array
      for name, array in arrays.items()
      if name.startswith(prefix)
    }
    _save(own, tmp_path / f'{part}_variables.pt')
  found = prelar.read(tmp_path)
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)


def test_a_file_of_something_else_says_what_is_expected(tmp_path):
  path = _save({'weight': np.zeros((2, 3))}, tmp_path / 'variables.pt')
  with pytest.raises(ValueError, match='Unknown: weight.*PreLAR'):
    prelar.convert(prelar.read(path))
  with pytest.raises(
    ValueError, match='--checkpoint=.*va_encoder_variables.pt'
  ):
    prelar.read(tmp_path)
