"""Tests of files that are whole or not there."""

import json
import os

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
