"""The command, on real files: every source, killed workers, arrays, Beam."""

import functools
import json
import pathlib
import shutil
import subprocess
import sys

import crashing
import cv2
import numpy as np
import odd_videos
import pytest
import random_inputs
import recorded_squares
import tensorflow_datasets as tfds
import unlike

from configs import preprocess as preprocess_config
from drp_jax import recordings
from drp_jax.data import embedded, report, shards
from drp_jax.preprocess import video
from drp_jax.runs import lock
from experiments import preprocess_work, run_preprocess


def _config(variant, path, shards_dir, **data):
  config = preprocess_config.get_config(variant)
  config.path, config.data.shards_dir = str(path), str(shards_dir)
  config.data.validation_fraction = 0.0
  config.data.num_workers = 1
  config.data.update(data)
  return config


def _short(videos, shards_dir, **data):
  """For tests of who writes what, in which clips may be short."""
  return _config('folder', videos, shards_dir, clip_length=15, **data)


def _examples(shards_dir, split='train'):
  source = shards.open_split(shards_dir, split, None)
  return [source[i] for i in range(len(source))]


def _contents(folder):
  """Relative path -> bytes, of all files but those about the process."""
  folder = pathlib.Path(folder)
  return {
    path.relative_to(folder).as_posix(): path.read_bytes()
    for path in folder.rglob('*')
    if path.is_file() and path.name not in ('run.json', lock.LOCK_FILE)
  }


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
  """Six short videos."""
  folder = tmp_path_factory.mktemp('videos')
  for seed in range(6):
    frames = random_inputs.moving_squares(15, seed)
    video.write_video(folder / f'{seed}.mp4', frames, 25)
  return folder


@pytest.fixture(scope='module')
def undisturbed(videos, tmp_path_factory):
  """Their shards, written by this process alone."""
  folder = tmp_path_factory.mktemp('undisturbed')
  run_preprocess.preprocess(_short(videos, folder))
  return folder


def test_unusable_videos_are_listed_with_their_reasons(tmp_path):
  folder = tmp_path / 'videos'
  folder.mkdir()
  for name, make in odd_videos.USABLE.items():
    make(folder / name)
  for name, (make, _) in odd_videos.UNUSABLE.items():
    make(folder / name)
  config = _config('folder', folder, tmp_path / 'shards')
  found = run_preprocess.preprocess(config)
  assert found['num_videos'] == len(odd_videos.USABLE)
  reasons = {
    entry['source_id']: entry['reason'].partition(':')[0]
    for entry in found['left_out']
  }
  assert reasons == {
    n: reason for n, (_, reason) in odd_videos.UNUSABLE.items()
  }
  assert report.count_reasons(found['left_out'])['unreadable'] == 3
  # The same wherever the videos lie.
  assert str(tmp_path) not in json.dumps(found)
  examples = {
    e['source_id'].decode(): e for e in _examples(tmp_path / 'shards')
  }
  assert examples.keys() == odd_videos.USABLE.keys()
  # The same content, so nearly the same motion.
  plain = examples['plain.mp4']['flow'].astype(float)
  for name in ('rotated.mp4', 'ten_bit.mkv', 'variable_rate.mp4'):
    other = examples[name]['flow'].astype(float)
    assert np.abs(other - plain).mean() < 0.25 * np.abs(plain).mean(), name


def test_no_more_frames_are_read_than_allowed(videos, tmp_path):
  config = _config('folder', videos, tmp_path, clip_length=6, clip_stride=6)
  config.data.max_frames = 13
  found = run_preprocess.preprocess(config)
  assert found['num_clips']['train'] == 6 * 2
  assert found['extractor']['frames'] == 'whole frame, at most 13'
  assert found['cut_short'] == [
    {'source_id': f'{i}.mp4', 'read': 13, 'unread': 2} for i in range(6)
  ]
  text = run_preprocess.summary(found, 'here')
  assert '6 videos are longer than config.data.max_frames, 12 frames' in text
  config.data.max_frames = 4
  config.data.shards_dir = str(tmp_path / 'other')
  with pytest.raises(ValueError, match='max_frames=4 must be at least .*=6'):
    run_preprocess.preprocess(config)


def test_clips_end_at_hard_cuts(tmp_path):
  folder = tmp_path / 'videos'
  folder.mkdir()
  shots = [random_inputs.moving_squares(n, s) for s, n in enumerate((22, 40))]
  shots[1] = shots[1][..., ::-1] // 2 + 100
  video.write_video(folder / 'a.mp4', np.concatenate(shots), 25)
  video.write_video(folder / 'b.mp4', random_inputs.moving_squares(30, 3), 25)
  config = _config('folder', folder, tmp_path / 'shards', clip_length=10)
  config.data.clip_stride, config.data.validation_fraction = 10, 0.2
  found = run_preprocess.preprocess(config)
  assert found['cuts'] == {'a.mp4': 1}
  assert '1 hard cuts in 1 videos' in run_preprocess.summary(found, '')
  starts = {
    (split, e['first_frame'])
    for split in ('train', 'validation')
    for e in _examples(tmp_path / 'shards', split)
    if e['source_id'] == b'a.mp4'
  }
  # 12 of 62 frames are held out.
  assert starts == {
    *(('train', t) for t in (0, 10, 22, 32)),
    ('validation', 50),
  }
  # A folder that was begun when clips went on beyond cuts.
  path = tmp_path / 'shards' / 'plan.json'
  plan = json.loads(path.read_text())
  del plan['extractor']['shots']
  path.write_text(json.dumps(plan))
  with pytest.raises(ValueError, match='begun with other settings.*shots'):
    run_preprocess.preprocess(config)


def test_motion_at_a_rate_is_the_same_from_all_rates(tmp_path):
  """A square that moves by 24 pixels per second, filmed at four rates."""
  scale = {}
  for rate in (12, 24, 30, 60):
    folder = tmp_path / str(rate)
    folder.mkdir()
    frames = np.full((2 * rate + 1, 64, 64, 3), 60, np.uint8)
    texture = np.random.default_rng(0).integers(90, 250, (5, 5, 3), np.uint8)
    square = texture.repeat(4, 0).repeat(4, 1)
    for t, frame in enumerate(frames):
      x = round(24 * t / rate)
      frame[20:40, x : x + 20] = square[:, : 64 - x]
    video.write_video(folder / 'a.mp4', frames, rate)
    for fps in (0.0, 12.0):
      shards_dir = folder / f'shards{fps}'
      config = _config('folder', folder, shards_dir, clip_length=12, fps=fps)
      found = run_preprocess.preprocess(config)
      scale[rate, fps] = found['flow_scale']
  assert 'frames' in found['extractor']
  assert found['extractor']['frames'].endswith(', 12 a second')
  for rate in (24, 30, 60):
    assert scale[rate, 12.0] == pytest.approx(scale[12, 12.0], rel=0.1)
  assert scale[12, 0.0] == scale[12, 12.0]
  assert scale[60, 0.0] < 0.5 * scale[12, 0.0]


@pytest.mark.parametrize('source', ['frames', 'tfds', 'hdf5'])
def test_a_rate_needs_times(tmp_path, source):
  config = _config(source, tmp_path, tmp_path / 'shards', fps=12.0)
  with pytest.raises(ValueError, match='config.data.fps=12.0 needs the times'):
    run_preprocess.preprocess(config)


def test_a_rate_would_part_frames_from_the_truth(tmp_path):
  config = _config('folder', tmp_path, tmp_path / 'shards', fps=12.0)
  config.extract.flow = 'sim'
  with pytest.raises(ValueError, match="config.data.fps=12.0 must be 0.*'sim'"):
    run_preprocess.preprocess(config)


def _squares_flow(example):
  """Mean flow to the right within the square, [T]."""
  flow, image = example['flow'].astype(float), example['image']
  before = np.concatenate([image[:1], image[:-1]])
  inside = (before > 80).any(-1)
  return (flow[..., 0] * inside).sum((1, 2)) / inside.sum((1, 2))


@pytest.mark.parametrize('fps', [0.0, 12.0])
def test_recorded_entries_follow_the_frames_of_their_clip(tmp_path, fps):
  """Also where every second frame is left out, and of later clips."""
  folder = tmp_path / 'videos'
  folder.mkdir()
  whole = recorded_squares.write(folder / 'a.mp4', 100)
  config = _config('folder', folder, tmp_path / 'shards', fps=fps)
  config.data.clip_length, config.data.clip_stride = 12, 15
  config.data.max_frames = 40
  found = run_preprocess.preprocess(config)
  assert found['recorded_videos'] == 1
  text = run_preprocess.summary(found, '')
  assert '1 videos have recorded actions' in text
  each = 2 if fps else 1  # frames that an entry spans
  expected = whole.action[:, 0]
  if fps:
    expected = np.r_[0, (whole.action[1:-1:2] + whole.action[2::2])[:, 0] / 2]
  examples = _examples(tmp_path / 'shards')
  assert [e['first_frame'] for e in examples] == [0, 15]
  for example in examples:
    action, start = example['action'][:, 0], example['first_frame']
    assert action[0] == 0 and example['body'] == b'square'
    np.testing.assert_array_equal(action[1:], expected[start + 1 : start + 12])
    np.testing.assert_array_equal(example['joint_velocity'][:, 0], 24 * action)
    # The index rule: entry t of action and flow led to the same frame t.
    flow = _squares_flow(example)[1:]
    assert np.corrcoef(flow, action[1:])[0, 1] > 0.9
    np.testing.assert_allclose(flow, each * action[1:], atol=1.5)
    for shift in (-1, 1):
      other = np.roll(action[1:], shift)
      assert np.corrcoef(flow, other)[0, 1] < 0.7


def test_recordings_of_folders_of_pictures_and_none(tmp_path):
  for name in ('v', 'w'):
    folder = tmp_path / 'frames' / name
    folder.mkdir(parents=True)
    for t, frame in enumerate(random_inputs.moving_squares(25, 0)):
      cv2.imwrite(str(folder / f'{t}.png'), frame)
  action = np.arange(25, dtype=np.float32)[:, None]
  recording = recordings.Recording(action, action[:, :0])
  recordings.write(tmp_path / 'frames' / 'v', recording)
  config = _config('frames', tmp_path / 'frames', tmp_path / 'shards')
  assert run_preprocess.preprocess(config)['recorded_videos'] == 1
  known, unknown = _examples(tmp_path / 'shards')
  assert known['action'][:, 0].tolist() == list(range(25))
  assert unknown['action'].shape == (25, 0)


def test_a_recording_of_other_frames_is_not_used(tmp_path):
  """Its video is left out, and the report says why."""
  folder = tmp_path / 'videos'
  folder.mkdir()
  for name in 'abcd':
    recorded_squares.write(folder / f'{name}.mp4', 30)
  for name, length in (('b', 29), ('c', 31)):
    recordings.write(folder / f'{name}.mp4', recordings.nothing(length))
  recordings.path_of(folder / 'd.mp4').write_bytes(b'no archive')
  config = _config('folder', folder, tmp_path / 'shards')
  found = run_preprocess.preprocess(config)
  assert found['num_videos'] == found['recorded_videos'] == 1
  reasons = {e['source_id']: e['reason'] for e in found['left_out']}
  for name, length in (('b', 29), ('c', 31)):
    assert reasons[f'{name}.mp4'] == (
      f'bad_recording: {length} entries in the .actions.npz file, but 30'
      ' frames in the video'
    )
  assert reasons['d.mp4'].startswith('bad_recording: d.mp4.actions.npz is dam')
  # Where not all frames are read, there are too few of them at most.
  config.data.clip_length = config.data.max_frames = 20
  config.data.shards_dir = str(tmp_path / 'cut')
  found = run_preprocess.preprocess(config)
  assert [e['source_id'] for e in found['left_out']] == ['d.mp4']
  recordings.write(folder / 'b.mp4', recordings.nothing(19))
  config.data.shards_dir = str(tmp_path / 'again')
  found = run_preprocess.preprocess(config)
  assert (
    '19 entries in the .actions.npz file, but at least 20 frames'
    in (found['left_out'][0]['reason'])
  )


def test_shards_that_were_begun_without_recordings_go_on(tmp_path):
  """A folder of a version that knew none, though there are some by now."""
  folder = tmp_path / 'videos'
  folder.mkdir()
  for name in 'abc':
    recorded_squares.write(folder / f'{name}.mp4', 25)
  config = _config('folder', folder, tmp_path / 'shards')
  config.shards = '0/3'
  run_preprocess.preprocess(config)
  path = tmp_path / 'shards' / 'plan.json'
  plan = json.loads(path.read_text())
  assert plan.pop('recorded') is True
  path.write_text(json.dumps(plan))
  shutil.rmtree(tmp_path / 'shards' / 'progress')
  (tmp_path / 'shards' / 'progress').mkdir()
  config.shards, config.data.num_shards = '', 3
  found = run_preprocess.preprocess(config)
  assert found['recorded'] is False
  assert not any('action' in e for e in _examples(tmp_path / 'shards'))
  assert len(_examples(tmp_path / 'shards')) == 3


def test_a_killed_worker_loses_nothing(
  videos, undisturbed, tmp_path, monkeypatch
):
  """And two workers write what one writes."""
  pids, folder = tmp_path / 'pids', tmp_path / 'shards'
  pids.mkdir()
  work = functools.partial(crashing.preprocess_and_die_once, str(pids))
  monkeypatch.setattr(preprocess_work, 'work', work)
  run_preprocess.preprocess(_short(videos, folder, num_workers=2))
  lives = {p.name: len(p.read_text().split()) for p in pids.iterdir()}
  assert lives == {'0': 2, '1': 1}
  assert _contents(folder) == _contents(undisturbed)


def test_jobs_of_an_array_write_a_shard_each(videos, undisturbed, tmp_path):
  """In any order, once more if need be, and the last writes the rest."""
  for part in ('2/6', '0/6', '2/6', '5/6'):
    config = _short(videos, tmp_path)
    config.shards = part
    assert run_preprocess.preprocess(config) is None
  written = sorted(p.stem for p in tmp_path.glob('progress/*.json'))
  assert written == ['00000', '00002', '00005']
  config.shards = 'finish/6'
  with pytest.raises(ValueError, match='lacks 3 of 6 shards: 1, 3, 4.'):
    run_preprocess.preprocess(config)
  for shard in (1, 3, 4):
    config.shards = f'{shard}/6'
    run_preprocess.preprocess(config)
  config.shards = 'finish/6'
  assert run_preprocess.preprocess(config)['num_videos'] == 6
  assert _contents(tmp_path) == _contents(undisturbed)


@pytest.mark.parametrize(
  ('text', 'expected'),
  [
    ('', ('', 16)),
    ('17/1000', (17, 1000)),
    ('0/1', (0, 1)),
    ('finish/3', ('finish', 3)),
  ],
)
def test_parts_of_an_array(text, expected):
  assert run_preprocess.parse_shards(text, 16) == expected


@pytest.mark.parametrize(
  'text', ['17', '3/3', '-1/3', '1/0', 'end/3', '1/', '/']
)
def test_what_is_no_part_is_refused(text):
  with pytest.raises(
    ValueError, match=r'config.shards=.* must be empty, <shard'
  ):
    run_preprocess.parse_shards(text, 16)


def test_beam_writes_the_same_shards(
  videos, undisturbed, tmp_path, monkeypatch
):
  pytest.importorskip('apache_beam', reason='the extra [beam] is not there')
  # Beam's local workers are processes that must find this project.
  root = str(pathlib.Path(__file__).parents[2])
  monkeypatch.setenv('PYTHONPATH', root)
  config = _short(videos, tmp_path, num_workers=2)
  config.beam_runner = 'DirectRunner'
  run_preprocess.preprocess(config)
  assert _contents(tmp_path) == _contents(undisturbed)


def test_without_beam_its_runner_names_the_extra(videos, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'apache_beam', None)
  config = _config('folder', videos, tmp_path)
  config.beam_runner = 'DirectRunner'
  with pytest.raises(ValueError, match=r"config.beam_runner='Dir.*\[beam\]"):
    run_preprocess.preprocess(config)


def test_folders_of_frames(tmp_path):
  frames = random_inputs.moving_squares(27, 0)
  folder = tmp_path / 'frames' / 'v'
  folder.mkdir(parents=True)
  for t, frame in enumerate(frames):
    cv2.imwrite(str(folder / f'{t}.png'), frame[..., ::-1])
  (tmp_path / 'frames' / 'broken').mkdir()
  (tmp_path / 'frames' / 'broken' / '0.jpg').write_bytes(b'no picture')
  config = _config('frames', tmp_path / 'frames', tmp_path / 'shards')
  found = run_preprocess.preprocess(config)
  (example,) = _examples(tmp_path / 'shards')
  np.testing.assert_array_equal(example['image'], frames[:25])  # 2 before 10
  assert report.count_reasons(found['left_out']) == {'unreadable': 1}


def test_folders_of_more_frames_than_are_read(tmp_path):
  for name, count in (('long', 29), ('short', 20)):
    folder = tmp_path / 'frames' / name
    folder.mkdir(parents=True)
    for t, frame in enumerate(random_inputs.moving_squares(count, 0)):
      cv2.imwrite(str(folder / f'{t}.png'), frame)
  config = _config('frames', tmp_path / 'frames', tmp_path / 'shards')
  config.data.clip_length = config.data.max_frames = 20
  found = run_preprocess.preprocess(config)
  assert found['num_videos'] == 2
  assert found['cut_short'] == [{'source_id': 'long', 'read': 20, 'unread': 9}]


def test_short_videos_in_jobs_of_an_array(videos, tmp_path):
  """Each sees one shard, yet all agree on which videos are held out."""
  whole = run_preprocess.preprocess(
    _short(videos, tmp_path / 'whole', validation_fraction=0.05)
  )
  assert whole['num_clips'] == {'train': 5, 'validation': 1}
  assert whole['held_out_videos'] == 1
  for part in (3, 1, 5, 0, 4, 2, 'finish'):
    config = _short(videos, tmp_path / 'jobs', validation_fraction=0.05)
    config.shards = f'{part}/6'
    found = run_preprocess.preprocess(config)
  assert found == whole
  assert _contents(tmp_path / 'jobs') == _contents(tmp_path / 'whole')
  assert '1 validation clips of 6 videos' in run_preprocess.summary(found, '')


def test_whole_videos_are_held_out_if_asked_for(videos, tmp_path):
  config = _config('folder', videos, tmp_path, clip_length=7, clip_stride=4)
  config.data.hold_out, config.data.validation_fraction = 'videos', 0.34
  found = run_preprocess.preprocess(config)
  assert found['num_clips'] == {'train': 12, 'validation': 6}
  train, validation = (
    {e['source_id'] for e in _examples(tmp_path, split)}
    for split in ('train', 'validation')
  )
  assert len(validation) == 2 and not train & validation


def test_the_center_of_wide_frames(tmp_path):
  frames = random_inputs.moving_squares(25, 0)
  wide = np.concatenate([frames[:, :, :32], frames, frames[:, :, :32]], 2)
  folder = tmp_path / 'frames' / 'v'
  folder.mkdir(parents=True)
  for t, frame in enumerate(wide):
    cv2.imwrite(str(folder / f'{t}.png'), frame[..., ::-1])
  config = _config('frames', tmp_path / 'frames', tmp_path / 'shards')
  config.data.centre_crop = True
  run_preprocess.preprocess(config)
  (example,) = _examples(tmp_path / 'shards')
  np.testing.assert_array_equal(example['image'], frames)


def test_something_something(tmp_path):
  folder = tmp_path / 'ssv2'
  folder.mkdir()
  for number in range(3):
    frames = random_inputs.moving_squares(30 if number else 24, number)
    video.write_video(folder / f'{number}.webm', frames, 12)
  template = 'Moving [something] away from [something]'
  entries = [
    {'id': str(i), 'label': '', 'template': template} for i in range(4)
  ]
  for name, content in (
    ('train', entries[:2] + entries[3:]),
    ('validation', entries[2:3]),
    ('labels', {'Moving something away from something': '40'}),
  ):
    path = folder / f'something-something-v2-{name}.json'
    path.write_text(json.dumps(content))
  config = _config('ssv2', folder, tmp_path / 'shards')
  found = run_preprocess.preprocess(config)
  for split, name in (('train', '1.webm'), ('validation', '2.webm')):
    (example,) = _examples(tmp_path / 'shards', split)
    assert example['source_id'].decode() == name and example['label'] == 40
  reasons = {e['source_id']: e['reason'][:9] for e in found['left_out']}
  assert reasons == {'0.webm': 'too_short', '3.webm': 'missing: '}


class Squares(tfds.core.GeneratorBasedBuilder):
  """Two videos, one of them too short."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self):
    features = {
      'film': tfds.features.Tensor(
        shape=(None, 80, 64, 3), dtype=np.uint8, encoding='bytes'
      ),
      'kind': tfds.features.ClassLabel(num_classes=9),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    del dl_manager
    return {'test': self._generate_examples()}

  def _generate_examples(self):
    for number, length in enumerate((25, 3)):
      frames = random_inputs.moving_squares(length, number)
      film = np.pad(frames, ((0, 0), (8, 8), (0, 0), (0, 0)))
      yield number, {'film': film, 'kind': 5}


def test_a_tfds_data_set(tmp_path):
  builder = Squares(data_dir=tmp_path / 'sets', file_format='array_record')
  builder.download_and_prepare()
  config = _config('tfds', tmp_path / 'sets', tmp_path / 'shards')
  config.tfds.name, config.tfds.split = 'squares', 'test'
  config.tfds.video_feature, config.tfds.label_feature = 'film', 'kind'
  config.data.centre_crop = True
  found = run_preprocess.preprocess(config)
  (example,) = _examples(tmp_path / 'shards')
  expected = random_inputs.moving_squares(25, 0)
  np.testing.assert_array_equal(example['image'], expected)
  assert example['label'] == 5
  assert example['source_id'].decode().startswith('squares/test/')
  assert report.count_reasons(found['left_out']) == {'too_short': 1}
  config.data.clip_length, config.data.max_frames = 20, 20
  config.data.shards_dir = str(tmp_path / 'cut')
  (cut,) = run_preprocess.preprocess(config)['cut_short']
  assert (cut['read'], cut['unread']) == (20, 5)


def test_renders_with_the_truth_about_them(tmp_path):
  config = _config('sim', tmp_path / 'videos', tmp_path / 'shards')
  config.sim.tasks, config.sim.frames = ('cheetah_run',), 25
  config.sim.clips_per_task = 1
  for kind in ('flow', 'mask', 'tracker'):
    config.extract[kind] = 'sim'
  run_preprocess.preprocess(config)
  (example,) = _examples(tmp_path / 'shards')
  assert example['body'] == b'cheetah'
  assert example['action'].shape == (25, 6)
  assert example['joint_velocity'].shape == (25, 9)
  body = example['mask']
  assert 0.01 < body.mean() < 0.3
  speed = np.linalg.norm(example['flow'][1].astype(float), axis=-1)
  assert speed[body].mean() > 2 * np.median(speed)
  # Without what the simulator wrote there is no truth.
  for path in (tmp_path / 'videos').glob('*.scene.npz'):
    path.unlink()
  config.source, config.data.shards_dir = 'folder', str(tmp_path / 'again')
  with pytest.raises(ValueError, match='None of 1 videos.*no_scene'):
    run_preprocess.preprocess(config)


_RENDER = """
import sys
from configs import preprocess
from experiments import run_preprocess
for source in sys.argv[2:]:
  config = preprocess.get_config(source)
  config.path = f'{sys.argv[1]}/{source}'
  config.sim.tasks, config.sim.clips_per_task = ('walker_walk',), 1
  config.sim.frames = 60
  config.pushes.clips_per_class = 1
  run_preprocess.fetch(config)
"""


@pytest.fixture(scope='module')
def rendered(tmp_path_factory):
  """Folders of renders, by processes unlike each other."""
  root = tmp_path_factory.mktemp('rendered')
  folders = [root / str(number) for number in range(3)]
  for number, folder in enumerate(folders):
    unlike.run(_RENDER, number, str(folder), 'sim', 'pushes')
  return folders


@pytest.mark.parametrize(('source', 'count'), [('sim', 4), ('pushes', 7)])
def test_renders_are_a_function_of_their_seed(rendered, source, count):
  """Every file, to the bit."""
  first, *others = (_contents(folder / source) for folder in rendered)
  assert len(first) == count
  for other in others:
    assert other == first


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (
      dict(source='youtube'),
      "config.source='youtube' must be one of folder, cl",
    ),
    (dict(path=''), 'config.path is empty'),
    (dict(path='nowhere'), "config.path='nowhere' is not a folder"),
    (dict(shards='1/'), "config.shards='1/'"),
  ],
  ids=str,
)
def test_wrong_settings_are_named(videos, tmp_path, change, message):
  config = _config('folder', videos, tmp_path)
  config.update(change)
  with pytest.raises(ValueError, match=message):
    run_preprocess.preprocess(config)
  assert {path.name for path in tmp_path.iterdir()} <= {lock.LOCK_FILE}


def test_a_wrong_setting_is_found_before_workers_start(videos, tmp_path):
  config = _short(videos, tmp_path, num_workers=2)
  config.extract.flow = 'guess'
  with pytest.raises(ValueError, match="config.extract.flow='guess'"):
    run_preprocess.preprocess(config)


def test_a_second_call_changes_nothing(videos, undisturbed, tmp_path):
  shutil.copytree(undisturbed, tmp_path / 'again')
  config = _short(videos, tmp_path / 'again')
  run_preprocess.preprocess(config)
  assert _contents(tmp_path / 'again') == _contents(undisturbed)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (
      {'seed': 1, 'source': 'classes'},
      "seed 0 -> 1; config.source 'folder' ->",
    ),
    ({'data': {'clip_stride': 3}}, r'config\.data\.clip_stride 25 -> 3\.'),
    ({'data': {'max_frames': 99}}, r'config\.data\.max_frames 3000 -> 99\.'),
    ({'extract': {'flow': 'farneback'}}, r"config\.extract\.flow 'dis' -> "),
    ({'tfds': {'label_feature': 'x'}}, r"tfds\.label_feature '' -> 'x'"),
  ],
  ids=str,
)
@pytest.mark.parametrize('job', ['', '0/16', 'finish/16'])
def test_shards_of_other_settings_are_refused_and_stay_whole(
  videos, undisturbed, tmp_path, changes, message, job
):
  folder = tmp_path / 'shards'
  shutil.copytree(undisturbed, folder)
  config = _short(videos, folder)
  config.update(changes)
  config.shards = job
  with pytest.raises(ValueError, match=message) as error:
    run_preprocess.preprocess(config)
  assert 'another config.data.shards_dir' in str(error.value)
  assert _contents(folder) == _contents(undisturbed)


def test_what_changes_no_clip_may_change(videos, undisturbed, tmp_path):
  folder = tmp_path / 'shards'
  shutil.copytree(undisturbed, folder)
  config = _short(videos, folder, num_workers=2, max_seconds=9)
  config.extract.device, config.extract.torch_threads = 'cuda', 4
  run_preprocess.preprocess(config)
  assert _contents(folder) == _contents(undisturbed)


def test_videos_may_move_but_not_become_others(videos, undisturbed, tmp_path):
  folder, moved = tmp_path / 'shards', tmp_path / 'moved'
  shutil.copytree(undisturbed, folder)
  shutil.copytree(videos, moved)
  config = _short(moved, folder)
  run_preprocess.preprocess(config)
  recorded = json.loads((folder / 'config.json').read_text())
  assert recorded['path'] == str(moved)
  # Others under the same names; the build would say that it is complete.
  others = tmp_path / 'others'
  shutil.copytree(videos, others)
  shutil.copy(videos / '1.mp4', others / '4.mp4')
  config.path = str(others)
  with pytest.raises(ValueError, match=r"path=.* holds another '4"):
    run_preprocess.preprocess(config)
  shutil.copy(videos / '1.mp4', moved / '9.mp4')
  config.path = str(moved)
  with pytest.raises(ValueError, match='num_videos 6 -> 7'):
    run_preprocess.preprocess(config)


def test_shards_from_before_settings_were_recorded(
  videos, undisturbed, tmp_path
):
  folder = tmp_path / 'shards'
  shutil.copytree(undisturbed, folder)
  (folder / 'config.json').unlink()
  run_preprocess.preprocess(_short(videos, folder))
  assert _contents(folder) == _contents(undisturbed)
  old = json.loads((folder / 'config.json').read_text())
  del old['data']['centre_crop'], old['tfds']  # newer than the folder
  (folder / 'config.json').write_text(json.dumps(old))
  run_preprocess.preprocess(_short(videos, folder))
  config = _short(videos, folder, centre_crop=True)
  with pytest.raises(ValueError, match='data.centre_crop False -> True'):
    run_preprocess.preprocess(config)


@pytest.mark.parametrize('source', ['sim', 'pushes', 'embedded'])
def test_a_folder_holds_renders_of_one_setting(source, tmp_path):
  """They would be taken for those of the new one, since names do not tell."""
  config = _config(source, tmp_path / 'videos', tmp_path / 'shards')
  folder = tmp_path / 'videos'
  run_preprocess._claim(folder, config)
  config.seed = 2  # nothing was rendered yet
  run_preprocess._claim(folder, config)
  (folder / 'robots').mkdir()
  (folder / 'robots' / 'a.mp4').touch()
  config.extract.flow = 'farneback'  # not of the renders
  run_preprocess._claim(folder, config)
  config.seed = 3
  with pytest.raises(ValueError, match=r'config\.seed 2 -> 3\. .*config\.path'):
    run_preprocess.fetch(config)
  config.seed = 2
  if source == 'pushes':
    config.data.clip_length = 7
  else:
    config[source].frames = 77
  with pytest.raises(ValueError, match=r'(clip_length 25|frames 126) -> 7'):
    run_preprocess.fetch(config)
  assert [p.name for p in folder.rglob('*.*')] == ['.renders.json', 'a.mp4']


def test_bodies_are_robots_arms_pushes_and_real_clips(tmp_path):
  config = _config('bodies', tmp_path / 'videos', tmp_path, clip_length=6)
  assert config.data.hold_out == 'videos'
  seen = ' '.join((*config.embedded.tasks, *config.embedded.arms))
  assert 'walker' not in seen and 'cheetah' not in seen
  config.embedded.tasks = ('pendulum_swingup',)
  config.embedded.arms = ('metaworld_reach',)
  config.embedded.clips_per_task = config.embedded.clips_per_arm = 1
  config.embedded.clips_per_push = 1
  config.embedded.frames = 6
  run_preprocess.fetch(config)
  folder = tmp_path / 'videos'
  found = sorted(str(p.relative_to(folder)) for p in folder.rglob('*.mp4'))
  assert found == [
    'arms/metaworld_reach_0000.mp4',
    'pushes/pushing_left_to_right/0000.mp4',
    'pushes/pushing_right_to_left/0000.mp4',
    'pushes/putting_on_a_surface/0000.mp4',
    *(f'real/{name}' for name in sorted(embedded.SHA256)),
    'robots/pendulum_swingup_0000.mp4',
  ]
  for path in found:
    assert len(video.read(folder / path, 6)) == 6
    recording = recordings.read(folder / path)
    assert (recording is None) == path.startswith('real/')
    assert recording is None or len(recording) == 6


def test_unseen_bodies_are_those_that_no_model_is_trained_on():
  unseen = preprocess_config.get_config('unseen_bodies').sim.tasks
  bodies = {task.partition('_')[0] for task in unseen}
  assert bodies == {'walker', 'cheetah'}
  trained = preprocess_config.get_config('bodies').embedded
  for task in (*trained.tasks, *trained.arms):
    assert not any(body in task for body in bodies)


def test_workers_need_no_simulator():
  """Each is a process of its own, and MuJoCo takes seconds to import."""
  code = (
    'import sys; from experiments import preprocess_work, run_preprocess;'
    "print(sorted({'mujoco', 'torch', 'tensorflow'} & sys.modules.keys()))"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=pathlib.Path(__file__).parents[2],
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout.strip() == '[]'
