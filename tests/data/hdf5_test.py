"""Episodes in HDF5 files, laid out as robomimic, LIBERO and others do."""

import os
import pickle
import tracemalloc

import cv2
import h5py
import hdf5plugin
import made_files
import numpy as np
import pytest

from drp_jax.data import hdf5, sources

_ROBOMIMIC = 'data/*/obs/agentview_image'


def _frames(count, episode=0, shape=(6, 8, 3)):
  levels = (10 * episode + np.arange(count)).astype(np.uint8)
  return np.broadcast_to(levels[:, None, None, None], (count, *shape)).copy()


def _actions(count, episode=0):
  """Taken at each frame: its number and the episode's."""
  return np.stack([np.arange(count), np.full(count, episode)], 1) * 1.0


def _levels(record):
  frames = list(record.reader)
  assert len(frames) == len(record.reader)
  assert all(frame.shape[2] == 3 for frame in frames)
  assert all(frame.dtype == np.uint8 for frame in frames)
  return [int(frame.max()) for frame in frames]


def _robomimic(path, lengths, key='agentview_image', **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  with h5py.File(path, 'w') as file:
    data = file.create_group('data')
    data.attrs['total'] = sum(lengths)
    for episode, length in enumerate(lengths):
      demo = data.create_group(f'demo_{episode}')
      demo.attrs['num_samples'] = length
      demo['actions'] = _actions(length, episode)
      demo.create_dataset(
        f'obs/{key}', data=_frames(length, episode), **options
      )
      demo['obs/eef_pos'] = np.zeros((length, 3))
  return path


def test_episodes_are_groups_and_files_are_tasks(tmp_path):
  _robomimic(tmp_path / 'lift.hdf5', (3, 5))
  _robomimic(tmp_path / 'b/can.h5', (4,))
  made_files.touch(tmp_path, 'readme.md', 'b/notes.txt')
  listing = hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC)
  assert made_files.ids(listing.videos) == [
    *('b/can.h5/demo_0', 'lift.hdf5/demo_0', 'lift.hdf5/demo_1'),
  ]
  assert listing.classes == ['b/can.h5', 'lift.hdf5']
  assert [video.label for video in listing.videos] == [0, 1, 1]
  assert [_levels(video) for video in listing.videos] == [
    *([0, 1, 2, 3], [0, 1, 2], [10, 11, 12, 13, 14]),
  ]
  assert listing.ignored == {'.md': 1, '.txt': 1} and not listing.not_taken
  assert all(video.split is None for video in listing.videos)


@pytest.mark.parametrize(
  'options',
  [
    {'compression': 'gzip'},
    {'chunks': (1, 6, 8, 3)},
    {'chunks': (5, 3, 4, 1), 'compression': 'lzf'},
    {'chunks': (40, 6, 8, 3), **hdf5plugin.Blosc()},
  ],
  ids=['gzip', 'frames', 'parts', 'blosc'],
)
def test_arrays_in_chunks_and_compressed(tmp_path, options):
  _robomimic(tmp_path / 'a.hdf5', (40, 41), **options)
  one, other = hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC).videos
  assert _levels(one) == list(range(40))
  assert _levels(other) == list(range(10, 51))


def test_a_reader_can_be_sent_and_its_digest_is_of_the_frames(tmp_path):
  _robomimic(tmp_path / 'a.hdf5', (7,))
  _robomimic(tmp_path / 'b.hdf5', (7,), compression='gzip')
  one, other = hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC).videos
  assert one.sha256 == other.sha256 and not one.is_local
  copy = pickle.loads(pickle.dumps(one.reader))
  np.testing.assert_array_equal(list(copy), _frames(7))


def test_a_file_that_is_one_episode(tmp_path):
  """As of ALOHA, whose tasks are folders."""
  for name in ('a/episode_0.hdf5', 'a/episode_1.hdf5'):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    with h5py.File(path, 'w') as file:
      file['observations/images/top'] = _frames(4, int(name[-6]))
  listing = hdf5.hdf5_episodes(tmp_path, '/observations/images/top')
  assert made_files.ids(listing.videos) == [
    'a/episode_0.hdf5',
    'a/episode_1.hdf5',
  ]
  assert [video.label for video in listing.videos] == [-1, -1]
  assert _levels(listing.videos[1]) == [10, 11, 12, 13]
  assert not listing.classes


def test_episodes_that_follow_each_other_in_one_array(tmp_path):
  """As of stable-worldmodel; none goes on into the next."""
  lengths = (20, 3, 17)
  with h5py.File(tmp_path / 'pusht.h5', 'w') as file:
    pixels = np.concatenate([_frames(n, 5 * e) for e, n in enumerate(lengths)])
    file.create_dataset('pixels', data=pixels, chunks=(8, 6, 8, 3))
    file['ep_len'] = np.int32(lengths)
    file['ep_offset'] = np.int64([0, 20, 23])
  videos = hdf5.hdf5_episodes(tmp_path, 'pixels').videos
  assert made_files.ids(videos) == [f'pusht.h5/{n:06d}' for n in range(3)]
  for number, (video, length) in enumerate(zip(videos, lengths, strict=True)):
    assert _levels(video) == [50 * number + t for t in range(length)]
  with h5py.File(tmp_path / 'pusht.h5', 'a') as file:
    file['ep_len'][2] = 18
  listing = hdf5.hdf5_episodes(tmp_path, 'pixels')
  assert len(listing.videos) == 2
  assert listing.not_taken == {
    'pusht.h5/000002': 'truncated: frames 23 to 41 of 40'
  }


def test_the_action_that_is_taken_at_a_frame_led_to_the_next(tmp_path):
  path = _robomimic(tmp_path / 'a.hdf5', (3, 5, 2))
  with h5py.File(path, 'a') as file:
    del file['data/demo_2/actions']
  videos = hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC, 'data/*/actions').videos
  for episode, length in enumerate((3, 5)):
    recording = pickle.loads(pickle.dumps(videos[episode].recorded))()
    expected = np.concatenate([[[0, 0]], _actions(length, episode)[:-1]])
    np.testing.assert_array_equal(recording.action, expected)
  assert videos[2].recorded is None
  plain = hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC).videos
  assert all(video.recorded is None for video in plain)
  with pytest.raises(ValueError, match="actions='data/demo_0/a' must have as "):
    hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC, 'data/demo_0/a')
  with pytest.raises(ValueError, match="config.hdf5.actions='a/.' must be a k"):
    hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC, 'a/*')


def test_actions_are_cut_as_the_frames_are(tmp_path):
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    file['pixels'], file['action'] = _frames(9), _actions(9)
    file['ep_len'], file['ep_offset'] = [4, 5], [0, 4]
  _, video = hdf5.hdf5_episodes(tmp_path, 'pixels', 'action').videos
  assert video.recorded().action[:, 0].tolist() == [0, 4, 5, 6, 7]


@pytest.mark.parametrize('kind', ['variable', 'fixed', 'padded'])
def test_pictures_that_are_stored_as_files(tmp_path, kind):
  pictures = [cv2.imencode('.jpg', frame)[1] for frame in _frames(5)]
  longest = max(map(len, pictures)) + 3
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    if kind == 'variable':
      array = file.create_dataset('cam', (5,), h5py.vlen_dtype(np.uint8))
      for index, picture in enumerate(pictures):
        array[index] = picture
    elif kind == 'fixed':
      file['cam'] = np.array([p.tobytes() for p in pictures], f'S{longest}')
    else:
      file['cam'] = np.stack(
        [np.pad(p, (0, longest - len(p))) for p in pictures]
      )
  (video,) = hdf5.hdf5_episodes(tmp_path, 'cam').videos
  found = list(video.reader)
  assert all(isinstance(picture, bytes) for picture in found)
  for picture, frame in zip(found, _frames(5), strict=True):
    decoded = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_allclose(decoded, frame, atol=2)


def test_what_is_not_taken_has_its_reason(tmp_path):
  _robomimic(tmp_path / 'good.hdf5', (3, 3))
  with h5py.File(tmp_path / 'good.hdf5', 'a') as file:
    del file['data/demo_1/obs/agentview_image']
    file['data/demo_2/obs/agentview_image'] = np.zeros((3, 3, 6, 8))
    file['data/mask'] = np.zeros(3)
  whole = (tmp_path / 'good.hdf5').read_bytes()
  (tmp_path / 'broken.hdf5').write_bytes(whole[: len(whole) // 2])
  made_files.touch(tmp_path, 'other.h5')
  with h5py.File(tmp_path / 'plain.h5', 'w') as file:
    file['pixels'] = _frames(3)
  os.mkfifo(tmp_path / 'pipe.h5')
  listing = hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC)
  assert made_files.ids(listing.videos) == ['good.hdf5/demo_0']
  reasons = {name: text[:30] for name, text in listing.not_taken.items()}
  assert reasons == {
    'broken.hdf5': 'unreadable: Unable to synchron',
    'good.hdf5/demo_1': "no_images: no array 'data/demo"[:30],
    'good.hdf5/demo_2': "no_images: 'data/demo_2/obs/ag",
    'good.hdf5/mask': "no_images: no array 'data/mask",
    'other.h5': 'unreadable: Unable to synchron',
    'pipe.h5': 'not_a_file: a named pipe (FIFO',
    'plain.h5': "no_images: no group in 'data'",
  }
  assert (
    'is float64[3, 3, 6, 8], expected uint8[N, H, W, 3]'
    in (listing.not_taken['good.hdf5/demo_2'])
  )
  assert not any(str(tmp_path) in text for text in listing.not_taken.values())


def test_a_wrong_key_path_lists_those_there_are(tmp_path):
  _robomimic(tmp_path / 'lift.hdf5', (3, 5), key='frontview')
  with h5py.File(tmp_path / 'lift.hdf5', 'a') as file:
    file['data/demo_0/obs/cam_2'] = _frames(3)
    file['thumbnails'] = _frames(3)
  with pytest.raises(ValueError) as error:
    hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC)
  message = str(error.value)
  assert message.startswith(f'config.hdf5.images={_ROBOMIMIC!r} names no frame')
  found = "['data/*/obs/cam_2', 'data/*/obs/frontview', 'thumbnails']"
  assert found in message


@pytest.mark.parametrize(
  'images', ['', '/', 'a/*/b/*', 'data/demo_*/obs', '*/']
)
def test_what_is_no_key_path_is_refused(tmp_path, images):
  with pytest.raises(ValueError, match='config.hdf5.images=.* must be a key p'):
    hdf5.hdf5_episodes(tmp_path, images)


def test_a_folder_without_files_is_named(tmp_path):
  made_files.touch(tmp_path, 'a.mp4')
  with pytest.raises(ValueError, match='holds no file; looked for .h5, .hdf5'):
    hdf5.hdf5_episodes(tmp_path, _ROBOMIMIC)


def test_frames_are_read_a_few_at_a_time(tmp_path):
  """Of 300 MB, in chunks of one frame."""
  shape = 512, 512, 3
  with h5py.File(tmp_path / 'a.h5', 'w') as file:
    file.create_dataset(
      *('pixels', (400, *shape), np.uint8),
      chunks=(1, *shape),
      compression='gzip',
      compression_opts=1,
    )
  (video,) = hdf5.hdf5_episodes(tmp_path, 'pixels').videos
  assert isinstance(video, sources.Record)
  tracemalloc.start()
  try:
    assert sum(1 for _ in video.reader) == 400
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 40 * 2**20
