"""Folders of videos and pictures: what is found, and what is said instead."""

import errno
import hashlib
import os
import shutil

import made_files
import pytest

from drp_jax.data import folders, sources


def test_videos_of_a_folder_and_below_are_sorted(tmp_path):
  names = 'z.mp4', 'b/c.webm', 'b/a.AVI', 'a.gif', 'b-1.mov', 'm.mkv'
  made_files.touch(tmp_path, *names, 'readme.txt', 'b/mp4', 'a.mp4.part')
  (tmp_path / 'folder.mp4').mkdir()
  videos = folders.folder_videos(tmp_path).videos
  assert made_files.ids(videos) == sorted(names)
  for video in videos:
    assert video.path == tmp_path / video.source_id
    assert video.label == -1 and video.split is None
    expected = hashlib.sha256(video.source_id.encode()).hexdigest()
    assert video.sha256 == expected


def test_each_video_is_listed_once_under_its_own_name(tmp_path):
  """Or, if it lies elsewhere, under the first link to it."""
  made_files.touch(tmp_path / 'far', '1.mp4', '2.mp4')
  made_files.touch(tmp_path / 'root', 'b/3.mp4', 'c/copy.mp4')
  os.link(tmp_path / 'root/b/3.mp4', tmp_path / 'root/b/hard.mp4')
  made_files.link(tmp_path, 'root/a.mp4', 'b/3.mp4')
  made_files.link(tmp_path, 'root/c/one.mp4', tmp_path / 'far/1.mp4')
  made_files.link(tmp_path, 'root/b/other.mp4', tmp_path / 'far/1.mp4')
  made_files.link(tmp_path, 'root/d', tmp_path / 'far')
  listing = folders.folder_videos(tmp_path / 'root')
  assert made_files.ids(listing.videos) == [
    *('b/3.mp4', 'b/hard.mp4', 'c/copy.mp4', 'd/1.mp4', 'd/2.mp4'),
  ]
  assert listing.not_taken == {
    'a.mp4': 'duplicate: the file is listed as b/3.mp4',
    'b/other.mp4': 'duplicate: the file is listed as d/1.mp4',
    'c/one.mp4': 'duplicate: the file is listed as d/1.mp4',
  }


def test_files_of_no_use_are_counted_by_suffix(tmp_path):
  made_files.touch(tmp_path, '1.mp4', '1.txt', 'a/2.TXT', 'README')
  listing = folders.folder_videos(tmp_path)
  assert listing.ignored == {'': 1, '.txt': 2} and not listing.not_taken
  made_files.touch(
    tmp_path / 'frames', 'v/1.png', 'v/._1.png', 'v/notes.json', 'v/2.bmp'
  )
  listing = folders.frame_folders(tmp_path / 'frames')
  assert listing.ignored == {'.bmp': 1, '.json': 1, '.png': 1}


@pytest.fixture
def classes(tmp_path):
  """Six classes, of which two give videos that lie in their folders."""
  made_files.touch(tmp_path / 'far', 'x/1.mp4')
  root = made_files.touch(
    tmp_path / 'root', 'b/2.mp4', 'd/deep/3.mp4', 'e/notes.txt'
  )
  (root / 'a').mkdir()
  made_files.link(root, 'c', tmp_path / 'far')
  made_files.link(root, 'f', tmp_path / 'not_mounted')
  made_files.link(root, 'd.mp4', 'gone.mp4')  # no folder, whatever it was
  made_files.touch(root, 'readme.txt')
  made_files.link(root, 'link.txt', 'readme.txt')
  return root


def test_labels_come_from_the_names_of_folders_alone(classes):
  """Of empty, linked, closed ones, and of those whose link leads nowhere."""
  listing = folders.class_folders(classes)
  assert listing.classes == ['a', 'b', 'c', 'd', 'e', 'f']
  labels = {video.source_id: video.label for video in listing.videos}
  assert labels == {'b/2.mp4': 1, 'c/x/1.mp4': 2, 'd/deep/3.mp4': 3}
  assert listing.not_taken == dict.fromkeys(
    ('d.mp4', 'f'), 'dangling: its target does not exist'
  )
  shutil.rmtree(classes / 'b')
  (classes / 'b').mkdir()
  after = {v.source_id: v.label for v in folders.class_folders(classes).videos}
  assert after == {'c/x/1.mp4': 2, 'd/deep/3.mp4': 3}


def test_a_closed_class_shifts_no_label(classes, monkeypatch):
  real = os.scandir

  def scandir(path):
    if os.fspath(path).endswith('root/b'):
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return real(path)

  monkeypatch.setattr(os, 'scandir', scandir)
  listing = folders.class_folders(classes)
  labels = {video.source_id: video.label for video in listing.videos}
  assert labels == {'c/x/1.mp4': 2, 'd/deep/3.mp4': 3}
  assert listing.not_taken['b'] == 'no_permission: Permission denied'


def test_a_video_in_no_class_is_named(classes):
  made_files.touch(classes, 'loose.mp4')
  with pytest.raises(ValueError, match="but 'loose.mp4' lies in none"):
    folders.class_folders(classes)


def test_frame_folders_behind_links_and_loops(tmp_path):
  root = made_files.touch(tmp_path / 'root', 'a/1.png', 'a/2.png')
  made_files.touch(tmp_path / 'far', 'v/1.png')
  made_files.link(root, 'b', tmp_path / 'far')
  made_files.link(root, 'a/loop', '..')
  made_files.link(root, 'a/3.png', '1.png')  # a frame that is shown again
  made_files.link(root, 'a/4.png', 'nowhere.png')
  os.mkfifo(root / 'a' / '5.png')
  listing = folders.frame_folders(root)
  assert made_files.ids(listing.videos) == ['a', 'b/v']
  frames = [path.name for path in sources.pictures(listing.videos[0].path)]
  assert frames == ['1.png', '2.png', '3.png']
  assert listing.videos[0].sha256
  assert listing.not_taken == {
    'a/4.png': 'dangling: its target does not exist',
    'a/5.png': 'not_a_file: a named pipe (FIFO)',
    'a/loop': 'loop: leads back to .',
  }


@pytest.mark.parametrize('find', [folders.folder_videos, folders.frame_folders])
def test_what_an_empty_folder_holds_instead_is_said(tmp_path, find):
  made_files.link(tmp_path, 'videos', 'nowhere')
  with pytest.raises(ValueError, match=r'holds no .*\(videos: dangling: its'):
    find(tmp_path)


@pytest.mark.parametrize('find', [folders.folder_videos, folders.frame_folders])
def test_a_folder_that_holds_nothing_is_named(tmp_path, find):
  made_files.touch(tmp_path / 'empty', 'readme.txt')
  with pytest.raises(ValueError, match=r"config.path='.*/empty' holds no"):
    find(tmp_path / 'empty')
  with pytest.raises(ValueError, match=r"config.path='.*/nowhere' is not a "):
    find(tmp_path / 'nowhere')


def test_frame_folders_and_their_pictures_in_natural_order(tmp_path):
  made_files.touch(
    tmp_path, 'b/2.png', 'b/10.png', 'b/1.PNG', 'b/._1.png', 'b/notes.txt'
  )
  made_files.touch(
    tmp_path, 'a/x/f_9.jpg', 'a/x/f_010.jpeg', 'a/x/f_9b.jpg', 'c/no.txt'
  )
  videos = folders.frame_folders(tmp_path).videos
  assert made_files.ids(videos) == ['a/x', 'b']
  names = [[p.name for p in sources.pictures(v.path)] for v in videos]
  assert names == [
    ['f_9.jpg', 'f_9b.jpg', 'f_010.jpeg'],
    ['1.PNG', '2.png', '10.png'],
  ]


def test_pictures_without_a_folder_of_their_own_are_refused(tmp_path):
  with pytest.raises(ValueError, match='config.path=.*holds pictures itself'):
    folders.frame_folders(made_files.touch(tmp_path, '1.png', 'a/1.png'))
