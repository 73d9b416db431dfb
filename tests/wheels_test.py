"""Wheels that are downloaded to read files out of them."""

import subprocess

import offline_pip
import pytest

from drp_jax import wheels


def test_a_wheel_is_downloaded_with_the_options_and_no_sources(
  tmp_path, monkeypatch
):
  calls = offline_pip.serve(monkeypatch, tmp_path, {'a/b': b'c'})
  out = tmp_path / 'out'
  out.mkdir()
  wheel = wheels.download('a==1', out, '--python-version=3.12', then='look.')
  assert wheel.parent == out
  assert calls.read_text().split() == [
    *('-m', 'pip', 'download', '--no-deps', '--only-binary=:all:'),
    *('--python-version=3.12', 'a==1', '-d', str(out)),
  ]


def test_without_pip_the_message_says_what_to_do(tmp_path, monkeypatch):
  offline_pip.use(
    monkeypatch, tmp_path, 'echo "No module named pip" >&2; exit 1'
  )
  with pytest.raises(RuntimeError) as error:
    wheels.download('a==1', tmp_path, then='unpack it.')
  assert 'No module named pip' in str(error.value)
  assert 'By hand: python3 -m pip download' in str(error.value)
  assert str(error.value).endswith('a==1, then unpack it.')


def test_a_pip_that_finds_nothing_is_a_failure(tmp_path, monkeypatch):
  offline_pip.use(monkeypatch, tmp_path, 'exit 0')
  with pytest.raises(RuntimeError, match='a==1 .*no message'):
    wheels.download('a==1', tmp_path, then='unpack it.')


def test_the_pythons_that_are_tried_can_be_run():
  pythons = wheels._pythons()
  assert len(set(pythons)) == len(pythons) > 0
  subprocess.run([pythons[0], '-c', ''], check=True)
