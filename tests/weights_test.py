"""Files of weights: found or explained, read without running anything."""

import pathlib
import pickle

import numpy as np
import pytest

from drp_jax import weights

torch = pytest.importorskip('torch')

_SOURCE = weights.Source(
  'config.extract.fast.weights', 'fast.pth', 'example.org/fast', 'BSD'
)


@pytest.mark.parametrize('path', ['', 'no/such/file.pth'])
def test_a_missing_file_is_explained(path):
  with pytest.raises(ValueError) as error:
    weights.find_file(path, _SOURCE)
  for part in (f'fast.weights={path!r}', 'fast.pth', 'example.org', 'BSD'):
    assert part in str(error.value)


def test_a_folder_has_to_be_complete(tmp_path):
  (tmp_path / 'a.json').touch()
  either = (('b.json', 'a.json'),)
  assert weights.find_folder(str(tmp_path), either, _SOURCE) == tmp_path
  both = (('a.json',), ('b.json', 'c.json'))
  for folder, needed in ((str(tmp_path), both), ('', both), ('', ())):
    with pytest.raises(ValueError, match='a folder that holds .*license: BSD'):
      weights.find_folder(folder, needed, _SOURCE)
  with pytest.raises(ValueError, match=r'holds a\.json, b\.json or c\.json:'):
    weights.find_folder(str(tmp_path), both, _SOURCE)


def test_the_digest_is_that_of_the_bytes(tmp_path):
  path = tmp_path / 'abc'
  path.write_bytes(b'abc')
  assert weights.sha256(path).startswith('ba7816bf8f01cfea414140de5dae2223')


def test_all_layouts_hold_the_same(tmp_path):
  from safetensors import torch as safetensors_torch

  tensors = {'w': torch.arange(6.0).reshape(2, 3), 'n': torch.tensor(7)}
  plain, tensors_only = tmp_path / 'a.pth', tmp_path / 'a.safetensors'
  torch.save(tensors, plain)
  safetensors_torch.save_file(tensors, tensors_only)
  paths = [plain, tensors_only]
  for name in ('state_dict', 'model'):
    paths.append(tmp_path / f'{name}.ckpt')
    torch.save({name: tensors, 'epoch': 3, 'settings': {'lr': 0.1}}, paths[-1])
  for path in paths:
    found = weights.read(path, _SOURCE)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
      assert torch.equal(found[name], value)


class _Touch:
  """Its pickle makes a file when it is read."""

  def __init__(self, path: pathlib.Path):
    self._path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self._path,)


def test_code_in_a_file_is_refused_and_not_run(tmp_path):
  trap = tmp_path / 'it_ran'
  torch.save({'w': torch.zeros(1), 'x': _Touch(trap)}, tmp_path / 'a.pth')
  with open(tmp_path / 'b.pth', 'wb') as file:
    pickle.dump(_Touch(trap), file)
  for name in ('a.pth', 'b.pth'):
    with pytest.raises(ValueError, match='tensors only'):
      weights.read(tmp_path / name, _SOURCE)
  assert not trap.exists()


@pytest.mark.parametrize('name', ['a.pth', 'a.safetensors'])
def test_a_damaged_file_is_named(tmp_path, name):
  (tmp_path / name).write_bytes(b'PK\x03\x04 nothing of use')
  with pytest.raises(ValueError, match=rf'fast\.weights=.*{name}.*fast\.pth'):
    weights.read(tmp_path / name, _SOURCE)


def _damaged(path, rng):
  """Files that are cut, flipped, overwritten, or of another kind."""
  whole = path.read_bytes()
  for size in range(0, len(whole), 37):
    yield whole[:size]
  for _ in range(150):
    flipped = bytearray(whole)
    for index in rng.integers(len(whole), size=rng.integers(1, 9)):
      flipped[index] = rng.integers(256)
    yield bytes(flipped)
  # Streams of opcodes that are no pickle: KeyError, IndexError and others.
  yield from (b'h\x00.', b'0.', b'\x80\x02u.', b's.', b'a.', b'(e.', b'R.')
  yield from (b'\x80\x02K\x01.', b'garbage', b'\x80', b'c\n\n.', b'\x80\xff.')
  yield from (
    bytes(rng.integers(256, size=60).astype('uint8')) for _ in 'x' * 150
  )


@pytest.mark.parametrize('legacy', [False, True])
def test_damage_of_any_kind_is_one_error(tmp_path, legacy):
  path = tmp_path / 'a.pt'
  tensors = {'w': torch.arange(6.0).reshape(2, 3), 'n': torch.tensor(7)}
  torch.save(tensors, path, _use_new_zipfile_serialization=not legacy)
  refused = 0
  for content in _damaged(path, np.random.default_rng(0)):
    path.write_bytes(content)
    try:
      found = weights.read(path, _SOURCE)
    except ValueError as error:
      refused += 1
      assert f'fast.weights={str(path)!r}' in str(error), error
      assert 'fast.pth' in str(error) and len(str(error)) < 1000
    else:
      assert all(isinstance(name, str) for name in found)
  assert refused > 200


def test_other_content_is_refused(tmp_path):
  torch.save([torch.zeros(1)], tmp_path / 'a.pth')
  with pytest.raises(ValueError, match='no dict of tensors'):
    weights.read(tmp_path / 'a.pth', _SOURCE)


def test_every_name_and_shape_has_to_fit():
  module = torch.nn.Linear(3, 2)
  tensors = {'weight': torch.ones(2, 3), 'bias': torch.tensor([4.0, 5.0])}
  weights.fill(module, tensors, _SOURCE)
  assert module(torch.ones(3)).tolist() == [7.0, 8.0]
  for wrong in (
    {'weight': tensors['weight']},
    {**tensors, 'more': torch.zeros(1)},
    {**tensors, 'bias': torch.zeros(3)},
  ):
    with pytest.raises(ValueError, match=r"2 expected; 1 names .*\['"):
      weights.fill(module, wrong, _SOURCE)
