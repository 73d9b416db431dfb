"""LeRobot data sets that the `lerobot` package wrote, and damaged ones.

`tests/write_lerobot_sets.py` made tests/lerobot_sets: three episodes of
7, 5 and 6 frames that two cameras filmed at 10 frames per second.
"""

import json
import os
import pathlib
import pickle
import shutil

import cv2
import made_files
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drp_jax.data import lerobot, sources

_SETS = pathlib.Path(__file__).parents[1] / 'lerobot_sets'
_VIDEOS = sorted(p.name for p in _SETS.iterdir() if 'image' not in p.name)
_PICTURES = ('v2.1_image', 'v3.0_image')
_LENGTHS = 7, 5, 6
_TOP, _SIDE = 'observation.images.top', 'observation.images.side'


def _edit(path, **changes):
  path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def copy(tmp_path):
  def copy(name):
    return shutil.copytree(_SETS / name, tmp_path / name)

  return copy


@pytest.mark.parametrize('name', [*_VIDEOS, *_PICTURES])
def test_every_camera_and_episode_is_a_video_with_its_task(name):
  listing = lerobot.lerobot_videos(_SETS / name, '')
  assert made_files.ids(listing.videos) == [
    f'{camera}/{episode:06d}'
    for camera in (_SIDE, _TOP)
    for episode in range(3)
  ]
  assert listing.classes == ['lift the cup', 'push the block']
  assert [video.label for video in listing.videos] == [1, 0, 1, 1, 0, 1]
  groups = sources.groups(listing.videos)
  assert groups[f'{_TOP}/000001'] == groups[f'{_SIDE}/000001']
  assert len(set(groups.values())) == 3
  assert not listing.not_taken
  assert len({video.sha256 for video in listing.videos}) == 6


@pytest.mark.parametrize('name', [n for n in _VIDEOS if n.startswith('v3')])
def test_episodes_of_a_file_follow_each_other(name):
  videos = lerobot.lerobot_videos(_SETS / name, _TOP).videos
  assert [video.span.num_frames for video in videos] == [*_LENGTHS]
  one, other, last = (video.span for video in videos)
  assert one.start == 0 and one.end == pytest.approx(0.7)
  if name == 'v3.0_files':
    assert len({video.path for video in videos}) == 3
    assert other.start == last.start == 0
  else:
    assert len({video.path for video in videos}) == 1
    assert other.start == pytest.approx(0.7) and last.end == pytest.approx(1.8)


def test_up_to_v21_an_episode_is_a_file():
  videos = lerobot.lerobot_videos(_SETS / 'v2.1_av1', _SIDE).videos
  assert [video.path.name for video in videos] == [
    f'episode_{episode:06d}.mp4' for episode in range(3)
  ]
  assert all(v.span is None and v.path.is_file() for v in videos)


@pytest.mark.parametrize('name', _PICTURES)
def test_pictures_in_parquet_are_read_by_episode(name):
  """By a reader that can be sent to another process."""
  for video in lerobot.lerobot_videos(_SETS / name, _TOP).videos:
    episode = int(video.group)
    reader = pickle.loads(pickle.dumps(video.reader))
    assert len(reader) == _LENGTHS[episode]
    levels = [
      cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR).mean()
      for picture in reader
    ]
    expected = 40 + 60 * episode + 6 * np.arange(_LENGTHS[episode])
    np.testing.assert_array_equal(levels, expected)


@pytest.mark.parametrize('name', [*_VIDEOS, *_PICTURES])
def test_the_action_that_is_taken_at_a_frame_led_to_the_next(name):
  for video in lerobot.lerobot_videos(_SETS / name, '').videos:
    episode = int(video.group)
    recording = pickle.loads(pickle.dumps(video.recorded))()
    taken = [[episode, t] for t in range(_LENGTHS[episode])]
    expected = np.float32([[0, 0], *taken[:-1]])
    np.testing.assert_array_equal(recording.action, expected)
    assert recording.action.dtype == np.float32
    assert recording.joint_velocity.shape == (len(taken), 0)
    assert recording.body == 'squares'


def test_without_actions_nothing_is_recorded(copy):
  folder = copy('v3.0_h264')
  shutil.rmtree(folder / 'data')
  videos = lerobot.lerobot_videos(folder, '').videos
  assert [video.recorded for video in videos] == [None] * 6
  folder = copy('v2.1_av1')
  features = json.loads((folder / 'meta/info.json').read_text())['features']
  del features['action']
  _edit(folder / 'meta/info.json', features=features)
  videos = lerobot.lerobot_videos(folder, '').videos
  assert [video.recorded for video in videos] == [None] * 6


def _merge_row_groups(path, **options):
  table = pq.read_table(path)
  pq.write_table(table, path, **options)


@pytest.mark.parametrize(
  'options', [{}, {'row_group_size': 4}, {'write_statistics': False}], ids=str
)
def test_groups_of_rows_may_be_cut_anywhere(copy, options):
  folder = copy('v3.0_image')
  before = lerobot.lerobot_videos(folder, '').videos
  digests = [video.sha256 for video in before]
  _merge_row_groups(folder / 'data/chunk-000/file-000.parquet', **options)
  after = lerobot.lerobot_videos(folder, '').videos
  assert [video.sha256 for video in after] == digests


@pytest.mark.parametrize('name', ['v2.1_av1', 'v3.0_h264', 'v3.0_image'])
def test_one_camera_is_chosen_and_a_wrong_one_lists_those_there_are(name):
  listing = lerobot.lerobot_videos(_SETS / name, _SIDE)
  assert {v.source_id.partition('/')[0] for v in listing.videos} == {_SIDE}
  assert listing.not_taken == {
    f'camera {_TOP}': 'other_camera: config.lerobot.camera names another'
  }
  with pytest.raises(
    ValueError,
    match=r"config.lerobot.camera='top' must be empty.*"
    r"\['observation.images.top', 'observation.images.side'\]",
  ):
    lerobot.lerobot_videos(_SETS / name, 'top')


@pytest.mark.parametrize('key', ['is_depth_map', 'video.is_depth_map'])
def test_cameras_of_depth_are_not_taken_unless_named(copy, key):
  folder = copy('v3.0_h264')
  features = json.loads((folder / 'meta/info.json').read_text())['features']
  features[_SIDE]['info'] |= {'video.is_depth_map': False, key: True}
  _edit(folder / 'meta/info.json', features=features)
  listing = lerobot.lerobot_videos(folder, '')
  assert {v.source_id.partition('/')[0] for v in listing.videos} == {_TOP}
  assert listing.not_taken == {
    f'camera {_SIDE}': 'depth: pictures of distances'
  }
  assert len(lerobot.lerobot_videos(folder, _SIDE).videos) == 3


def test_several_tasks_of_an_episode_are_a_class_and_none_is_minus_one(copy):
  folder = copy('v2.1_av1')
  path = folder / 'meta/episodes.jsonl'
  rows = [json.loads(line) for line in path.read_text().splitlines()]
  rows[1]['tasks'], rows[2]['tasks'] = ['push', 'lift'], []
  path.write_text('\n'.join(map(json.dumps, rows)) + '\n\n')
  listing = lerobot.lerobot_videos(folder, _TOP)
  assert listing.classes == ['push the block', 'push; lift']
  assert [video.label for video in listing.videos] == [0, 1, -1]


def test_a_data_set_of_links_as_hubs_keep_it(tmp_path):
  """Every file is a link to a name that tells nothing."""
  paths = [p for p in (_SETS / 'v3.0_h264').rglob('*') if p.is_file()]
  for number, path in enumerate(paths):
    blob = tmp_path / 'blobs' / str(number)
    blob.parent.mkdir(exist_ok=True)
    shutil.copy(path, blob)
    name = path.relative_to(_SETS).as_posix()
    made_files.link(tmp_path / 'snapshot', name, blob)
  listing = lerobot.lerobot_videos(tmp_path / 'snapshot/v3.0_h264', '')
  assert len(listing.videos) == 6
  assert all(video.path.is_file() for video in listing.videos)


def test_files_that_are_missing_or_of_no_use_are_counted(copy):
  folder = copy('v2.1_av1')
  videos = folder / 'videos/chunk-000' / _TOP
  (videos / 'episode_000001.mp4').rename(videos / 'episode_000007.mp4')
  (videos / 'episode_000002.mp4').unlink()
  os.mkfifo(videos / 'episode_000002.mp4')
  listing = lerobot.lerobot_videos(folder, _TOP)
  assert made_files.ids(listing.videos) == [f'{_TOP}/000000', f'{_TOP}/000001']
  with pytest.raises(FileNotFoundError):
    listing.videos[1].sha256  # noqa: B018, it is computed here
  (name,) = (n for n in listing.not_taken if n.endswith('.mp4'))
  assert name == f'videos/chunk-000/{_TOP}/episode_000002.mp4'
  assert listing.not_taken[name] == 'not_a_file: a named pipe (FIFO)'
  assert listing.ignored['.mp4'] == 1 + 3  # of the other camera
  shutil.rmtree(folder / 'videos')
  with pytest.raises(ValueError, match='holds none of the 3 files of its 3'):
    lerobot.lerobot_videos(folder, _TOP)


def test_rows_of_a_parquet_file_must_be_those_of_the_episode(copy):
  folder = copy('v2.1_image')
  data = folder / 'data/chunk-000'
  path = data / 'episode_000001.parquet'
  pq.write_table(pq.read_table(path).slice(0, 3), path)
  (data / 'episode_000002.parquet').unlink()
  _, short, missing = lerobot.lerobot_videos(folder, _TOP).videos
  with pytest.raises(ValueError, match='^3 of 5 rows$'):
    list(short.reader)
  with pytest.raises(FileNotFoundError, match='no such file'):
    list(missing.reader)
  path.write_bytes(b'PAR1 and no more')
  with pytest.raises(pa.ArrowException):
    list(short.reader)


def test_a_folder_that_is_none_says_so(tmp_path, copy):
  with pytest.raises(ValueError, match='config.path=.*/no.* not a folder'):
    lerobot.lerobot_videos(tmp_path / 'no', '')
  with pytest.raises(ValueError, match='no LeRobot data set.* meta/info.json'):
    lerobot.lerobot_videos(tmp_path, '')
  folder = copy('v3.0_h264')
  _edit(folder / 'meta/info.json', codebase_version='v1.6')
  with pytest.raises(ValueError, match=r"version 'v1.6', .* v2.0, v2.1 or v3"):
    lerobot.lerobot_videos(folder, '')
  _edit(folder / 'meta/info.json', codebase_version='v3.0', features={})
  with pytest.raises(ValueError, match=r'has no camera among \[\]'):
    lerobot.lerobot_videos(folder, '')
  (folder / 'meta/info.json').write_text('{"fps": ')
  with pytest.raises(ValueError, match='meta/info.json is damaged.*JSON'):
    lerobot.lerobot_videos(folder, '')


def test_damaged_metadata_of_episodes_are_named(copy):
  folder = copy('v3.0_h264')
  path = folder / 'meta/episodes/chunk-000/file-000.parquet'
  table = pq.read_table(path)
  pq.write_table(table.drop([f'videos/{_TOP}/file_index']), path)
  with pytest.raises(ValueError, match=r'episodes are damaged.*top/file_index'):
    lerobot.lerobot_videos(folder, '')
  path.write_bytes(path.read_bytes()[:-9])
  with pytest.raises(ValueError, match='episodes are damaged .ArrowInvalid'):
    lerobot.lerobot_videos(folder, '')
  folder = copy('v2.1_av1')
  (folder / 'meta/episodes.jsonl').unlink()
  with pytest.raises(ValueError, match='episodes are damaged .FileNotFound'):
    lerobot.lerobot_videos(folder, '')
