"""Records of data sets that TFDS prepared, also RLDS episodes."""

import hashlib
import io
import shutil

import cv2
import made_files
import numpy as np
import pytest
import tensorflow_datasets as tfds

from drp_jax.data import tfds_records


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
  records = tfds_records.tfds_records(
    'tiny_videos', tfds_folder, 'train', 'video', 'label'
  ).videos
  assert made_files.ids(records) == [
    'tiny_videos/train/0',
    'tiny_videos/train/1',
  ]
  found = {len(r.reader): (r.label, np.max(list(r.reader))) for r in records}
  assert found == {3: (1, 0), 5: (0, 10)}
  digests = {r.sha256 for r in records}
  content = np.zeros((3, 6, 8, 3), np.uint8).tobytes()
  assert len(digests) == 2 and hashlib.sha256(content).hexdigest() in digests
  assert all(record.split is None for record in records)


def test_frames_that_are_stored_as_pictures(tfds_folder):
  plain, pictures = (
    tfds_records.tfds_records(
      'tiny_videos', tfds_folder, 'train', name, ''
    ).videos
    for name in ('video', 'film')
  )
  for one, other in zip(plain, pictures, strict=True):
    frames = np.stack(list(other.reader))
    np.testing.assert_array_equal(np.stack(list(one.reader)) + 1, frames)
    assert frames.dtype == np.uint8


def test_other_file_formats_name_the_command_that_converts_them(
  tfds_folder, tmp_path
):
  shutil.copytree(tfds_folder, tmp_path / 'copy')
  folder = tmp_path / 'copy' / 'tiny_videos' / '1.2.0'
  info = folder / 'dataset_info.json'
  info.write_text(info.read_text().replace('array_record', 'tfrecord'))
  with pytest.raises(ValueError, match="if its file_format is 'arr") as error:
    tfds_records.tfds_records(
      'tiny_videos', tmp_path / 'copy', 'train', 'video', ''
    )
  assert str(error.value).endswith(
    f'tfds convert_format --dataset_version_dir={folder}'
    ' --out_file_format=array_record'
  )


def test_records_without_labels_and_slices(tfds_folder):
  (record,) = tfds_records.tfds_records(
    'tiny_videos', tfds_folder, 'train[:1]', 'video', ''
  ).videos
  assert record.label == -1


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'name': 'other'}, "config.tfds.name='other' in config.path=.*prepared"),
    ({'data_dir': 'nowhere'}, "config.path='nowhere' is not"),
    ({'split': 'test[:1]'}, r"config.tfds.split='test\[:1\]' must.*'train'"),
    ({'split': 'train['}, r"config.tfds.split='train\[' must.*'train'"),
    ({'split': 'train[:0%]'}, r"config.tfds.split='.*' holds no record"),
    ({'video_feature': 'depth'}, r"video_feature='depth' must be .*\[T, H, W"),
    ({'video_feature': 'clip'}, r"video_feature='clip' .*'video'"),
    ({'label_feature': 'video'}, r"label_feature='video' .*\['label'\]"),
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
    tfds_records.tfds_records(**{**good, **changes})


class TinyRlds(tfds.core.GeneratorBasedBuilder):
  """Episodes of 2, 3, ... steps; pixels of step t of episode i are 10 i + t."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    feature = tfds.features
    step = {
      'observation': {
        'image': feature.Image(shape=(6, 8, 3)),
        'wrist': feature.Image(shape=(None, None, 3)),
        'depth': feature.Tensor(shape=(6, 8, 1), dtype=np.float32),
      },
      'action': feature.Tensor(shape=(2,), dtype=np.float32),
      'language_instruction': feature.Text(),
      'kind': np.int64,
    }
    features = {
      'steps': feature.Dataset(step),
      'episode_metadata': {'task': np.int64, 'file_path': feature.Text()},
      'thumbnails': feature.Sequence({'image': feature.Image(shape=(6, 8, 3))}),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=feature.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      'train': self._generate_examples(range(5)),
      'test': self._generate_examples(range(5, 7)),
    }

  def _generate_examples(self, episodes):
    for episode in episodes:
      steps = [
        {
          'observation': {
            'image': _png(np.full((6, 8, 3), 10 * episode + t, np.uint8)),
            'wrist': io.BytesIO(b'no picture'),  # must not be decoded
            'depth': np.zeros((6, 8, 1), np.float32),
          },
          'action': np.float32([episode, t]),
          'language_instruction': 'push',
          'kind': 3,
        }
        for t in range(2 + episode)
      ]
      yield (
        episode,
        {
          'steps': steps,
          'episode_metadata': {'task': episode, 'file_path': 'a.npy'},
          'thumbnails': {
            'image': [_png(np.full((6, 8, 3), episode, np.uint8))]
          },
        },
      )


@pytest.fixture(scope='module')
def rlds(tmp_path_factory):
  folder = tmp_path_factory.mktemp('rlds')
  TinyRlds(data_dir=folder, file_format='array_record').download_and_prepare()
  return folder


def _episodes(folder, split, video='steps/observation/image'):
  return tfds_records.tfds_records(
    'tiny_rlds', folder, split, video, 'episode_metadata/task'
  ).videos


def test_episodes_of_rlds_are_their_steps_in_order(rlds):
  """Of which only the one feature is decoded."""
  records = _episodes(rlds, 'train')
  assert sorted(record.label for record in records) == [0, 1, 2, 3, 4]
  for record in records:
    episode = record.label
    frames = np.stack(list(record.reader))
    assert frames.shape == (2 + episode, 6, 8, 3) and frames.dtype == np.uint8
    assert len(record.reader) == len(frames)
    expected = 10 * episode + np.arange(2 + episode)
    np.testing.assert_array_equal(frames.max((1, 2, 3)), expected)
    np.testing.assert_array_equal(frames.min((1, 2, 3)), expected)
    assert record.sha256 == hashlib.sha256(frames.tobytes()).hexdigest()
    assert record.is_local and record.split is None


def test_the_action_that_is_taken_at_a_step_led_to_the_next(rlds):
  records = tfds_records.tfds_records(
    *('tiny_rlds', rlds, 'train', 'steps/observation/image'),
    *('episode_metadata/task', 'steps/action'),
  ).videos
  for record in records:
    episode = record.label
    taken = [[episode, t] for t in range(1 + episode)]
    action = record.recorded().action
    np.testing.assert_array_equal(action, [[0, 0], *taken])
  assert all(record.recorded is None for record in _episodes(rlds, 'train'))


def test_sequences_of_features_of_their_own(rlds):
  for record in _episodes(rlds, 'all', 'thumbnails/image'):
    (frame,) = record.reader
    assert frame.max() == frame.min() == record.label


@pytest.mark.parametrize(
  ('split', 'count'),
  [
    ('train', 5),
    ('train[:40%]', 2),
    ('train[1:3]', 2),
    ('train+test', 7),
    ('train[:20%]+test[1:]', 2),
    ('all', 7),
  ],
)
def test_expressions_of_splits(rlds, split, count):
  records = _episodes(rlds, split)
  assert made_files.ids(records) == [
    f'tiny_rlds/{split}/{index}' for index in range(count)
  ]
  assert len({record.label for record in records}) == count


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'video_feature': 'observation/image'},
      r"must be a .*\['steps/observation/image', 'steps/observation/wrist',"
      r" 'thumbnails/image'\]\.$",
    ),
    ({'video_feature': 'steps'}, "video_feature='steps' must be"),
    ({'video_feature': 'steps/observation/depth'}, 'must be a feature'),
    (
      {'action_feature': 'steps/kind'},
      r"action_feature='steps/kind' must .* of \['steps/action'\]\.$",
    ),
    ({'label_feature': 'steps/kind'}, r"of \['episode_metadata/task'\]\.$"),
    ({'split': 'all[:50%]'}, "config.tfds.split='all.* must be of .*'train'"),
  ],
  ids=str,
)
def test_what_an_rlds_set_has_not_is_named(rlds, changes, message):
  good = dict(
    name='tiny_rlds',
    data_dir=rlds,
    split='train',
    video_feature='steps/observation/image',
    label_feature='',
  )
  with pytest.raises(ValueError, match=message):
    tfds_records.tfds_records(**{**good, **changes})
