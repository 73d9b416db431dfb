"""The command on data sets of robots: LeRobot, RLDS, HDF5, SSV2 as mp4."""

import io
import json
import pathlib

import av
import cv2
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import random_inputs
import tensorflow_datasets as tfds

from configs import preprocess as preprocess_config
from drp_jax.data import report, shards
from drp_jax.preprocess import video
from experiments import run_preprocess

_LENGTHS = 30, 22, 41, 12  # frames of episodes
_TASKS = 'push', 'lift', 'push', 'lift'
_CAMERAS = 'observation.images.top', 'observation.images.side'
_T = 10


def _config(variant, path, shards_dir, **data):
  config = preprocess_config.get_config(variant)
  config.path, config.data.shards_dir = str(path), str(shards_dir)
  config.data.clip_length = config.data.clip_stride = _T
  config.data.validation_fraction = 0.0
  config.data.num_workers = 1
  config.data.update(data)
  return config


def _examples(shards_dir, split='train'):
  source = shards.open_split(shards_dir, split, None)
  return [source[i] for i in range(len(source))]


def _episode(number, camera=0):
  return random_inputs.moving_squares(_LENGTHS[number], 2 * number + camera)


def _actions(number):
  """Taken at each frame: the episode and the number of the frame."""
  return [[number, t] for t in range(_LENGTHS[number])]


def _png(frame):
  return cv2.imencode('.png', frame[..., ::-1])[1].tobytes()


def _lerobot(folder, dtype):
  """A data set of version 3.0, all episodes of a camera in one file."""
  files = {'chunk_index': 0, 'file_index': 0}
  rows, pictures = [], {camera: [] for camera in _CAMERAS}
  for index, length in enumerate(_LENGTHS):
    start = sum(_LENGTHS[:index])
    row = {'episode_index': index, 'length': length, 'tasks': [_TASKS[index]]}
    row |= {f'data/{name}': value for name, value in files.items()}
    for camera in _CAMERAS if dtype == 'video' else ():
      part = f'videos/{camera}'
      row |= {f'{part}/{name}': value for name, value in files.items()}
      row[f'{part}/from_timestamp'] = start / 10
      row[f'{part}/to_timestamp'] = (start + length) / 10
    rows.append(row)
  for number, camera in enumerate(_CAMERAS):
    frames = [_episode(index, number) for index in range(len(_LENGTHS))]
    frames = np.concatenate(frames)
    if dtype == 'video':
      path = folder / 'videos' / camera / 'chunk-000' / 'file-000.mp4'
      path.parent.mkdir(parents=True)
      video.write_video(path, frames, 10)
    pictures[camera] = [{'bytes': _png(f), 'path': 'a.png'} for f in frames]
  data = {
    'episode_index': np.repeat(np.arange(len(_LENGTHS)), _LENGTHS),
    'action': sum(map(_actions, range(len(_LENGTHS))), []),
  }
  if dtype == 'image':
    data |= pictures
  for name, table in (
    ('data', pa.table(data)),
    ('meta/episodes', pa.Table.from_pylist(rows)),
  ):
    path = folder / name / 'chunk-000' / 'file-000.parquet'
    path.parent.mkdir(parents=True)
    pq.write_table(table, path)
  info = {
    'codebase_version': 'v3.0',
    'fps': 10,
    'features': {
      **{camera: {'dtype': dtype} for camera in _CAMERAS},
      'action': {'dtype': 'float32'},
    },
    'data_path': 'data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet',
    'video_path': 'videos/{video_key}/chunk-{chunk_index:03d}/'
    'file-{file_index:03d}.mp4',
  }
  (folder / 'meta/info.json').write_text(json.dumps(info))
  return folder


@pytest.fixture(scope='module', params=['video', 'image'])
def lerobot(request, tmp_path_factory):
  folder = tmp_path_factory.mktemp('lerobot')
  return request.param, _lerobot(folder, request.param)


def _assert_clip_of(example, frames, atol):
  """The clip has the frames that it says, of this episode."""
  start = example['first_frame']
  found, expected = example['image'], frames[start : start + _T]
  assert len(expected) == _T
  if atol == 0:
    np.testing.assert_array_equal(found, expected)
  else:  # a lossy codec
    assert np.abs(found.astype(float) - expected).mean() < atol


def _assert_led_to(example, number):
  """The clip has what was taken one frame before each of its frames."""
  start = example['first_frame']
  expected = np.float32(_actions(number)[start : start + _T - 1])
  np.testing.assert_array_equal(example['action'][1:], expected)
  assert not example['action'][0].any()


def test_lerobot_episodes_never_run_into_each_other(lerobot, tmp_path):
  kind, folder = lerobot
  config = _config('lerobot', folder, tmp_path)
  found = run_preprocess.preprocess(config)
  assert found['num_videos'] == 8 and not found['left_out']
  assert found['num_clips']['train'] == 2 * (3 + 2 + 4 + 1)
  assert found['classes'] == ['lift', 'push']
  for example in _examples(tmp_path):
    camera, _, number = example['source_id'].decode().partition('/')
    frames = _episode(int(number), _CAMERAS.index(camera))
    _assert_clip_of(example, frames, 0 if kind == 'image' else 6)
    _assert_led_to(example, int(number))
    assert found['classes'][example['label']] == _TASKS[int(number)]


def test_cameras_of_an_episode_are_held_out_together(lerobot, tmp_path):
  _, folder = lerobot
  config = _config('lerobot', folder, tmp_path, hold_out='videos')
  config.data.validation_fraction = 0.25
  found = run_preprocess.preprocess(config)
  assert found['held_out_videos'] == 2
  train, validation = (
    {
      e['source_id'].decode().partition('/')[::2]
      for e in _examples(tmp_path, s)
    }
    for s in ('train', 'validation')
  )
  assert {camera for camera, _ in validation} == {*_CAMERAS}
  assert len({episode for _, episode in validation}) == 1
  assert not {e for _, e in train} & {e for _, e in validation}


def test_lerobot_at_another_rate(lerobot, tmp_path):
  kind, folder = lerobot
  config = _config('lerobot', folder, tmp_path, fps=5.0)
  config.lerobot.camera = _CAMERAS[0]
  if kind == 'image':
    with pytest.raises(ValueError, match='config.data.fps=5.0 needs the times'):
      run_preprocess.preprocess(config)
    return
  config.data.max_frames = 18
  found = run_preprocess.preprocess(config)
  assert {e['source_id'][-6:] for e in found['left_out']} == {'000003'}
  assert found['cut_short'] == [
    {'source_id': f'{_CAMERAS[0]}/000002', 'read': 18, 'unread': 3}
  ]
  for example in _examples(tmp_path):
    frames = _episode(int(example['source_id'][-6:]))[::2]
    _assert_clip_of(example, frames, 12)
    # Means of the two that were taken between.
    steps = np.diff(example['action'][1:], axis=0)
    np.testing.assert_array_equal(steps, [[0, 2]] * (_T - 2))


def test_actions_of_another_length_leave_the_episode_out(tmp_path):
  folder = _lerobot(tmp_path / 'set', 'video')
  path = folder / 'data/chunk-000/file-000.parquet'
  pq.write_table(pq.read_table(path).slice(1), path)
  config = _config('lerobot', folder, tmp_path / 'shards')
  config.lerobot.camera = _CAMERAS[0]
  (left_out,) = run_preprocess.preprocess(config)['left_out']
  assert left_out == {
    'source_id': f'{_CAMERAS[0]}/000000',
    'reason': 'bad_recording: 29 of 30 rows',
  }


def test_a_lerobot_file_whose_times_are_wrong_gives_no_clip(tmp_path):
  folder = _lerobot(tmp_path / 'set', 'video')
  path = folder / 'videos' / _CAMERAS[0] / 'chunk-000' / 'file-000.mp4'
  frames = np.concatenate([_episode(index) for index in range(4)])
  video.write_video(path, np.delete(frames, 45, 0), 10)
  config = _config('lerobot', folder, tmp_path / 'shards')
  found = run_preprocess.preprocess(config)
  # The file lacks a frame of the second episode, so the last ends too early.
  assert report.count_reasons(found['left_out']) == {'truncated': 1}
  assert found['left_out'][0]['source_id'] == f'{_CAMERAS[0]}/000003'
  with av.open(str(path)) as file:
    assert file.streams.video[0].frames == sum(_LENGTHS) - 1


class SquareSteps(tfds.core.GeneratorBasedBuilder):
  """Episodes in the layout of RLDS."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    image = tfds.features.Image(shape=(64, 64, 3))
    steps = tfds.features.Dataset(
      {
        'observation': {'image': image},
        'action': tfds.features.Tensor(shape=(2,), dtype=np.float32),
      }
    )
    features = {'steps': steps, 'episode_metadata': {'task': np.int64}}
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {
      'train': self._generate_examples((0, 1, 3)),
      'test': self._generate_examples((2,)),
    }

  def _generate_examples(self, episodes):
    for number in episodes:
      steps = [
        {
          'observation': {'image': io.BytesIO(_png(frame))},
          'action': np.float32(_actions(number)[t]),
        }
        for t, frame in enumerate(_episode(number))
      ]
      yield number, {'steps': steps, 'episode_metadata': {'task': number}}


def test_rlds(tmp_path):
  builder = SquareSteps(data_dir=tmp_path / 'sets', file_format='array_record')
  builder.download_and_prepare()
  config = _config('tfds', tmp_path / 'sets', tmp_path / 'shards')
  config.tfds.name, config.tfds.split = 'square_steps', 'train+test'
  config.tfds.video_feature = 'steps/observation/image'
  config.tfds.label_feature = 'episode_metadata/task'
  config.tfds.action_feature = 'steps/action'
  config.data.max_frames = 35
  found = run_preprocess.preprocess(config)
  assert found['num_clips']['train'] == 3 + 2 + 3 + 1
  (cut,) = found['cut_short']
  assert (cut['read'], cut['unread']) == (35, 6)
  for example in _examples(tmp_path / 'shards'):
    _assert_clip_of(example, _episode(example['label']), 0)
    _assert_led_to(example, example['label'])


@pytest.mark.parametrize('num_workers', [1, 2])
def test_hdf5(tmp_path, num_workers):
  (tmp_path / 'sets').mkdir()
  for task in ('lift', 'push'):
    with h5py.File(tmp_path / 'sets' / f'{task}.hdf5', 'w') as file:
      for number in range(4):
        if _TASKS[number] == task:
          key = f'data/demo_{number}/obs/agentview_image'
          frames = _episode(number)
          file.create_dataset(key, data=frames, compression='gzip')
          file[f'data/demo_{number}/actions'] = _actions(number)
  config = _config(
    'hdf5', tmp_path / 'sets', tmp_path / 'shards', num_workers=num_workers
  )
  config.data.max_frames = 35
  found = run_preprocess.preprocess(config)
  assert found['num_clips']['train'] == 3 + 2 + 3 + 1
  (cut,) = found['cut_short']
  assert cut['source_id'] == 'push.hdf5/demo_2' and cut['unread'] == 6
  assert found['classes'] == ['lift.hdf5', 'push.hdf5']
  for example in _examples(tmp_path / 'shards'):
    number = int(example['source_id'].decode()[-1])
    _assert_clip_of(example, _episode(number), 0)
    _assert_led_to(example, number)
    assert found['classes'][example['label']] == f'{_TASKS[number]}.hdf5'


def test_ssv2_as_mp4(tmp_path):
  folder = pathlib.Path(tmp_path / 'ssv2')
  folder.mkdir()
  for number, suffix in enumerate(('.mp4', '.mkv')):
    frames = random_inputs.moving_squares(_T, number)
    video.write_video(folder / f'{number}.mp4', frames, 12)
    (folder / f'{number}.mp4').rename(folder / f'{number}{suffix}')
  entry = {'label': '', 'template': 'Moving [something]'}
  for name, content in (
    ('train', [{**entry, 'id': '0'}]),
    ('validation', [{**entry, 'id': '1'}]),
    ('labels', {'Moving something': '40'}),
  ):
    (folder / f'ssv2-{name}.json').write_text(json.dumps(content))
  found = run_preprocess.preprocess(
    _config('ssv2', folder, tmp_path / 'shards')
  )
  assert found['num_clips'] == {'train': 1, 'validation': 1}
  (example,) = _examples(tmp_path / 'shards', 'validation')
  assert example['source_id'] == b'1.mkv' and example['label'] == 40
