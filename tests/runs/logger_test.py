import io
import json
import logging
import math
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing import (
  event_accumulator,
  plugin_event_accumulator,
)

from drp_jax.runs import logger


def _events(workdir):
  sizes = {'scalars': 0, 'images': 0}  # 0: keep all
  return event_accumulator.EventAccumulator(str(workdir), sizes).Reload()


def _moving_dot(num_frames):
  video = np.zeros([num_frames, 16, 24, 3], np.uint8)
  for t in range(num_frames):
    video[t, 4:8, 4 + t : 8 + t] = 255
  return video


def test_scalars_go_to_json_lines_and_tensorboard(tmp_path):
  log = logger.Logger(tmp_path / 'run', 10, 'train')
  log.scalars(1, {'loss': 2.5, 'loss/kl_z': np.float32(0.25)})
  log.scalars(2, {'loss': np.array(1.5)})
  # Read before close: every call is flushed.
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  first = json.loads(lines[0])
  assert first.pop('wall_time') > 1.6e9
  assert first == {'step': 1, 'loss': 2.5, 'loss/kl_z': 0.25}
  assert json.loads(lines[1])['loss'] == 1.5

  events = _events(tmp_path / 'run')
  log.close()
  assert [(e.step, e.value) for e in events.Scalars('loss')] == [
    (1, 2.5),
    (2, 1.5),
  ]
  assert [e.step for e in events.Scalars('loss/kl_z')] == [1]


def test_not_finite_is_null_and_reads_as_nan(tmp_path, caplog):
  log = logger.Logger(tmp_path, 10, 'train')
  with caplog.at_level(logging.WARNING):
    log.scalars(1, {'loss': math.nan, 'ok': 1.0})
    log.scalars(2, {'loss': math.inf, 'ok': 1.0})
  log.close()
  assert len(caplog.records) == 1  # once per metric
  assert 'loss is nan at step 1' in caplog.text

  def refuse(constant):
    raise AssertionError(f'{constant} is not strict JSON')

  text = (tmp_path / 'metrics.jsonl').read_text()
  for line in text.splitlines():
    assert json.loads(line, parse_constant=refuse)['loss'] is None
  lines = logger.read_metrics(tmp_path)
  assert math.isnan(lines[0]['loss']) and math.isnan(lines[1]['loss'])
  assert lines[0]['ok'] == 1.0 and lines[0]['step'] == 1
  assert math.isnan(_events(tmp_path).Scalars('loss')[0].value)


def test_metrics_are_single_numbers_with_free_names(tmp_path):
  log = logger.Logger(tmp_path, 10, 'train')
  with pytest.raises(ValueError, match=r"'loss' has shape \[2\]"):
    log.scalars(1, {'loss': np.zeros(2)})
  with pytest.raises(ValueError, match="'step'"):
    log.scalars(1, {'step': 3})
  log.close()
  assert logger.read_metrics(tmp_path) == []


def test_image_and_video_decode_from_the_events(tmp_path):
  image = np.arange(6 * 4 * 3, dtype=np.uint8).reshape(6, 4, 3)
  log = logger.Logger(tmp_path, 10, 'train')
  log.image(3, 'frame', image)
  log.video(3, 'clip', _moving_dot(5), fps=10)
  log.close()

  events = _events(tmp_path)
  (event,) = events.Images('frame')
  assert (event.step, event.height, event.width) == (3, 6, 4)
  decoded = Image.open(io.BytesIO(event.encoded_image_string))
  np.testing.assert_array_equal(np.asarray(decoded), image)

  (event,) = events.Images('clip')
  clip = Image.open(io.BytesIO(event.encoded_image_string))
  assert (clip.format, clip.n_frames, clip.size) == ('GIF', 5, (24, 16))
  assert clip.info['duration'] == 100  # ms


def test_wrong_pictures_are_refused_by_name(tmp_path):
  log = logger.Logger(tmp_path, 10, 'train')
  with pytest.raises(ValueError, match="'frame' is float32"):
    log.image(0, 'frame', np.zeros([4, 4, 3], np.float32))
  with pytest.raises(ValueError, match=r"'clip' is uint8\[4, 4, 3\]"):
    log.video(0, 'clip', np.zeros([4, 4, 3], np.uint8), fps=10)
  log.close()


@pytest.mark.parametrize('step, kept', [(2, [1, 2]), (-1, []), (3, [1, 2, 3])])
def test_resume_drops_lines_beyond_the_checkpoint(tmp_path, step, kept):
  log = logger.Logger(tmp_path, 10, 'train')
  for t in (1, 2, 3):
    log.scalars(t, {'loss': t})
  log.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 1, "lo')  # torn by a kill

  log = logger.Logger(tmp_path, 10, 'train')
  log.resume(step, len(kept))  # as older checkpoints say it
  assert [line['step'] for line in logger.read_metrics(tmp_path)] == kept
  log.scalars(10, {'loss': 0.5})
  assert log.sync() == [
    len(kept) + 1,
    (tmp_path / 'metrics.jsonl').stat().st_size,
  ]
  log.close()
  steps = [line['step'] for line in logger.read_metrics(tmp_path)]
  assert steps == kept + [10]
  assert [path.name for path in tmp_path.glob('*.tmp')] == []


def test_a_torn_line_never_swallows_the_next(tmp_path):
  line = '{"step": 1, "wall_time": 5}'
  (tmp_path / 'metrics.jsonl').write_text(f'{line}\n{{"step": 2, "lo')
  assert logger.read_metrics(tmp_path) == [{'step': 1, 'wall_time': 5}]
  log = logger.Logger(tmp_path, 10, 'train')
  log.scalars(2, {'loss': 1.0})
  log.close()
  assert [line['step'] for line in logger.read_metrics(tmp_path)] == [1, 2]


def test_a_bit_that_flips_costs_a_line_and_no_run(tmp_path, caplog):
  """Each bit of three lines, of which two lie before the checkpoint."""
  log = logger.Logger(tmp_path / 'run', 10, 'train')
  log.scalars(1, {'loss': 1.5})
  log.scalars(2, {'loss': 2.5})
  end = log.sync()
  log.scalars(3, {'loss': 3.5})
  log.close()
  path = tmp_path / 'run' / 'metrics.jsonl'
  whole = path.read_bytes()
  for bit in range(8 * len(whole)):
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    caplog.clear()
    lines = logger.read_metrics(tmp_path / 'run')
    assert (
      len(lines) == 3
      or 'metrics.jsonl, line ' in caplog.text
      or (flipped[-1:] != b'\n')
    )
    if bit % 16 == 0 or flipped.count(b'\n') != 3:
      file, count = logger._open_metrics(path, end)
      file.close()
      assert count in (1, 2, 3)
      # To the byte what the checkpoint knew, the damage with it.
      assert (
        path.read_bytes() == flipped[: end[1]]
        or flipped[end[1] - 1 : end[1]] != b'\n'
      )


def test_a_damaged_line_is_named_and_kept(tmp_path, caplog):
  log = logger.Logger(tmp_path, 10, 'train')
  for t in (1, 2, 3):
    log.scalars(t, {'loss': t})
  end = log.sync()
  log.scalars(4, {'loss': 4})
  log.close()
  path = tmp_path / 'metrics.jsonl'
  lines = path.read_bytes().split(b'\n')
  lines[1] = lines[1].replace(b'step', b'st\xe5p')
  path.write_bytes(b'\n'.join(lines))
  log = logger.Logger(tmp_path, 10, 'train')
  log.resume(3, end)
  log.scalars(4, {'loss': 4})
  assert log.sync()[0] == 4
  log.close()
  assert path.read_bytes().split(b'\n')[:3] == lines[:3]
  assert [x['step'] for x in logger.read_metrics(tmp_path)] == [1, 3, 4]
  assert 'metrics.jsonl, line 2 is damaged and left out' in caplog.text


def test_metrics_that_were_edited_keep_the_lines_of_the_checkpoint(
  tmp_path, caplog
):
  log = logger.Logger(tmp_path, 10, 'train')
  for t in (1, 2):
    log.scalars(t, {'loss': t})
  end = log.sync()
  log.scalars(3, {'loss': 3})
  log.close()
  path = tmp_path / 'metrics.jsonl'
  path.write_bytes(path.read_bytes().replace(b'loss', b'the loss'))
  log = logger.Logger(tmp_path, 10, 'train')
  log.resume(2, end)
  log.close()
  lines = logger.read_metrics(tmp_path)
  assert [line['the loss'] for line in lines] == [1, 2]
  assert 'was changed' in caplog.text


def test_files_of_others_beside_the_event_files(tmp_path):
  names = (
    'events.out.tfevents.backup',
    'events.out.tfevents.1700000000',
    'events.out.tfevents..x',
    'events.out.tfevents.abc.host.1',
    'events.out.tfevents.99999999999999999999.later',
  )
  for name in names:
    (tmp_path / name).write_text('mine')
  (tmp_path / 'events.out.tfevents.9999999999.folder').mkdir()
  log = logger.Logger(tmp_path, 10, 'train')
  log.resume(-1, None)
  log.scalars(1, {'loss': 1.0})
  log.close()
  for name in names[:4]:
    assert (tmp_path / name).read_text() == 'mine'
    (tmp_path / name).unlink()
  (tmp_path / 'events.out.tfevents.9999999999.folder').rmdir()
  assert [e.value for e in _events(tmp_path).Scalars('loss')] == [1.0]


def test_no_metrics_yet(tmp_path):
  assert logger.read_metrics(tmp_path) == []


_KILLED_RUN = """
import os, signal, sys
import numpy as np
from drp_jax.runs import logger
log = logger.Logger(sys.argv[1], 10, 'train')
for step in range(5):
  log.scalars(step, {'loss': 100.0 + step})
  log.image(step, 'frame', np.full([2, 2, 3], step, np.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize('clock', [0, -86_400])
def test_tensorboard_sees_no_step_twice_after_a_kill(
  tmp_path, monkeypatch, clock
):
  killed = subprocess.run(
    [sys.executable, '-c', _KILLED_RUN, str(tmp_path)], capture_output=True
  )
  assert killed.returncode == -signal.SIGKILL
  (path,) = tmp_path.glob('events.out.tfevents.*')
  assert [e.step for e in _events(tmp_path).Scalars('loss')] == [0, 1, 2, 3, 4]
  path.write_bytes(path.read_bytes()[:-7])  # the last event is torn

  real = time.time  # from now on the clock is a day behind, or right
  monkeypatch.setattr(time, 'time', lambda: real() + clock)
  log = logger.Logger(tmp_path, 10, 'train')
  log.resume(2, 3)  # the last checkpoint
  for step in range(3, 7):
    log.scalars(step, {'loss': 200.0 + step})
    log.image(step, 'frame', np.full([2, 2, 3], step, np.uint8))
  log.close()

  events = _events(tmp_path)
  assert [(e.step, e.value) for e in events.Scalars('loss')] == [
    (0, 100.0),
    (1, 101.0),
    (2, 102.0),
    (3, 203.0),
    (4, 204.0),
    (5, 205.0),
    (6, 206.0),
  ]
  assert [e.step for e in events.Images('frame')] == list(range(7))
  # What the TensorBoard page itself reads through.
  page = plugin_event_accumulator.EventAccumulator(str(tmp_path)).Reload()
  assert [e.step for e in page.Tensors('loss')] == list(range(7))
  lines = logger.read_metrics(tmp_path)
  assert [line['loss'] for line in lines[2:4]] == [102.0, 203.0]


def test_progress_without_a_terminal_is_lines(tmp_path, capsys):
  assert list(logger.progress([1, 2, 3], 'Reading', 'file')) == [1, 2, 3]
  with logger.progress(4, 'Extracting', 'clip') as bar:
    bar.update(4)
  err = capsys.readouterr().err
  assert '\r' not in err
  assert 'Reading: 100% 3/3' in err and 'file/s' in err
  assert 'Extracting: 100% 4/4' in err

  log = logger.Logger(tmp_path, 8, 'pretrain', shown=['loss'])
  log.resume(4, 1)
  log.scalars(6, {'loss': 0.123456, 'grad_norm': 3.0})
  log.say('What comes next.')
  assert 'What comes next.' in capsys.readouterr().err.splitlines()
  log.advance(7)
  log.close()
  last = capsys.readouterr().err.splitlines()[-1]
  assert last.startswith('pretrain:  88% 7/8')
  assert 'loss=0.1235' in last and 'grad_norm' not in last


def test_a_long_stage_prints_a_line_now_and_then(capsys, monkeypatch):
  monkeypatch.setattr(logger, '_LINE_SECONDS', 0.0)
  list(logger.progress(range(3), 'Often'))
  often = capsys.readouterr().err
  monkeypatch.undo()
  list(logger.progress(range(3), 'Seldom'))
  seldom = capsys.readouterr().err
  assert len(often.splitlines()) >= 4
  assert len(seldom.splitlines()) == 2  # the first and the last


def test_a_terminal_gets_a_bar(capsys, monkeypatch):
  monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
  list(logger.progress(range(3), 'Reading'))
  assert '\r' in capsys.readouterr().err
