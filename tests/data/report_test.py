"""The books of a folder of shards: sums by hand, restarts, what is refused."""

import dataclasses
import hashlib
import json
import pathlib

import numpy as np
import pytest

from drp_jax import recordings
from drp_jax.data import clips, report, schema, sources

_PLAN = clips.ClipPlan(
  clip_length=3,
  clip_stride=2,
  validation_fraction=0.25,
  seed=7,
  extractor={'description': 'by hand'},
)


def _video(name, digest='', split=None):
  video = sources.VideoId(name, pathlib.Path(name), split=split)
  vars(video)['sha256'] = digest  # there is no file to compute it of
  return video


_VIDEOS = [_video('a.mp4'), _video('b.mp4')]


def _example(**changes):
  """Two flows of 4x6 pixels, u = 10 y + x and v = 0, and three keypoints."""
  y, x = np.mgrid[:4, :6]
  flow = np.zeros((3, 4, 6, 2), np.float16)
  flow[..., 0] = 10 * y + x
  return {
    'flow': flow,
    'points': np.zeros((3, 3, 2), np.float32),
    'visible': np.ones((3, 3), bool),
    **changes,
  }


def _begin(folder, plan=_PLAN, videos=_VIDEOS, num_shards=2, worker=0):
  report.begin(folder, plan, videos, num_shards, worker)


def _tally(**changes):
  good = dict(
    num_clips={'train': 3, 'validation': 1},
    videos=[['b.mp4', 'beef']],
    split_videos={'train': 1, 'validation': 1},
    flow_energy=6.0,
    flow_count=2,
  )
  return report.Tally(**{**good, **changes})


def _finished(folder, *tallies):
  """A folder in which these shards are done."""
  _begin(folder, num_shards=len(tallies))
  for shard, tally in enumerate(tallies):
    report.mark_done(folder, shard, tally, worker=0)
  return folder


def test_flow_energy_by_hand():
  """u is read at (x, y), of the two later frames, where visible."""
  points = np.zeros((3, 3, 2), np.float32)
  points[1] = [[1, 0], [0, 1], [5, 3]]  # u = 1, 10, 35
  points[2] = [[2, 0], [0, 2], [4, 2]]  # u = 2, 20, 24
  visible = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], bool)
  flow = _example()['flow']
  flow[0] = 1000  # what belongs to no motion
  flow[2, ..., 1] = 3  # v counts like u
  energy, count = report.flow_energy(
    _example(flow=flow, points=points, visible=visible)
  )
  assert count == 4
  assert energy == (1 + 100 + (4 + 9) + (576 + 9)) / 2


def test_flow_energy_rounds_points_and_stays_inside():
  """A4: beyond the border its nearest pixel. A5: the nearest pixel."""
  points = np.zeros((3, 3, 2), np.float32)
  points[1] = [[0.4, 0.6], [1.51, 1.49], [-3, 0]]  # u = 10, 12, 0
  points[2] = [[9, -1], [5.4, 3.4], [2, 77]]  # u = 5, 35, 32
  energy, count = report.flow_energy(_example(points=points))
  assert count == 6
  assert energy == (100 + 144 + 0 + 25 + 1225 + 1024) / 2


def test_flow_energy_of_large_flow_does_not_overflow():
  """In float16 squares beyond 65504 are infinite."""
  flow = np.full((3, 4, 6, 2), 300, np.float16)
  assert report.flow_energy(_example(flow=flow)) == (6 * 90000, 6)


def test_flow_energy_without_a_visible_keypoint():
  example = _example(visible=np.zeros((3, 3), bool))
  assert report.flow_energy(example) == (0.0, 0)


def test_a_tally_counts_training_flow_only():
  points = np.full((3, 3, 2), 1.0, np.float32)  # u = 11 at all six
  tally = report.Tally()
  tally.add_clip('train', _example(points=points))
  tally.add_clip('validation', _example(points=points))
  tally.add_clip('train', None)  # refused
  tally.add_clip('train', _example(points=points))
  assert tally.num_clips == {'train': 2, 'validation': 1}
  assert tally.clips_left_out == 1
  assert tally.flow_count == 12
  assert tally.flow_energy == 12 * 121 / 2


def test_tallies_share_nothing():
  one = report.Tally()
  one.add_clip('validation', _example())
  one.add_video(_video('a.mp4', 'cafe'), {'validation': 1}, whole=True)
  footage = schema.Footage(np.zeros(3), unread=9, cuts=[1, 2])
  one.add_footage(_video('a.mp4'), footage)
  assert one.recorded_videos == 0
  one.leave_out(_video('b.mp4'), 'too short')
  assert one.videos == [['a.mp4', 'cafe']]
  assert one.left_out == [{'source_id': 'b.mp4', 'reason': 'too short'}]
  assert one.cuts == {'a.mp4': 2}
  assert report.Tally() == report.Tally(
    {'train': 0, 'validation': 0}, 0, [], [], [], {}, {}, {}, 0.0, 0
  )


def test_recorded_videos_are_counted(tmp_path):
  one, other = _tally(), _tally()
  footage = schema.Footage(np.zeros(3), recording=recordings.nothing(3))
  one.add_footage(_video('a.mp4'), footage)
  one.add_footage(_video('b.mp4'), footage)
  other.add_footage(_video('c.mp4'), footage)
  _finished(tmp_path, one, other, _tally())
  assert report.merge(tmp_path, _PLAN, 3)['recorded_videos'] == 3
  # A shard from before they were counted.
  path = tmp_path / 'progress' / '00001.json'
  old = json.loads(path.read_text())
  del old['recorded_videos']
  path.write_text(json.dumps(old))
  assert report.merge(tmp_path, _PLAN, 3)['recorded_videos'] == 2


def test_a_folder_keeps_to_the_fields_it_was_begun_with(tmp_path):
  assert report.keeps_recordings(tmp_path)  # not begun yet
  new = dataclasses.replace(_PLAN, recorded=True)
  _begin(tmp_path, plan=new)
  assert report.keeps_recordings(tmp_path)
  with pytest.raises(ValueError, match='recorded True -> False'):
    _begin(tmp_path)
  path = tmp_path / 'plan.json'
  old = json.loads(path.read_text())
  del old['recorded']  # from before there were such fields
  path.write_text(json.dumps(old))
  assert not report.keeps_recordings(tmp_path)
  _begin(tmp_path)
  with pytest.raises(ValueError, match='recorded False -> True'):
    _begin(tmp_path, plan=new)


def test_merge_sums_up_the_shards(tmp_path):
  """sigma of A3: the root of (6 + 12) / (2 + 6) is 1.5."""
  folder = _finished(
    tmp_path,
    _tally(
      clips_left_out=2,
      left_out=[{'source_id': 'z.mp4', 'reason': 'broken'}],
    ),
    _tally(
      num_clips={'train': 5, 'validation': 0},
      clips_left_out=3,
      videos=[['c.mp4', 'f00d'], ['a.mp4', 'cafe']],
      split_videos={'train': 2, 'validation': 0},
      left_out=[{'source_id': 'd.mp4', 'reason': 'too short'}],
      flow_energy=12.0,
      flow_count=6,
    ),
  )
  lines = b'a.mp4 cafe\nb.mp4 beef\nc.mp4 f00d'
  assert report.merge(folder, _PLAN, 2) == {
    'format_version': '1.0.0',
    'clip_length': 3,
    'clip_stride': 2,
    'validation_fraction': 0.25,
    'seed': 7,
    'extractor': {'description': 'by hand'},
    'hold_out': 'frames',
    'num_shards': 2,
    'num_clips': {'train': 8, 'validation': 1},
    'num_videos': 3,
    'split_videos': {'train': 3, 'validation': 1},
    'held_out_videos': 0,
    'cut_short': [],
    'cuts': {},
    'recorded': False,
    'recorded_videos': 0,
    'clips_left_out': 5,
    'left_out': [
      {'source_id': 'd.mp4', 'reason': 'too short'},
      {'source_id': 'z.mp4', 'reason': 'broken'},
    ],
    'flow_scale': 1.5,
    'videos_sha256': hashlib.sha256(lines).hexdigest(),
  }
  assert report.shard_lengths(folder, 'train', 2) == [3, 5]
  assert report.shard_lengths(folder, 'validation', 2) == [1, 0]


def test_merge_does_not_depend_on_the_order_of_shards(tmp_path):
  """Nor on rounding: these energies add up differently from left to right."""
  tallies = [
    _tally(videos=[[f'{i}.mp4', 'cafe']], flow_energy=energy)
    for i, energy in enumerate((1e16, 1.0, 1.0, 1.0))
  ]
  one = _finished(tmp_path / 'a', *tallies)
  other = _finished(tmp_path / 'b', *tallies[::-1])
  assert report.merge(one, _PLAN, 4) == report.merge(other, _PLAN, 4)
  assert 1e16 + 1 + 1 + 1 != 1 + 1 + 1 + 1e16  # or this would show nothing


def test_reasons_are_counted_by_their_first_word():
  reasons = ['still: 3 px', 'broken: a', 'short', 'broken: b', 'still: 9 px']
  reasons += ['broken: c']
  left_out = [
    {'source_id': f'{i}.mp4', 'reason': reason}
    for i, reason in enumerate(reasons)
  ]
  counts = report.count_reasons(left_out)
  assert list(counts.items()) == [('broken', 3), ('still', 2), ('short', 1)]
  assert report.count_reasons([]) == {}


def test_merge_without_a_training_clip_says_why(tmp_path):
  left_out = [
    {'source_id': f'{i}.mp4', 'reason': f'reason {i}'} for i in (3, 1, 0, 2)
  ]
  none = {'train': 0, 'validation': 2}
  folder = _finished(tmp_path, _tally(num_clips=none, left_out=left_out))
  with pytest.raises(ValueError) as error:
    report.merge(folder, _PLAN, 1)
  assert str(error.value) == (
    'None of 4 videos gave a training clip. First reasons: '
    '0.mp4: reason 0; 1.mp4: reason 1; 2.mp4: reason 2.'
  )


@pytest.mark.parametrize('energy', [0.0, float('nan'), float('inf')])
def test_merge_without_motion_has_no_scale(tmp_path, energy):
  folder = _finished(tmp_path, _tally(flow_energy=energy, flow_count=9))
  with pytest.raises(ValueError, match=f'all 9 .* the energy {energy}, .* no'):
    report.merge(folder, _PLAN, 1)


def test_a_restart_with_the_same_plan_goes_on(tmp_path):
  _begin(tmp_path / 'new')
  before = (tmp_path / 'new' / 'plan.json').read_bytes()
  _begin(tmp_path / 'new', worker=1)
  assert (tmp_path / 'new' / 'plan.json').read_bytes() == before


@pytest.mark.parametrize(
  ('changes', 'named'),
  [
    (
      dict(plan=dataclasses.replace(_PLAN, clip_length=4)),
      'clip_length 3 -> 4',
    ),
    (dict(plan=dataclasses.replace(_PLAN, seed=8)), 'seed 7 -> 8'),
    (
      dict(plan=dataclasses.replace(_PLAN, extractor={'description': 'new'})),
      r"extractor .*'by hand'.* -> .*'new'",
    ),
    (dict(num_shards=3), 'num_shards 2 -> 3'),
    (dict(videos=_VIDEOS[:1]), 'num_videos 2 -> 1'),
    (dict(videos=[_VIDEOS[0], _video('c.mp4')]), "source_ids_sha256 '.*' -> '"),
    (
      dict(videos=[_VIDEOS[0], _video('b.mp4', split='train')]),
      "source_ids_sha256 '.*' -> '",
    ),
  ],
  ids=lambda x: x if isinstance(x, str) else '',
)
def test_another_plan_is_refused_and_named(tmp_path, changes, named):
  _begin(tmp_path)
  before = (tmp_path / 'plan.json').read_bytes()
  with pytest.raises(ValueError, match=f'config.data.shards_dir=.*{named}'):
    _begin(tmp_path, **changes)
  assert (tmp_path / 'plan.json').read_bytes() == before


def test_all_that_changed_is_named_and_nothing_else(tmp_path):
  _begin(tmp_path)
  plan = dataclasses.replace(_PLAN, seed=8, clip_stride=1)
  with pytest.raises(ValueError) as error:
    _begin(tmp_path, plan)
  assert ': clip_stride 2 -> 1; seed 7 -> 8. Use' in str(error.value)


def test_a_plan_of_an_older_version_is_refused(tmp_path):
  _begin(tmp_path)
  path = tmp_path / 'plan.json'
  old = json.loads(path.read_text())
  old['format_version'] = '0.9.0'
  del old['seed']
  path.write_text(json.dumps(old))
  with pytest.raises(
    ValueError, match="format_version '0.9.0' -> '1.0.0'; seed None -> 7"
  ):
    _begin(tmp_path)


def test_a_shard_is_done_once_it_was_marked(tmp_path):
  _begin(tmp_path)
  assert not report.is_done(tmp_path, 1)
  report.mark_done(tmp_path, 1, _tally(), worker=0)
  assert report.is_done(tmp_path, 1) and not report.is_done(tmp_path, 0)


class _Killed(BaseException):
  pass


def _die(*_):
  raise _Killed


def test_a_killed_writer_leaves_the_old_file_or_none(tmp_path, monkeypatch):
  _begin(tmp_path)
  report.write_report(tmp_path, {'flow_scale': 1.0}, worker=0)
  with monkeypatch.context() as patch:
    patch.setattr(report.os, 'replace', _die)  # the last thing a write does
    with pytest.raises(_Killed):
      report.mark_done(tmp_path, 0, _tally(), worker=0)
    with pytest.raises(_Killed):
      report.write_report(tmp_path, {'flow_scale': 2.0}, worker=0)
  assert not report.is_done(tmp_path, 0)
  assert report.read_report(tmp_path) == {'flow_scale': 1.0}
  report.mark_done(tmp_path, 0, _tally(), worker=0)  # what it left is no harm
  assert report.shard_lengths(tmp_path, 'train', 1) == [3]


def test_the_report_is_read_as_it_was_written(tmp_path):
  folder = _finished(tmp_path, _tally(flow_energy=0.1, flow_count=3))
  merged = report.merge(folder, _PLAN, 1)
  report.write_report(folder, merged, worker=0)
  assert report.read_report(str(folder)) == merged  # the float to the bit


def test_shards_without_a_report_are_unfinished(tmp_path):
  folder = _finished(tmp_path, _tally())
  with pytest.raises(ValueError, match='shards_dir=.* holds no report.json'):
    report.read_report(folder)
  with pytest.raises(ValueError, match='shards_dir=.*nowhere'):
    report.read_report(tmp_path / 'nowhere')
