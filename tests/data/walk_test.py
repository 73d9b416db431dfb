"""The walk, on real trees with what real trees hold."""

import contextlib
import os
import random
import socket

import pytest

from drp_jax.data import walk

_NOBODY = 65534


def _tree(root, *names):
  for name in names:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(name)
  return root


def _link(root, name, target):
  path = root / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.symlink_to(target)


def _walked(root):
  """Folder -> files and links to files, and the walk."""
  tree = walk.Walk(root)
  return {f.name: (f.files, f.links) for f in tree}, tree


@contextlib.contextmanager
def as_nobody():
  """Without root's right to read everything."""
  root = os.geteuid() == 0
  if root:
    os.seteuid(_NOBODY)
  try:
    yield
  finally:
    if root:
      os.seteuid(0)


def test_folders_and_files_in_the_order_of_names(tmp_path):
  _tree(tmp_path, 'b/2', 'b/1', 'b/c/3', 'a', 'b-/4')
  found, tree = _walked(tmp_path)
  assert found == {
    '': (['a'], []),
    'b': (['1', '2'], []),
    'b/c': (['3'], []),
    'b-': (['4'], []),
  }
  assert tree.not_taken == {} and tree.top_folders == ['b', 'b-']


def test_links_are_followed_in_and_out_of_the_folder(tmp_path):
  _tree(tmp_path, 'root/a/1', 'elsewhere/deep/2')
  _link(tmp_path, 'root/b', tmp_path / 'elsewhere')
  _link(tmp_path, 'root/a/file', tmp_path / 'elsewhere/deep/2')
  found, tree = _walked(tmp_path / 'root')
  assert found == {
    '': ([], []),
    'a': (['1'], ['file']),
    'b': ([], []),
    'b/deep': (['2'], []),
  }
  assert tree.not_taken == {} and tree.top_folders == ['a', 'b']


def test_loops_end_and_are_named(tmp_path):
  _tree(tmp_path, 'a/b/1')
  _link(tmp_path, 'a/b/up', '..')
  _link(tmp_path, 'a/b/top', tmp_path)
  _link(tmp_path, 'self', 'self')
  _link(tmp_path, 'one', 'other')
  _link(tmp_path, 'other', 'one')
  found, tree = _walked(tmp_path)
  assert found.keys() == {'', 'a', 'a/b'}
  assert tree.not_taken == {
    'a/b/up': 'loop: leads back to a',
    'a/b/top': 'loop: leads back to .',
    **dict.fromkeys(
      ('self', 'one', 'other'), 'loop: a link that leads back to itself'
    ),
  }


def test_two_folders_that_lead_to_each_other(tmp_path):
  _link(tmp_path, 'a/over', '../b')
  _link(tmp_path, 'b/over', '../a')
  found, tree = _walked(tmp_path)
  assert found.keys() == {'', 'a', 'b'}
  assert tree.not_taken == {
    'a/over': 'duplicate: the folder is listed as b',
    'b/over': 'duplicate: the folder is listed as a',
  }


def test_a_folder_around_the_root_is_not_walked_twice(tmp_path):
  """A link out of the folder to what holds it."""
  _tree(tmp_path, 'root/1', 'beside/2')
  _link(tmp_path, 'root/out', tmp_path)
  found, tree = _walked(tmp_path / 'root')
  assert found.keys() == {'', 'out', 'out/beside'}
  assert tree.not_taken == {'out/root': 'loop: leads back to .'}


@pytest.mark.parametrize('seed', range(5))
def test_names_do_not_depend_on_the_order_of_the_system(
  tmp_path, seed, monkeypatch
):
  """The fewest links count, then the first in the order of names."""
  _tree(tmp_path, 'root/z/1', 'far/x/2', 'far/y/3')
  _link(tmp_path, 'root/a', 'z')
  _link(tmp_path, 'root/m/n', tmp_path / 'far')
  _link(tmp_path, 'root/c', tmp_path / 'far/x')
  _link(tmp_path, 'far/again', tmp_path / 'root/z')
  real = os.scandir

  @contextlib.contextmanager
  def shuffled(path):
    with real(path) as entries:
      entries = list(entries)
      random.Random(seed).shuffle(entries)
      yield entries

  monkeypatch.setattr(os, 'scandir', shuffled)
  found, tree = _walked(tmp_path / 'root')
  assert found.keys() == {'', 'z', 'm', 'c', 'm/n', 'm/n/y'}
  assert tree.not_taken == {
    'a': 'duplicate: the folder is listed as z',
    'm/n/x': 'duplicate: the folder is listed as c',
    'm/n/again': 'duplicate: the folder is listed as z',
  }


def test_what_is_no_file_is_listed(tmp_path):
  os.mkfifo(tmp_path / 'pipe.mp4')
  _link(tmp_path, 'to_pipe.mp4', 'pipe.mp4')
  _link(tmp_path, 'gone.mp4', 'nowhere')
  _link(tmp_path, 'null.mp4', os.devnull)
  with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
    with contextlib.chdir(tmp_path):  # the name of a socket must be short
      server.bind('socket.mp4')
    found, tree = _walked(tmp_path)
  assert found == {'': ([], [])}
  assert tree.not_taken == {
    'gone.mp4': 'dangling: its target does not exist',
    'null.mp4': 'not_a_file: a character device',
    'pipe.mp4': 'not_a_file: a named pipe (FIFO)',
    'socket.mp4': 'not_a_file: a socket',
    'to_pipe.mp4': 'not_a_file: a named pipe (FIFO)',
  }


def test_folders_that_may_not_be_read(tmp_path, monkeypatch):
  _tree(tmp_path, 'root/a/1', 'root/open/2', 'root/z/locked/3', 'hidden/x/4')
  _link(tmp_path, 'root/far', tmp_path / 'hidden/x')
  root = tmp_path / 'root'
  for path in (root, root / 'open', root / 'z'):
    path.chmod(0o755)
  for path in (root / 'a', root / 'z/locked', tmp_path / 'hidden'):
    path.chmod(0)
  # From inside, since folders of pytest are closed to others.
  monkeypatch.chdir(root)
  with as_nobody():
    found, tree = _walked('.')
  assert found == {'': ([], []), 'open': (['2'], []), 'z': ([], [])}
  assert tree.not_taken == dict.fromkeys(
    ('a', 'z/locked', 'far'), 'no_permission: Permission denied'
  )
  assert tree.top_folders == ['a', 'open', 'z'] and tree.top_lost == ['far']
  monkeypatch.chdir(root / 'z')
  with (
    as_nobody(),
    pytest.raises(ValueError, match=r"path='l.* be listed: Per"),
  ):
    list(walk.Walk('locked'))


def test_names_of_any_bytes(tmp_path):
  folder = os.fsencode(tmp_path) + b'/caf\xe9'
  os.mkdir(folder)
  for name in (b'\xff\xfe', b'a\nb', b'plain'):
    with open(folder + b'/' + name, 'wb'):
      pass
  os.symlink(b'nowhere', folder + b'/\xfd')
  tree = walk.Walk(tmp_path)
  (below,) = [f for f in tree if f.name]
  assert below.name == 'caf\\xe9' == tree.top_folders[0]
  assert sorted(map(below.name_of, below.files)) == [
    'caf\\xe9/\\xff\\xfe',
    'caf\\xe9/a\\x0ab',
    'caf\\xe9/plain',
  ]
  assert tree.not_taken.keys() == {'caf\\xe9/\\xfd'}
  assert all((below.path / file).is_file() for file in below.files)


@pytest.mark.parametrize(
  ('name', 'suffix'),
  [('a.MP4', '.mp4'), ('a.b.c', '.c'), ('a', ''), ('.mp4', ''), ('a.', '.')],
)
def test_suffixes(name, suffix):
  assert walk.suffix(name) == suffix
