"""Whole videos are held out, whoever writes which shard and whatever fails."""

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil

import numpy as np
import pytest

from drp_jax import recordings
from drp_jax.data import clips, hold_out, report, schema, shards, sources

_PLAN = clips.ClipPlan(
  clip_length=2,
  clip_stride=1,
  validation_fraction=0.25,
  seed=0,
  extractor={'description': 'random'},
)
_NAMES = [f'{i}.npy' for i in range(8)]
_SPLITS = clips.whole_splits(_NAMES, _PLAN)
_HELD_OUT = [name for name in _NAMES if _SPLITS[name] == 'validation']
_OTHERS = [name for name in _NAMES if _SPLITS[name] == 'train']
_NUM_SHARDS = 3
_SHORT = 3  # frames: two clips, not to be cut in two


def _videos(folder, **lengths):
  """Eight short videos, but for those whose length is given."""
  folder.mkdir(exist_ok=True)
  for name in _NAMES:
    rng = np.random.default_rng(int(name[0]))
    count = lengths.get(name, _SHORT)
    np.save(folder / name, rng.integers(0, 256, (count, 64, 64, 3), np.uint8))
  return [sources.VideoId(name, folder / name) for name in _NAMES]


def _read(video):
  image = np.load(video.path)
  # As wide as the name says, so bodies differ.
  action = image[:, 0, : int(video.source_id[0]), 0].astype(np.float32)
  recording = recordings.Recording(action, action[:, :0], video.source_id)
  return schema.Footage(image, recording=recording)


def _extract(footage, rng):
  T, K = len(footage), schema.MAX_KEYPOINTS
  return {
    'image': footage.image,
    'flow': rng.normal(size=(T, 64, 64, 2)).astype(np.float16),
    'points': rng.uniform(0, 63, (T, K, 2)).astype(np.float32),
    'visible': np.ones((T, K), bool),
    'mask': np.ones((64, 64), bool),
  }


def _write(folder, videos, plan=_PLAN, worker=0, num_workers=1):
  return shards.write_shards(
    *(folder, videos, clips.Cutter(plan, _read, _extract), _NUM_SHARDS),
    shards.Share(worker, num_workers),
  )


def _contents(folder):
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in pathlib.Path(folder).rglob('*')
    if path.is_file()
  }


def _names(folder, split):
  """Videos of a split, once for each clip."""
  source = shards.open_split(folder, split, 2)
  return sorted(e['source_id'].decode() for e in source)


def _twice(names):
  return sorted(2 * list(names))


def test_of_short_videos_some_are_held_out_whole(tmp_path):
  assert len(_HELD_OUT) == 2
  found = _write(tmp_path / 'set', _videos(tmp_path / 'videos'))
  assert found['num_clips'] == {'train': 12, 'validation': 4}
  assert found['split_videos'] == {'train': 6, 'validation': 2}
  assert found['held_out_videos'] == 2
  assert _names(tmp_path / 'set', 'validation') == _twice(_HELD_OUT)
  assert _names(tmp_path / 'set', 'train') == _twice(_OTHERS)
  energies = [
    report.flow_energy(example)
    for example in shards.open_split(tmp_path / 'set', 'train', 2)
  ]
  energy, count = np.sum(energies, 0)  # of training clips alone
  np.testing.assert_allclose(found['flow_scale'], (energy / count) ** 0.5)


def test_long_videos_are_cut_unless_whole_ones_are_asked_for(tmp_path):
  lengths = dict.fromkeys((_OTHERS[0], _HELD_OUT[0]), 10)
  videos = _videos(tmp_path / 'videos', **lengths)
  found = _write(tmp_path / 'frames', videos)
  # Of 10 frames 2 are held out: 7 clips to train on, 1 to test with.
  assert found['num_clips'] == {'train': 2 * 5 + 2 * 7, 'validation': 2 + 2 * 1}
  assert found['split_videos'] == {'train': 7, 'validation': 3}
  assert found['held_out_videos'] == 1
  plan = dataclasses.replace(_PLAN, hold_out='videos')
  found = _write(tmp_path / 'whole', videos, plan)
  assert found['num_clips'] == {'train': 2 * 5 + 9, 'validation': 2 + 9}
  assert found['held_out_videos'] == 2
  assert set(_names(tmp_path / 'whole', 'validation')) == set(_HELD_OUT)
  assert not set(_names(tmp_path / 'whole', 'train')) & set(_HELD_OUT)


def _groups(names, videos):
  groups = sources.groups(videos)
  return {groups[name] for name in names}


@pytest.mark.parametrize('useless', [False, True])
def test_a_group_is_held_out_as_a_whole(tmp_path, useless):
  """Also if the one that was to be held out cannot be used."""
  pairs = {name: str(int(name[0]) // 2) for name in _NAMES}
  splits = clips.whole_splits(_NAMES, _PLAN, pairs)
  held_out = {pairs[name] for name, s in splits.items() if s == 'validation'}
  assert len(held_out) == 1  # a quarter of four groups
  lengths = [n for n in _NAMES if useless and pairs[n] in held_out]
  videos = [
    dataclasses.replace(video, group=pairs[video.source_id])
    for video in _videos(tmp_path / 'videos', **dict.fromkeys(lengths, 1))
  ]
  found = _write(tmp_path / 'set', videos)
  assert found['split_videos'] == {
    'train': 4 if useless else 6,
    'validation': 2,
  }
  train, validation = (
    _groups(_names(tmp_path / 'set', split), videos) for split in clips.SPLITS
  )
  assert len(validation) == 1 and not train & validation
  assert useless or validation == held_out


@pytest.fixture(
  params=['held out', 'others'], ids=['no validation', 'no training']
)
def one_sided(request, tmp_path):
  """Videos of which one side cannot be used, and what then is held out."""
  useless, usable = _HELD_OUT, _OTHERS
  if request.param == 'others':
    useless, usable = _OTHERS, _HELD_OUT
  videos = _videos(tmp_path / 'videos', **dict.fromkeys(useless, 1))
  splits = clips.whole_splits(usable, _PLAN)
  expected = [name for name in usable if splits[name] == 'validation']
  assert len(expected) == {6: 2, 2: 1}[len(usable)]
  return videos, expected, sorted(set(usable) - set(expected))


def test_no_split_stays_empty_while_two_videos_can_be_used(one_sided, tmp_path):
  videos, held_out, others = one_sided
  found = _write(tmp_path / 'set', videos)
  assert found['split_videos'] == {
    'train': len(others),
    'validation': len(held_out),
  }
  assert found['num_clips'] == {
    'train': 2 * len(others),
    'validation': 2 * len(held_out),
  }
  assert found['held_out_videos'] == len(held_out)
  assert _names(tmp_path / 'set', 'validation') == _twice(held_out)
  assert _names(tmp_path / 'set', 'train') == _twice(others)
  energies = [
    report.flow_energy(example)
    for example in shards.open_split(tmp_path / 'set', 'train', 2)
  ]
  energy, count = np.sum(energies, 0)
  np.testing.assert_allclose(found['flow_scale'], (energy / count) ** 0.5)


def test_moved_clips_are_what_was_written(one_sided, tmp_path):
  videos, *_ = one_sided
  plan = dataclasses.replace(_PLAN, recorded=True)
  found = _write(tmp_path / 'set', videos, plan)
  assert found['recorded_videos'] == len(videos)  # the useless ones as well
  for split in clips.SPLITS:
    for example in shards.open_split(tmp_path / 'set', split, 2):
      (video,) = [
        v for v in videos if v.source_id == example['source_id'].decode()
      ]
      made = clips.examples(video, plan, _read, _extract, ('train',))
      same = [e for _, e in made if e['first_frame'] == example['first_frame']]
      np.testing.assert_array_equal(example['flow'], same[0]['flow'])
      np.testing.assert_array_equal(example['image'], same[0]['image'])
      np.testing.assert_array_equal(example['action'], same[0]['action'])
      assert example['body'].decode() == video.source_id
      assert example['extractor'].decode() == same[0]['extractor']


def test_it_does_not_depend_on_who_writes_what(one_sided, tmp_path):
  videos, *_ = one_sided
  _write(tmp_path / 'one', videos)
  for worker in (2, 0, 1):
    _write(tmp_path / 'three', videos[::-1], worker=worker, num_workers=3)
  found = shards.finish(tmp_path / 'three', videos, _PLAN, _NUM_SHARDS)
  assert found['num_clips']['validation']
  assert _contents(tmp_path / 'one') == _contents(tmp_path / 'three')
  again = shards.finish(tmp_path / 'three', videos, _PLAN, _NUM_SHARDS)
  assert again == found
  assert _contents(tmp_path / 'one') == _contents(tmp_path / 'three')


class _Killed(BaseException):
  pass


@contextlib.contextmanager
def _killed_after(count, monkeypatch):
  """Dies when one file more than `count` is to be replaced."""
  replace, done = os.replace, []

  def replace_or_die(source, target):
    if len(done) == count:
      raise _Killed
    done.append(target)
    replace(source, target)

  with monkeypatch.context() as patch:
    patch.setattr(os, 'replace', replace_or_die)
    yield


def test_a_kill_while_clips_move_changes_nothing(
  one_sided, tmp_path, monkeypatch
):
  """At any of the moments at which a file is replaced."""
  videos, *_ = one_sided
  _write(tmp_path / 'one', videos)
  for worker in range(3):
    _write(tmp_path / 'three', videos, worker=worker, num_workers=3)
  for kill in itertools.count():
    folder = tmp_path / f'killed_{kill}'
    shutil.copytree(tmp_path / 'three', folder)
    try:
      with _killed_after(kill, monkeypatch):
        hold_out.settle(folder, videos, _PLAN, _NUM_SHARDS)
    except _Killed:
      shards.finish(folder, videos, _PLAN, _NUM_SHARDS)
      assert _contents(folder) == _contents(tmp_path / 'one')
    else:
      break
  assert kill >= 3  # two files and a mark for each shard


def test_a_single_video_is_for_training(tmp_path):
  lengths = dict.fromkeys(_NAMES[1:], 1)
  videos = _videos(tmp_path / 'videos', **lengths)
  found = _write(tmp_path / 'set', videos)
  assert found['num_clips'] == {'train': 2, 'validation': 0}
  assert found['split_videos'] == {'train': 1, 'validation': 0}


def test_nothing_moves_where_nothing_is_to_be_held_out(tmp_path):
  plan = dataclasses.replace(_PLAN, validation_fraction=0.0)
  videos = _videos(tmp_path / 'videos')
  found = _write(tmp_path / 'none', videos, plan)
  assert found['num_clips'] == {'train': 16, 'validation': 0}
  # A14: the list of the data set says so.
  known = [dataclasses.replace(video, split='train') for video in videos]
  found = _write(tmp_path / 'known', known)
  assert found['num_clips'] == {'train': 16, 'validation': 0}
  assert found['held_out_videos'] == 0


def test_a_folder_begun_before_there_was_a_choice_goes_on(tmp_path):
  """Its shards stay as they are; what it did not count is unknown."""
  videos = _videos(tmp_path / 'videos')
  folder = tmp_path / 'set'
  for worker in range(2):
    _write(folder, videos, worker=worker, num_workers=3)
  for path in (folder / 'plan.json', *(folder / 'progress').iterdir()):
    old = json.loads(path.read_text())
    for name in ('hold_out', 'whole', 'split_videos', 'cut_short'):
      old.pop(name, None)
    path.write_text(json.dumps(old))
  found = _write(folder, videos)
  assert found['hold_out'] == 'frames' and found['split_videos'] is None
  assert sum(found['num_clips'].values()) == 16
  assert len(shards.open_split(folder, 'train', 2)) == 12
  with pytest.raises(ValueError, match="hold_out 'frames' -> 'videos'"):
    _write(folder, videos, dataclasses.replace(_PLAN, hold_out='videos'))
