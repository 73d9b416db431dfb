"""The command, on files with odd names and on what is behind links."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import random_inputs

from configs import preprocess as preprocess_config
from drp_jax.data import names, report, shards
from drp_jax.preprocess import video
from experiments import run_preprocess

_ROOT = pathlib.Path(__file__).parents[2]
# What the file system allows, and what FFmpeg, a shell, a flag, a regular
# expression, a line of text or JSON would read as something else.
_ODD = [
  b'caf\xe9.mp4',
  b'\xff\xfe\x80.mp4',
  b'two\nlines.mp4',
  b'tab\tbell\x07.mp4',
  b' lead and trail .mp4',
  b'-y.mp4',
  b'http:x.mp4',
  b'file:x.mp4',
  b'concat:a|b.mp4',
  b'pipe:0.mp4',
  b'a,b;c=d.mp4',
  b'%03d.mp4',
  b'*?[a]{b}.mp4',
  b'"quote\'s".mp4',
  b'back\\slash.mp4',
  b'looks\\x0aescaped.mp4',
  'Zürich 東京 🤖.mp4'.encode(),
  b'<b>&amp;.mp4',
  b'x' * 251 + b'.mp4',
]
_T = 6


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
  """The bytes of a video of 12 frames."""
  path = tmp_path_factory.mktemp('plain') / 'plain.mp4'
  video.write_video(path, random_inputs.moving_squares(2 * _T, 0), 25)
  return path.read_bytes()


def _config(variant, path, shards_dir, **data):
  config = preprocess_config.get_config(variant)
  config.path, config.data.shards_dir = str(path), str(shards_dir)
  config.data.clip_length = config.data.clip_stride = _T
  config.data.num_workers, config.data.num_shards = 1, 3
  config.data.validation_fraction = 0.0
  config.data.update(data)
  return config


def _fill(folder, content):
  """Writes a video of every odd name into a folder of a path as bytes."""
  os.makedirs(folder, exist_ok=True)
  for name in _ODD:
    with open(folder + b'/' + name, 'wb') as file:
      file.write(content)


def _ids(shards_dir, split='train'):
  source = shards.open_split(shards_dir, split, _T)
  return {example['source_id'].decode() for example in source}


def _back(ids):
  """The names on disk that source ids stand for."""
  return {os.fsencode(names.from_text(text)) for text in ids}


@pytest.mark.parametrize('where', ['absolute', 'relative', 'here'])
def test_videos_of_any_name(plain, tmp_path, monkeypatch, where):
  folder = os.fsencode(tmp_path) + b'/sim:v\xe9'
  _fill(folder, plain)
  monkeypatch.chdir(tmp_path)
  path = os.fsdecode(folder)
  if where == 'relative':
    path = os.fsdecode(b'sim:v\xe9')
  elif where == 'here':
    monkeypatch.chdir(path)
    path = '.'
  config = _config('folder', path, tmp_path / 'shards')
  found = run_preprocess.preprocess(config)
  assert found['left_out'] == [] and found['not_taken'] == {}
  assert found['num_videos'] == len(_ODD)
  assert _back(_ids(tmp_path / 'shards')) == set(_ODD)
  books = (tmp_path / 'shards' / 'report.json').read_text('ascii')
  assert json.loads(books) == found


def test_classes_and_folders_of_frames_of_any_name(plain, tmp_path):
  root = os.fsencode(tmp_path)
  for name in (b'b\xff\n', b'-a', b'c:d'):
    _fill(root + b'/classes/' + name, plain)
  config = _config('classes', tmp_path / 'classes', tmp_path / 'shards')
  found = run_preprocess.preprocess(config)
  assert found['classes'] == ['-a', 'b\\xff\\x0a', 'c:d']
  assert not found['left_out'] and found['num_videos'] == 3 * len(_ODD)
  for example in shards.open_split(tmp_path / 'shards', 'train', _T):
    name = example['source_id'].decode().partition('/')[0]
    assert found['classes'][example['label']] == name

  frames = random_inputs.moving_squares(_T, 0)
  pictures = [cv2.imencode('.png', f[..., ::-1])[1].tobytes() for f in frames]
  for name in _ODD:
    folder = root + b'/frames/' + name
    os.makedirs(folder)
    for t, picture in enumerate(pictures):
      with open(folder + b'/\xfe\n%%0:%d.png' % t, 'wb') as file:
        file.write(picture)
  config = _config('frames', tmp_path / 'frames', tmp_path / 'frame_shards')
  found = run_preprocess.preprocess(config)
  assert not found['left_out'] and not found['not_taken']
  assert _back(_ids(tmp_path / 'frame_shards')) == set(_ODD)
  for example in shards.open_split(tmp_path / 'frame_shards', 'train', _T):
    np.testing.assert_array_equal(example['image'], frames)


def test_renders_into_a_folder_of_any_name_and_linked_with_their_scene(
  tmp_path,
):
  path = os.fsdecode(os.fsencode(tmp_path) + b'/http:\xe9')
  config = _config('sim', path, tmp_path / 'shards')
  config.sim.tasks, config.sim.frames = ('cheetah_run',), _T
  config.sim.clips_per_task = 1
  for kind in ('flow', 'mask', 'tracker'):
    config.extract[kind] = 'sim'
  assert run_preprocess.preprocess(config)['num_videos'] == 1
  (rendered,) = pathlib.Path(path).glob('*.mp4')
  (scene,) = pathlib.Path(path).glob('*.scene.npz')
  odd = tmp_path / 'odd'
  for name in _ODD[:-1]:  # the longest leaves no room for '.scene.npz'
    target = os.fsencode(odd) + b'/' + name
    os.makedirs(os.fsencode(odd), exist_ok=True)
    shutil.copy(rendered, target)
    shutil.copy(scene, target.removesuffix(b'.mp4') + b'.scene.npz')
  os.symlink(rendered, odd / 'link.mp4')  # whose scene is beside the video
  config.source, config.path = 'folder', str(odd)
  config.data.shards_dir = str(tmp_path / 'again')
  found = run_preprocess.preprocess(config)
  assert not found['left_out'] and found['num_videos'] == len(_ODD)
  assert found['ignored'] == {'.npz': len(_ODD) - 1}
  assert _back(_ids(tmp_path / 'again')) == {*_ODD[:-1], b'link.mp4'}


def test_a_folder_of_any_name_by_the_command(plain, tmp_path):
  """In processes of their own, whose arguments are bytes."""
  folder = os.fsencode(tmp_path) + b'/v\xe9\n'
  _fill(folder, plain)
  (tmp_path / 'gone.mp4').symlink_to('nowhere')
  shutil.move(tmp_path / 'gone.mp4', os.fsdecode(folder))
  done = subprocess.run(
    [
      *(sys.executable, '-m', 'experiments.run_preprocess'),
      b'--config=configs/preprocess.py',
      b'--config.path=' + folder,
      b'--config.data.shards_dir=' + os.fsencode(tmp_path) + b'/shards',
      *(f'--config.data.clip_{key}={_T}' for key in ('length', 'stride')),
      '--config.data.num_workers=2',
      '--config.data.num_shards=3',
    ],
    cwd=_ROOT,
    capture_output=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr.decode(errors='replace')
  # 12 frames, clips of 6: each video is cut in two.
  count = len(_ODD)
  line = done.stdout.decode().strip().splitlines()[-1]
  assert line == (
    f'{count} training and {count} validation clips of {count} videos in'
    f' {tmp_path}/shards; {count} videos give validation clips, 0 of them'
    " whole; 0 videos left out; 1 names not taken: {'dangling': 1}"
    ' (report.json says more).'
  )
  assert _back(_ids(tmp_path / 'shards')) == set(_ODD)


def test_everything_that_is_not_taken_is_in_the_report(plain, tmp_path):
  root = tmp_path / 'videos'
  (root / 'a').mkdir(parents=True)
  (tmp_path / 'far').mkdir()
  for path in (root / 'a/1.mp4', tmp_path / 'far/2.mp4'):
    path.write_bytes(plain)
  (root / 'b').symlink_to(tmp_path / 'far')
  (root / 'a/loop').symlink_to('..')
  (root / 'gone.mp4').symlink_to('nowhere')
  (root / 'copy.mp4').symlink_to('a/1.mp4')
  os.mkfifo(root / 'pipe.mp4')
  (root / 'notes.txt').touch()
  found = run_preprocess.preprocess(
    _config('folder', root, tmp_path / 'shards')
  )
  assert _ids(tmp_path / 'shards') == {'a/1.mp4', 'b/2.mp4'}
  assert found['not_taken'] == {
    'a/loop': 'loop: leads back to .',
    'copy.mp4': 'duplicate: the file is listed as a/1.mp4',
    'gone.mp4': 'dangling: its target does not exist',
    'pipe.mp4': 'not_a_file: a named pipe (FIFO)',
  }
  assert found['ignored'] == {'.txt': 1}
  assert found == report.read_report(tmp_path / 'shards')
