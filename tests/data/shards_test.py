"""Shards are the same bytes however they came about, and read back exactly."""

import dataclasses
import json
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds

from drp_jax import recordings
from drp_jax.data import builder as builder_lib
from drp_jax.data import (
  clips,
  input_pipeline,
  report,
  schema,
  shard_files,
  shards,
  sources,
)

_PLAN = clips.ClipPlan(
  clip_length=2,
  clip_stride=2,
  validation_fraction=0.3,
  seed=0,
  extractor={'description': 'random'},
)
_LENGTHS = {'a': 8, 'b': 1, 'c': 9, 'd': 5, 'e': 8, 'f': 4}
_NUM_SHARDS = 3


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Six 'videos', of which b is too short and d has no clip that moves."""
  folder = tmp_path_factory.mktemp('videos')
  made = []
  for label, name in enumerate(_LENGTHS):
    (folder / name).write_text(name)
    made.append(sources.VideoId(name, folder / name, label))
  return made


def _read(video):
  count = _LENGTHS[video.path.read_text()]
  rng = np.random.default_rng(video.label)
  image = rng.integers(0, 256, (count, 64, 64, 3), np.uint8)
  return schema.Footage(image)


def _extract(footage, rng):
  T, K = len(footage), schema.MAX_KEYPOINTS
  if np.array_equal(footage.image[0], _still()):
    raise ValueError('nothing moves')
  return {
    'image': footage.image,
    'flow': rng.normal(size=(T, 64, 64, 2)).astype(np.float16),
    'points': rng.uniform(-1, 65, (T, K, 2)).astype(np.float32),
    'visible': rng.random((T, K)) < 0.5,
    'mask': rng.random((64, 64)) < 0.5,
  }


def _still():
  """Frame 2 of c, which begins its second clip."""
  rng = np.random.default_rng(2)
  return rng.integers(0, 256, (9, 64, 64, 3), np.uint8)[2]


_CUTTER = clips.Cutter(_PLAN, _read, _extract)


def _write(folder, videos, worker=0, num_workers=1, **changes):
  num_shards = changes.pop('num_shards', _NUM_SHARDS)
  progress = changes.pop('progress', None)
  return shards.write_shards(
    folder,
    videos,
    dataclasses.replace(_CUTTER, **changes),
    num_shards,
    shards.Share(worker, num_workers),
    progress,
  )


def _contents(folder):
  """Relative path -> bytes of all files."""
  folder = pathlib.Path(folder)
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file()
  }


@pytest.fixture(scope='module')
def written(videos, tmp_path_factory):
  """(folder, report) of an undisturbed build by one worker."""
  folder = tmp_path_factory.mktemp('written') / 'shards'
  return folder, _write(folder, videos)


def _records(folder, split):
  """(source id, first frame) -> example."""
  source = shards.open_split(folder, split, None)
  examples = [source[i] for i in range(len(source))]
  return {(e['source_id'].decode(), int(e['first_frame'])): e for e in examples}


def test_what_was_written_is_read_bit_by_bit(videos, written):
  expected = {split: {} for split in clips.SPLITS}
  for video in videos:
    if video.source_id != 'b':
      for split, example in clips.examples(
        video, _PLAN, _read, _extract, clips.SPLITS
      ):
        if example is not None:
          key = video.source_id, example['first_frame']
          expected[split][key] = example
  for split in clips.SPLITS:
    found = _records(written[0], split)
    assert found.keys() == expected[split].keys()
    for key, example in found.items():
      for name, value in expected[split][key].items():
        read = example[name]
        if isinstance(value, str):
          assert read.decode() == value
        else:
          np.testing.assert_array_equal(read, value)
          assert np.asarray(read).dtype == np.asarray(value).dtype
  # 8 frames: 6 + 2. 9: 6 (one clip refused) + 3. 5: 3 + 2. 4: 2 + 2.
  assert len(expected['train']) == 3 + 2 + 1 + 3 + 1
  assert len(expected['validation']) == 5


def test_the_report_counts_what_is_there(written):
  _, found = written
  assert found['num_clips'] == {'train': 10, 'validation': 5}
  assert found['num_videos'] == 5 and found['clips_left_out'] == 1
  reason = 'too_short: has 1 frames, fewer than clip_length=2'
  assert found['left_out'] == [{'source_id': 'b', 'reason': reason}]
  assert report.count_reasons(found['left_out']) == {'too_short': 1}
  assert found == report.read_report(written[0])
  assert 0.9 < found['flow_scale'] < 1.1  # of a normal distribution


def test_nothing_is_left_beside_the_data(written):
  parts = [f'{i:05d}-of-00003' for i in range(_NUM_SHARDS)]
  assert _contents(written[0]).keys() == {
    *(f'{shard_files.NAME}-train.array_record-{part}' for part in parts),
    *(f'{shard_files.NAME}-validation.array_record-{part}' for part in parts),
    *(f'progress/{i:05d}.json' for i in range(_NUM_SHARDS)),
    'plan.json',
    'report.json',
    'features.json',
    'dataset_info.json',
  }  # fmt: skip
  assert not (written[0] / '.metadata').exists()


def test_the_order_of_videos_does_not_matter(videos, written, tmp_path):
  _write(tmp_path, videos[::-1])
  assert _contents(tmp_path) == _contents(written[0])


@pytest.mark.parametrize('order', [(0, 1, 2), (2, 0, 1)])
def test_the_number_and_order_of_workers_do_not_matter(
  videos, written, tmp_path, order
):
  """Three workers are three jobs of an array; `finish` is the last."""
  for worker in order:
    assert _write(tmp_path, videos, worker, num_workers=3) is None
  assert not (tmp_path / 'dataset_info.json').exists()
  found = shards.finish(tmp_path, videos, _PLAN, _NUM_SHARDS)
  assert found == written[1]
  assert _contents(tmp_path) == _contents(written[0])


def test_a_plain_call_writes_what_workers_left(videos, written, tmp_path):
  _write(tmp_path, videos, 1, num_workers=3)
  assert _write(tmp_path, videos) == written[1]
  assert _contents(tmp_path) == _contents(written[0])


def test_finish_names_the_shards_that_are_missing(videos, tmp_path):
  _write(tmp_path, videos, 1, num_workers=3)
  with pytest.raises(ValueError, match='lacks 2 of 3 shards: 0, 2. Run'):
    shards.finish(tmp_path, videos, _PLAN, _NUM_SHARDS)


def test_more_shards_than_videos(videos, tmp_path):
  _write(tmp_path, videos, num_shards=100)
  assert len(list((tmp_path / 'progress').iterdir())) == len(videos)
  assert _write(tmp_path, videos, 99, num_workers=100, num_shards=100) is None


class _Killed(BaseException):
  pass


@pytest.mark.parametrize('deadly', ['a', 'c', 'f'])
def test_a_killed_build_goes_on_to_the_same_bytes(
  videos, written, tmp_path, deadly
):
  def read(video):
    if video.source_id == deadly:
      raise _Killed
    return _read(video)

  with pytest.raises(_Killed):
    _write(tmp_path, videos, read_frames=read)
  with pytest.raises(ValueError, match='no finished shards'):
    shards.open_split(tmp_path, 'train', None)
  finished = {
    path: path.stat().st_mtime_ns
    for path in tmp_path.glob('*array_record*-of-00003')
  }
  # a and d are in shard 0, b and e in 1, c and f in 2.
  assert len(finished) == {'a': 0, 'c': 4, 'f': 4}[deadly]
  # What another machine, killed at the same time, may leave.
  (
    tmp_path / f'{shard_files.NAME}-train.array_record-00000-of-00003.x.tmp'
  ).touch()
  (tmp_path / '.metadata').mkdir()
  (tmp_path / '.metadata' / 'features.json').write_text('{')
  _write(tmp_path, videos)
  assert {path: path.stat().st_mtime_ns for path in finished} == finished
  assert _contents(tmp_path) == _contents(written[0])


def test_finished_shards_are_not_read_again(videos, written, tmp_path):
  shutil.copytree(written[0], tmp_path / 'copy')

  def read(_):
    raise AssertionError('nothing is left to read')

  before = _contents(written[0])
  assert _write(tmp_path / 'copy', videos, read_frames=read) == written[1]
  assert _contents(tmp_path / 'copy') == before


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'plan': dataclasses.replace(_PLAN, clip_stride=1)}, 'clip_stride 2 -> 1'),
    ({'num_shards': 2}, 'num_shards 3 -> 2'),
    ({'videos': lambda v: v[1:]}, 'num_videos 6 -> 5'),
    (
      {'videos': lambda v: [dataclasses.replace(v[0], split='train'), *v[1:]]},
      'source_ids_sha256',
    ),
  ],
  ids=['plan', 'shards', 'videos', 'split'],
)
def test_another_build_in_the_same_folder_is_refused(
  videos, written, changes, message
):
  changes = dict(changes)
  change = changes.pop('videos', lambda v: v)
  for call in (_write, _finish):
    with pytest.raises(ValueError, match=f'config.data.shards_dir=.*{message}'):
      call(written[0], change(videos), **changes)


def _finish(folder, videos, plan=_PLAN, num_shards=_NUM_SHARDS):
  return shards.finish(folder, videos, plan, num_shards)


def test_what_makes_no_build(videos, tmp_path):
  with pytest.raises(ValueError, match='no video to cut'):
    _write(tmp_path, [])
  with pytest.raises(ValueError, match="Two videos have the source id 'a'"):
    _write(tmp_path, [videos[0], videos[2], videos[0]])
  with pytest.raises(ValueError, match='config.data.num_shards=0 must be'):
    _write(tmp_path, videos, num_shards=0)
  with pytest.raises(ValueError, match='None of 1 videos .*: b: too_short'):
    _write(tmp_path / 'short', videos[1:2])


def test_splits_of_the_data_set_are_kept(videos, tmp_path):
  """A14: lists of training and validation videos in one folder."""
  known = [
    dataclasses.replace(video, split='validation' if i % 2 else 'train')
    for i, video in enumerate(videos)
  ]
  _write(tmp_path, known)
  for split, ids in (('train', 'ace'), ('validation', 'df')):
    assert {name for name, _ in _records(tmp_path, split)} == set(ids)
  starts = sorted(s for n, s in _records(tmp_path, 'train') if n == 'a')
  assert starts == [0, 2, 4, 6]


def test_an_empty_split_is_left_out(videos, tmp_path):
  _write(
    tmp_path, videos, plan=dataclasses.replace(_PLAN, validation_fraction=0.0)
  )
  assert not list(tmp_path.glob('*validation*'))
  with pytest.raises(ValueError, match=r"no split 'validation', only \['train"):
    shards.open_split(tmp_path, 'validation', None)


def test_shards_that_cannot_be_opened_are_named(written, tmp_path):
  with pytest.raises(ValueError, match="shards_dir='nowhere' is not a folder"):
    shards.open_split('nowhere', 'train', None)
  with pytest.raises(ValueError, match='no finished shards'):
    shards.open_split(tmp_path, 'train', None)
  copy = tmp_path / 'copy'
  shutil.copytree(written[0], copy)
  info = json.loads((copy / 'dataset_info.json').read_text())
  (copy / 'dataset_info.json').write_text(
    json.dumps({**info, 'version': '0.9.0'})
  )
  with pytest.raises(
    ValueError, match='has format version 0.9.0, this code re'
  ):
    shards.open_split(copy, 'train', None)
  (copy / 'dataset_info.json').write_text(json.dumps(info))
  lost = f'{shard_files.NAME}-train.array_record-00001-of-00003'
  os.remove(copy / lost)
  with pytest.raises(ValueError, match=f"lacks the files .'{lost}'"):
    shards.open_split(copy, 'train', None)


def test_a_field_of_another_shape_is_named(videos, tmp_path, monkeypatch):
  _write(tmp_path, videos)
  monkeypatch.setattr(schema, 'MAX_KEYPOINTS', 16)
  with pytest.raises(ValueError, match=r"'points' is float32\[2, 32, 2\], exp"):
    shards.open_split(tmp_path, 'train', None)


@pytest.mark.parametrize('known', [False, True])
def test_the_builder_holds_the_same_examples(videos, tmp_path, known):
  if known:
    videos = [
      dataclasses.replace(v, split='validation') for v in videos[:3]
    ] + [dataclasses.replace(v, split='train') for v in videos[3:]]
  _write(tmp_path / 'shards', videos)
  builder = builder_lib.AtomicActions(tmp_path / 'built', videos, _CUTTER)
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=2)
  )
  for split in clips.SPLITS:
    source = builder.as_data_source(split)
    built = {(e['source_id'], int(e['first_frame'])): e for e in source}
    ours = _records(tmp_path / 'shards', split)
    assert {(n.decode(), s) for n, s in built} == ours.keys()
    for (name, start), example in built.items():
      np.testing.assert_equal(example, ours[name.decode(), start])


def _harmed(written, folder, path, harm):
  """A copy of the shards, of which one file is harmed."""
  shutil.copytree(written[0], folder)
  content = bytearray((folder / path).read_bytes())
  (folder / path).write_bytes(harm(content))
  return folder


def _flip(bit):
  def harm(content):
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    return content

  return harm


@pytest.mark.parametrize('seed', range(8))
def test_a_flipped_bit_or_a_lost_tail_is_never_read(written, tmp_path, seed):
  """An error that names the file and the cure; or it is of what is not read."""
  rng = np.random.default_rng(seed)
  name = f'{shard_files.NAME}-train.array_record-0000{seed % 3}-of-00003'
  harm = _flip(int(rng.integers(2**21)))
  if seed % 4 == 0:
    harm = lambda content: content[: rng.integers(len(content))]  # noqa: E731
  copy = _harmed(written, tmp_path / 'copy', name, harm)
  whole = _records(written[0], 'train')
  try:
    found = _records(copy, 'train')
  except ValueError as error:
    assert f"in '{name}' cannot be read" in str(error)
    assert f'progress/0000{seed % 3}.json' in str(error)
    assert 'config.data.shards_dir=' in str(error)
  else:
    assert seed % 4
    np.testing.assert_equal(found, whole)


def _empty(_):
  return b''


def _cut(content):
  return content[:-9]


def test_the_cure_for_a_damaged_shard(videos, written, tmp_path):
  name = f'{shard_files.NAME}-train.array_record-00001-of-00003'
  copy = _harmed(written, tmp_path / 'copy', name, _empty)
  with pytest.raises(ValueError, match=f'{name}.* cannot be read'):
    _records(copy, 'train')
  os.remove(copy / name)
  os.remove(copy / 'progress' / '00001.json')
  _write(copy, videos)
  assert _contents(copy) == _contents(written[0])


@pytest.mark.parametrize('name', ['dataset_info.json', 'features.json'])
@pytest.mark.parametrize('harm', [_cut, _empty])
def test_damaged_books_are_named(videos, written, tmp_path, name, harm):
  copy = _harmed(written, tmp_path / 'copy', name, harm)
  with pytest.raises(ValueError, match='features.json is damaged.*delete both'):
    shards.open_split(copy, 'train', None)
  for book in ('dataset_info.json', 'features.json'):
    os.remove(copy / book)
  _write(copy, videos)
  assert _contents(copy) == _contents(written[0])


_SIZES = {'a': (1, 9), 'c': (21, 27), 'd': (0, 3), 'e': (4, 0)}  # f: nothing
_RECORDED = dataclasses.replace(_PLAN, recorded=True)


def _read_recorded(video):
  """Bodies with other numbers of actions and joints, or neither."""
  footage = _read(video)
  if video.source_id not in _SIZES:
    return footage
  rng = np.random.default_rng(video.label)
  action, velocity = (
    rng.normal(size=(len(footage), size)).astype(np.float32)
    for size in _SIZES[video.source_id]
  )
  recording = recordings.Recording(action, velocity, f'body {video.source_id}')
  return dataclasses.replace(footage, recording=recording)


@pytest.fixture(scope='module')
def recorded(videos, tmp_path_factory):
  folder = tmp_path_factory.mktemp('recorded') / 'shards'
  found = _write(folder, videos, plan=_RECORDED, read_frames=_read_recorded)
  return folder, found


def test_bodies_of_all_sizes_are_in_one_data_set(videos, recorded):
  folder, found = recorded
  assert found['recorded'] and found['recorded_videos'] == len(_SIZES)
  by_name = {video.source_id: video for video in videos}
  for split in clips.SPLITS:
    for (name, start), example in _records(folder, split).items():
      action, velocity = example['action'], example['joint_velocity']
      assert (action.shape[1], velocity.shape[1]) == _SIZES.get(name, (0, 0))
      assert action.dtype == velocity.dtype == np.float32
      assert not action[0].any() and not velocity[0].any()
      footage = _read_recorded(by_name[name])
      assert example['body'].decode() == (
        f'body {name}' if name in _SIZES else ''
      )
      if name in _SIZES:
        rows = footage.recording[start + 1 : start + 2]
        np.testing.assert_array_equal(action[1:], rows.action)
        np.testing.assert_array_equal(velocity[1:], rows.joint_velocity)


def test_what_was_recorded_changes_nothing_else(written, recorded):
  """Neither a clip, nor what pre-training reads, nor the report's numbers."""
  extra = {*schema.recorded_fields(2), 'body'}
  for split in clips.SPLITS:
    plain, more = (_records(f, split) for f, _ in (written, recorded))
    assert plain.keys() == more.keys()
    for key, example in plain.items():
      assert more[key].keys() - example.keys() == extra
      for name in example:
        np.testing.assert_equal(more[key][name], example[name])
  differs = {k for k in recorded[1] if recorded[1][k] != written[1][k]}
  assert differs == {'recorded', 'recorded_videos'}
  one, other = (
    next(input_pipeline.make_iterator(f, 'train', 2, 4, 8, seed=0))
    for f, _ in (written, recorded)
  )
  assert other.keys() == {'image', 'flow', 'points', 'visible'}
  np.testing.assert_equal(other, one)


def _forget(folder):
  """Makes a folder one from before there were recorded fields."""
  for path in (folder / 'plan.json', folder / 'report.json'):
    if path.exists():
      books = json.loads(path.read_text())
      for name in ('recorded', 'recorded_videos'):
        books.pop(name, None)
      path.write_text(json.dumps(books))
  for path in folder.glob('progress/*.json'):
    tally = json.loads(path.read_text())
    del tally['recorded_videos']
    path.write_text(json.dumps(tally))


def test_shards_from_before_are_read(written, tmp_path):
  shutil.copytree(written[0], tmp_path / 'old')
  _forget(tmp_path / 'old')
  features = json.loads((tmp_path / 'old' / 'features.json').read_text())
  names = features['featuresDict']['features'].keys()
  assert names == {
    *('image', 'flow', 'points', 'visible', 'mask'),
    *('source_id', 'first_frame', 'num_frames', 'label'),
    *('sha256', 'extractor'),
  }  # the fields of format 1.0.0, which older shards have and no others
  for split in clips.SPLITS:
    np.testing.assert_equal(
      _records(tmp_path / 'old', split), _records(written[0], split)
    )


def test_a_build_from_before_goes_on_to_the_same_shards(
  videos, written, tmp_path
):
  """Though there are recordings by now; its clips are all alike."""
  shutil.copytree(written[0], tmp_path / 'old')
  _forget(tmp_path / 'old')
  for path in tmp_path.glob('old/*00001-of-00003'):
    path.unlink()
  (tmp_path / 'old' / 'progress' / '00001.json').unlink()
  plan = dataclasses.replace(
    _PLAN, recorded=report.keeps_recordings(tmp_path / 'old')
  )
  _write(tmp_path / 'old', videos, plan=plan, read_frames=_read_recorded)
  for name, content in _contents(written[0]).items():
    if 'array_record' in name or name == 'features.json':
      assert _contents(tmp_path / 'old')[name] == content


def test_the_builder_holds_what_was_recorded(videos, recorded, tmp_path):
  builder = builder_lib.AtomicActions(
    tmp_path, videos, clips.Cutter(_RECORDED, _read_recorded, _extract)
  )
  builder.download_and_prepare(
    download_config=tfds.download.DownloadConfig(num_shards=2)
  )
  ours = _records(recorded[0], 'train')
  for example in builder.as_data_source('train'):
    key = example['source_id'].decode(), int(example['first_frame'])
    np.testing.assert_equal(example, ours[key])
