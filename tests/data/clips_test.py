"""Where clips lie, worked out by hand, and what each of them holds."""

import dataclasses
import json
import os
import pathlib

import numpy as np
import pytest

from drp_jax import recordings
from drp_jax.data import clips, schema, sources

_PLAN = clips.ClipPlan(
  clip_length=4,
  clip_stride=3,
  validation_fraction=0.25,
  seed=3,
  extractor={'flow': 'none', 'description': 'by hand'},
)

_DRAWN = [336, 345, 86]  # by clip_rng(0, 'a', 0), below 1000


def _plan(**changes):
  return dataclasses.replace(_PLAN, **changes)


@pytest.mark.parametrize(
  ('num_frames', 'changes', 'train', 'validation'),
  [
    # The last 5 of 20 frames; 15 before them.
    (20, {}, [0, 3, 6, 9], [15]),
    (32, {}, [0, 3, 6, 9, 12, 15, 18], [24, 27]),
    # At least one clip: 4 of 10 frames, not 3.
    (10, {}, [0], [6]),
    (8, {}, [0], [4]),
    # 3 frames would be left to train on, so none is held out.
    (7, {}, [0, 3], []),
    (4, {}, [0], []),
    (3, {}, [], []),
    (0, {}, [], []),
    (32, {'validation_fraction': 0.0}, list(range(0, 29, 3)), []),
    (20, {'clip_stride': 100}, [0], [15]),
    (20, {'clip_stride': 1, 'validation_fraction': 0.4}, list(range(9)),
     [12, 13, 14, 15, 16]),
  ],
)  # fmt: skip
def test_the_split_rule_by_hand(num_frames, changes, train, validation):
  assert clips.clip_starts(num_frames, _plan(**changes)) == [
    *(('train', start) for start in train),
    *(('validation', start) for start in validation),
  ]


@pytest.mark.parametrize('num_frames', range(0, 60, 7))
def test_splits_share_no_frame_and_stay_inside(num_frames):
  frames = {'train': set(), 'validation': set()}
  for split, start in clips.clip_starts(num_frames, _plan(clip_stride=1)):
    frames[split] |= set(range(start, start + 4))
  assert not frames['train'] & frames['validation']
  covered = frames['train'] | frames['validation']
  assert covered == set(range(num_frames if num_frames >= 4 else 0))


@pytest.mark.parametrize(
  ('cuts', 'train', 'validation'),
  [
    # The last 5 of 20 frames are validation, 15 before them.
    ((), [0, 3, 6, 9], [15]),
    ((7,), [0, 3, 7, 10], [15]),
    ((2, 9), [2, 5, 9], [15]),
    ((15,), [0, 3, 6, 9], [15]),
    # No clip fits behind the cut, so the tail begins before it, at 14.
    ((18,), [0, 3, 6, 9], [14]),
    ((8, 17), [0, 3, 8], [13]),
    # No clip fits before the last shot, or only there: not cut in two.
    ((2, 5, 8, 11, 14), [14], []),
    ((7, 10, 13, 16, 19), [0, 3], []),
    ((3, 6, 9, 12, 15, 18), [], []),
  ],
)
def test_no_clip_goes_on_beyond_a_cut(cuts, train, validation):
  found = clips.clip_starts(20, _PLAN, cuts=cuts)
  assert found == [
    *(('train', start) for start in train),
    *(('validation', start) for start in validation),
  ]
  assert (clips.tail(20, _PLAN, cuts) > 0) == bool(validation)
  # Whatever the split, the same rule; and a video held out whole keeps it.
  for split, start in clips.clip_starts(20, _PLAN, 'validation', cuts=cuts):
    assert split == 'validation'
    assert not any(start < cut < start + 4 for cut in cuts)


@pytest.mark.parametrize('seed', range(20))
def test_splits_share_no_frame_whatever_the_cuts(seed):
  rng = np.random.default_rng(seed)
  cuts = sorted(rng.choice(np.arange(1, 60), 6, replace=False).tolist())
  frames = {'train': set(), 'validation': set()}
  for split, start in clips.clip_starts(60, _plan(clip_stride=1), cuts=cuts):
    frames[split] |= set(range(start, start + 4))
    assert not any(start < cut < start + 4 for cut in cuts)
  assert not frames['train'] & frames['validation']
  assert frames['train'] and frames['validation']


def test_a_video_of_a_known_split_gives_all_its_clips_to_it():
  """A14: the lists of the data set, whatever the fraction."""
  for split in clips.SPLITS:
    expected = [(split, start) for start in (0, 3, 6, 9, 12, 15)]
    assert clips.clip_starts(20, _PLAN, split) == expected


@pytest.mark.parametrize('split', clips.SPLITS)
@pytest.mark.parametrize(
  ('num_frames', 'changes'),
  [(7, {}), (4, {}), (20, {'hold_out': 'videos'})],
)
def test_what_is_not_cut_in_two_goes_to_one_split(num_frames, changes, split):
  plan = _plan(**changes)
  assert clips.tail(num_frames, plan) == 0
  starts = range(0, num_frames - 3, 3)
  found = clips.clip_starts(num_frames, plan, whole=split)
  assert found == [(split, start) for start in starts]


def test_what_is_cut_in_two_does_not_care():
  assert clips.tail(20, _PLAN) == 5
  assert clips.clip_starts(20, _PLAN, whole='validation') == (
    clips.clip_starts(20, _PLAN, whole='train')
  )


def _held_out(ids, **changes):
  splits = clips.whole_splits(ids, _plan(**changes))
  assert splits.keys() == set(ids)
  return {name for name, split in splits.items() if split == 'validation'}


@pytest.mark.parametrize(
  ('count', 'fraction', 'expected'),
  [
    (0, 0.5, 0),
    (1, 0.9, 0),  # there must be something to train on
    (2, 0.01, 1),  # and to test with
    (2, 0.99, 1),
    (100, 0.05, 5),
    (1000, 0.25, 250),
    (1000, 0.0, 0),
  ],
)
def test_how_many_videos_are_held_out_whole(count, fraction, expected):
  ids = [f'{i}.mp4' for i in range(count)]
  assert len(_held_out(ids, validation_fraction=fraction)) == expected


def test_which_videos_are_held_out_depends_on_seed_and_ids_alone():
  ids = [f'{i}.mp4' for i in range(40)]
  first = _held_out(ids)
  assert _held_out(ids[::-1]) == first and len(first) == 10
  assert _held_out(ids, seed=4) != first
  # One more video moves at most one other.
  assert len(first - _held_out([*ids, 'new.mp4'])) <= 1
  # The ids themselves, since they may not differ between processes.
  assert _held_out('abcdefgh') == {'a', 'e'}


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'clip_length': 1}, 'config.data.clip_length=1 must be at least 2'),
    ({'clip_stride': 0}, 'config.data.clip_stride=0 must be at least 1'),
    ({'validation_fraction': 1.0}, 'config.data.validation_fraction=1.0 must'),
    (
      {'hold_out': 'ends'},
      r"config.data.hold_out='ends' must .*\('frames', 'v",
    ),
    ({'validation_fraction': -0.1}, r'validation_fraction=-0.1 .* \[0, 1\)'),
  ],
  ids=str,
)
def test_a_plan_that_makes_no_sense_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    _plan(**changes)


def test_the_generator_of_a_clip_depends_on_that_clip_alone():
  def draw(*key):
    return tuple(clips.clip_rng(*key).integers(2**62, size=2))

  keys = [(0, 'a', 0), (0, 'a', 1), (0, 'b', 0), (1, 'a', 0), (0, 'a:1', 0)]
  assert len({draw(*key) for key in keys}) == len(keys)
  assert draw(0, 'a', 1) == draw(0, 'a', 1)
  # The numbers themselves, since they may not differ between processes.
  assert clips.clip_rng(0, 'a', 0).integers(1000, size=3).tolist() == _DRAWN


@pytest.fixture
def video(tmp_path):
  path = tmp_path / 'v.mp4'
  path.write_bytes(b'video')
  return sources.VideoId('v.mp4', path, label=7)


def _footage(num_frames):
  """Frame t has the value t everywhere."""
  image = np.zeros((num_frames, 64, 64, 3), np.uint8)
  image += np.arange(num_frames, dtype=np.uint8)[:, None, None, None]
  return schema.Footage(image, {'time': np.arange(num_frames)})


def _arrays(footage, rng):
  T, K = len(footage), schema.MAX_KEYPOINTS
  return {
    'image': footage.image,
    'flow': np.zeros((T, 64, 64, 2), np.float16),
    'points': rng.uniform(0, 63, (T, K, 2)).astype(np.float32),
    'visible': np.ones((T, K), bool),
    'mask': np.ones((64, 64), bool),
  }


def _examples(video, num_frames=20, extract=_arrays, splits=clips.SPLITS):
  return list(
    clips.examples(
      video, _PLAN, lambda _: _footage(num_frames), extract, splits
    )
  )


def test_examples_hold_their_frames_and_where_they_came_from(video):
  found = _examples(video)
  starts = [0, 3, 6, 9, 15]
  assert [split for split, _ in found] == ['train'] * 4 + ['validation']
  for start, (_, example) in zip(starts, found, strict=True):
    frames = example['image'][:, 0, 0, 0]
    assert frames.tolist() == [start, start + 1, start + 2, start + 3]
    assert example['first_frame'] == start and example['num_frames'] == 4
    assert example['source_id'] == 'v.mp4' and example['label'] == 7
    assert example['sha256'] == video.sha256
    assert json.loads(example['extractor']) == _PLAN.extractor
  points = {example['points'].tobytes() for _, example in found}
  assert len(points) == 5  # each its own random numbers


def test_a_split_alone_gives_the_same_examples(video):
  both = _examples(video)
  for split in clips.SPLITS:
    alone = _examples(video, splits=(split,))
    expected = [example for s, example in both if s == split]
    assert len(alone) == len(expected)
    for (_, one), other in zip(alone, expected, strict=True):
      np.testing.assert_equal(one, other)


def test_extraction_sees_what_the_simulator_knows(video):
  times = []

  def extract(footage, rng):
    times.append(footage.scene['time'].tolist())
    return _arrays(footage, rng)

  _examples(video, 7, extract)
  assert times == [[0, 1, 2, 3], [3, 4, 5, 6]]


def test_recorded_entries_go_with_their_frames(video):
  plan = _plan(recorded=True)
  action = np.arange(20, dtype=np.float32)[:, None] + 1

  def read(_, known=True):
    recording = recordings.Recording(action, action[:, :0], 'cart')
    return dataclasses.replace(
      _footage(20), recording=recording if known else None
    )

  found = list(clips.examples(video, plan, read, _arrays, clips.SPLITS))
  for start, (_, example) in zip([0, 3, 6, 9, 15], found, strict=True):
    # Entry 0 led from a frame that the clip does not show.
    expected = [0, start + 2, start + 3, start + 4]
    assert example['action'][:, 0].tolist() == expected
    assert example['joint_velocity'].shape == (4, 0)
    assert example['body'] == 'cart'
  assert action.min() == 1  # the recording itself is left as it is
  for _, example in clips.examples(
    video, plan, lambda v: read(v, False), _arrays, clips.SPLITS
  ):
    assert example['action'].shape == example['joint_velocity'].shape == (4, 0)
    assert example['body'] == ''
  plain = _examples(video)[0][1]
  assert found[0][1].keys() - plain.keys() == {
    *schema.recorded_fields(4),
    'body',
  }


class _NoMotion(ValueError):
  reason = 'no_motion'


def _refuse(error, *starts):
  """An `extract` that refuses the clips that begin at these frames."""

  def extract(footage, rng):
    if footage.image[0, 0, 0, 0] in starts:
      raise error
    return _arrays(footage, rng)

  return extract


def test_a_refused_clip_is_none_and_changes_no_other(video):
  found = _examples(video, extract=_refuse(_NoMotion('still'), 3, 15))
  assert [e is None for _, e in found] == [False, True, False, False, True]
  np.testing.assert_equal(found[2], _examples(video)[2])


@pytest.mark.parametrize(
  ('error', 'reason'),
  [
    (_NoMotion('nothing moves'), 'no_motion: no usable clip: nothing moves'),
    (ValueError('odd'), 'refused: no usable clip: odd'),
  ],
)
def test_a_video_without_a_usable_clip(video, error, reason):
  stream = clips.examples(
    video, _PLAN, lambda _: _footage(7), _refuse(error, 0, 3), clips.SPLITS
  )
  assert next(stream) == next(stream) == ('train', None)
  with pytest.raises(clips.UnusableVideo) as unusable:
    next(stream)
  assert str(unusable.value) == reason
  assert unusable.value.reason == reason.partition(':')[0]


class _Corrupt(ValueError):
  reason = 'corrupt'


@pytest.mark.parametrize(
  ('error', 'reason'),
  [
    (_Corrupt('after 9 frames'), 'corrupt: _Corrupt: after 9 frames'),
    (clips.UnusableVideo('empty', 'no frames'), 'empty: no frames'),
    (OSError('disk'), 'read_error: OSError: disk'),
    # Without the path, so that a report is the same wherever the videos lie.
    (
      PermissionError(13, 'Permission denied', '/home/me/v.mp4'),
      'no_permission: PermissionError: Permission denied',
    ),
    (KeyError('moov'), "read_error: KeyError: 'moov'"),
    # Has a `reason`, which is a sentence and no word to count.
    (UnicodeDecodeError('utf-8', b'x', 0, 1, 'bad start'), 'read_error: Unico'),
  ],
  ids=lambda x: type(x).__name__ if isinstance(x, Exception) else '',
)
def test_a_video_that_cannot_be_read(video, error, reason):
  def read(_):
    raise error

  with pytest.raises(clips.UnusableVideo) as unusable:
    next(clips.examples(video, _PLAN, read, _arrays, clips.SPLITS))
  assert str(unusable.value).startswith(reason)
  assert '/home' not in str(unusable.value)


def test_a_video_that_is_not_there():
  video = sources.VideoId('gone.mp4', pathlib.Path('gone.mp4'))
  with pytest.raises(clips.UnusableVideo, match='^missing: FileNotFoundError'):
    _examples(video)


def test_a_video_that_may_not_be_read(video, monkeypatch):
  video.path.chmod(0)
  # From inside, since folders of pytest are closed to others.
  video.path.parent.chmod(0o755)
  monkeypatch.chdir(video.path.parent)
  here = dataclasses.replace(video, path=pathlib.Path(video.path.name))
  root = os.geteuid() == 0
  if root:  # who may read everything
    os.seteuid(65534)
  try:
    with pytest.raises(
      clips.UnusableVideo, match='^no_permission: PermissionError: Permission'
    ):
      _examples(here)
  finally:
    if root:
      os.seteuid(0)


def test_a_video_that_is_too_short(video):
  with pytest.raises(
    clips.UnusableVideo, match='^too_short: has 3 frames, .* clip_length=4$'
  ):
    _examples(video, 3)


def test_a_video_whose_shots_are_too_short(video):
  footage = dataclasses.replace(_footage(20), cuts=(3, 6, 9, 12, 15, 18))
  with pytest.raises(
    clips.UnusableVideo,
    match='^too_short: has 3 frames in the longest of its 7 shots, fewer than',
  ):
    next(clips.examples(video, _PLAN, lambda _: footage, _arrays, clips.SPLITS))


def test_running_out_of_memory_is_no_property_of_the_video(video):
  def read(_):
    raise MemoryError

  with pytest.raises(MemoryError):
    next(clips.examples(video, _PLAN, read, _arrays, clips.SPLITS))


def test_a_broken_contract_stops_the_build(video):
  def small(_):
    return schema.Footage(np.zeros((20, 32, 32, 3), np.uint8))

  def wrong(footage, rng):
    return {**_arrays(footage, rng), 'flow': np.zeros((4, 64, 64, 2))}

  with pytest.raises(ValueError, match="Frames of 'v.mp4' are uint8.*32, 32"):
    next(clips.examples(video, _PLAN, small, _arrays, clips.SPLITS))
  with pytest.raises(ValueError, match="'v.mp4' at 0: field 'flow' is float64"):
    _examples(video, extract=wrong)
