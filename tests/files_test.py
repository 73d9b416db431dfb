"""Tests of files that are whole or not there."""

import json
import os

import numpy as np
import pytest

from drp_jax import files


def test_a_folder_is_made(tmp_path):
  files.write(tmp_path / 'a' / 'b' / 'c', b'\x00\r\n')
  assert (tmp_path / 'a' / 'b' / 'c').read_bytes() == b'\x00\r\n'
  assert os.listdir(tmp_path / 'a' / 'b') == ['c']


def test_json_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
  path = tmp_path / 'a.json'
  files.write_json(path, {'b': [1, 2.5, None]})
  with pytest.raises(TypeError):
    files.write_json(path, {'b': object()})
  assert json.loads(path.read_text()) == {'b': [1, 2.5, None]}
  assert os.listdir(tmp_path) == ['a.json']

  def killed(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(files.os, 'replace', killed)
    with pytest.raises(KeyboardInterrupt):
      files.write_json(path, {'b': 1})
  assert json.loads(path.read_text()) == {'b': [1, 2.5, None]}
  files.write_json(path, {'b': 1})
  assert json.loads(path.read_text()) == {'b': 1}
  assert os.listdir(tmp_path) == ['a.json']


def test_what_is_written_by_others_appears_whole_at_the_end(tmp_path):
  path = tmp_path / 'a' / 'b'
  with files.replacing(path, '.7') as partial:
    partial.write_bytes(b'old')
    assert partial.parent == path.parent and not path.exists()
  with pytest.raises(KeyError), files.replacing(path) as partial:
    partial.write_bytes(b'ne')
    raise KeyError
  assert path.read_bytes() == b'old'


def test_two_writers_of_a_file_do_not_share_the_partial_one(tmp_path):
  path = tmp_path / 'a'
  with files.replacing(path, '.1') as one, files.replacing(path, '.2') as two:
    one.write_bytes(b'one')
    two.write_bytes(b'two')
  assert path.read_bytes() == b'one' and os.listdir(tmp_path) == ['a']


def test_arrays_of_any_name_and_no_pickles(tmp_path):
  arrays = {'b/c': np.arange(3.0), 'd': np.array('text')}
  files.write_arrays(tmp_path / 'a.npz', arrays)
  with np.load(tmp_path / 'a.npz', allow_pickle=False) as found:
    assert dict(found).keys() == arrays.keys()
    np.testing.assert_array_equal(found['b/c'], arrays['b/c'])
    assert found['d'] == 'text'
  with pytest.raises(ValueError, match='allow_pickle'):
    files.write_arrays(tmp_path / 'b.npz', {'e': np.array([{}, ()], object)})
  assert os.listdir(tmp_path) == ['a.npz']
