"""Tests of the demo: the whole path in debug size, and its bookkeeping."""

import base64
import json
import re
import time

import numpy as np
import pytest

from configs import demo as demo_config
from drp_jax.preprocess import video
from experiments import demo, demo_verdicts


def _write_videos(folder):
  """Two videos of 60 frames: a textured square that goes back and forth."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  scene = rng.integers(60, 120, [32, 32, 3], np.uint8).repeat(4, 0).repeat(4, 1)
  square = rng.integers(120, 255, [8, 8, 3], np.uint8).repeat(5, 0).repeat(5, 1)
  for number in range(2):
    frames = np.stack([scene] * 60)
    for t, frame in enumerate(frames):
      x, y = 40 + 3 * abs(t % 30 - 15), 20 + 15 * number + t // 2
      frame[y : y + 40, x : x + 40] = square
    video.write_video(folder / f'square_{number}.mp4', frames, fps=25)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  """A finished demo of debug size, on videos of its own: config and workdir."""
  folder = tmp_path_factory.mktemp('demo')
  _write_videos(folder / 'videos')
  config = demo_config.get_config('debug')
  config.preprocess.source = 'folder'
  config.preprocess.data.clip_stride = 5
  config.preprocess.path = str(folder / 'videos')
  demo.demo(config, folder / 'run')
  return config, folder / 'run'


def test_the_whole_path_ends_in_a_report(finished):
  _, folder = finished
  times = json.loads((folder / 'times.json').read_text())
  assert list(times) == ['preprocess', 'pretrain', 'finetune', 'report']
  assert all(entry['done'] and entry['seconds'] > 0 for entry in times.values())
  page = (folder / 'report.html').read_text()
  for title in ('Atomic actions', 'Pre-training', 'Fine-tuning', 'What ran'):
    assert title in page
  for verdict in ('better than both', 'copying (', 'random (above means'):
    assert page.count(verdict) == 1
  assert 'square_' in page and '4 clips to train on and 4 held out' in page
  assert page.count('image/webp') == 6  # three clips, each with its still
  assert page.count('image/svg+xml') == 4 and page.count('image/png') == 1


def test_the_loss_of_patches_is_called_what_it_is(finished):
  """A squared L2 norm, see `losses.mae_loss`."""
  page = (finished[1] / 'report.html').read_text()
  pictures = [
    base64.b64decode(data).decode()
    for data in re.findall(r'image/svg\+xml;base64,([^"]+)', page)
  ]
  named = [p for p in pictures if 'squared L2 norm per hidden patch' in p]
  assert len(named) == 3  # held out, and the losses of both stages
  assert not any('L1 per' in p for p in (page, *pictures))


def test_a_second_call_does_nothing_again(finished, capsys):
  config, folder = finished
  before = {p: p.stat().st_mtime_ns for p in folder.rglob('*.json*')}
  demo.demo(config, folder)
  assert capsys.readouterr().out.count('done before') == 4
  assert before == {p: p.stat().st_mtime_ns for p in before}


def test_other_settings_need_another_workdir(finished):
  config, folder = finished
  config = config.copy_and_resolve_references()
  config.pretrain.optim.lr = 1e-2
  with pytest.raises(ValueError, match=r'pretrain\.optim\.lr 0\.0003 -> 0\.01'):
    demo.demo(config, folder)


def test_a_stopped_stage_goes_on_and_its_time_counts(tmp_path, monkeypatch):
  calls = []

  def work(config, folder):
    del config
    calls.append(time.sleep(0.3))
    if len(calls) == 1:
      raise KeyboardInterrupt
    (folder / 'out').touch()

  stage = demo.Stage('work', 'Work', 'out', work)
  monkeypatch.setattr(demo, 'STAGES', (stage,))
  config = demo_config.get_config('debug')
  with pytest.raises(KeyboardInterrupt):
    demo.demo(config, tmp_path)
  times = json.loads((tmp_path / 'times.json').read_text())
  assert times['work']['seconds'] >= 0.3 and not times['work']['done']
  demo.demo(config, tmp_path)
  demo.demo(config, tmp_path)
  times = json.loads((tmp_path / 'times.json').read_text())
  assert times['work']['seconds'] >= 0.6 and times['work']['done']
  assert len(calls) == 2


def _kept(folder):
  return json.loads((folder / 'times.json').read_text())['work']['seconds']


def test_time_is_kept_while_a_stage_runs(tmp_path, monkeypatch):
  monkeypatch.setattr(demo, '_BEAT', 0.01)
  seen = []

  def work(config, folder):
    del config
    for before in (0.0, 0.3):
      end = time.monotonic() + 300  # seconds, however busy the machine is
      while (kept := _kept(folder)) <= before:
        assert time.monotonic() < end
        time.sleep(0.01)
      seen.append(kept)

  monkeypatch.setattr(demo, 'STAGES', (demo.Stage('work', 'W', '.', work),))
  demo.demo(demo_config.get_config('debug'), tmp_path)
  assert 0 < seen[0] <= seen[1] <= _kept(tmp_path)


def test_verdicts_follow_the_numbers():
  mae = demo_verdicts.mae
  assert 'is clearly better than both (-40%' in mae(0.6, 1.0, 1.1)
  assert 'is not clearly better than both (-5%' in mae(0.95, 1.1, 1.0)
  assert 'is not clearly better than both (+20%' in mae(1.2, 1.0, 2.0)
  assert 'Prediction beats copying (-50%)' in demo_verdicts.open_loop(1, 2)
  assert 'does not beat copying (+100%)' in demo_verdicts.open_loop(2, 1)
  verdict = demo_verdicts.returns
  random = np.array([100.0, 140.0])  # 120 ± 20
  assert 'is above random' in verdict((110, 5), (150, 5), random)
  text = verdict((110, 5), (139, 5), random)
  assert 'is not above random' in text
  assert '139.0 ± 5.0' in text and '120.0 ± 20.0' in text


@pytest.mark.parametrize(
  'seconds, text', [(59.4, '59 s'), (59.6, '1 min 00 s'), (245, '4 min 05 s')]
)
def test_durations(seconds, text):
  assert demo_verdicts.duration(seconds) == text


def test_config_variants():
  nano = demo_config.get_config()
  assert nano.finetune.preset == nano.pretrain.preset == 'nano'
  assert nano.finetune.task not in nano.preprocess.embedded.tasks
  with pytest.raises(ValueError, match="'demo', 'debug'.*not 'paper'"):
    demo_config.get_config('paper')
