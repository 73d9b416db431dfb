"""Errors by hand, real buffers of a few steps, and checkouts that fail."""

import numpy as np
import pytest

from benchmarks import replay, replay_buffers
from drp_jax.data import schema


def _clip(flow):
  """Gray frames with the same flow (x, y) everywhere in all but the first."""
  motion = np.zeros((3, 64, 64, 2), np.float16)
  motion[1:] = flow
  return {'image': np.full((3, 64, 64, 3), 7, np.uint8), 'flow': motion}


def test_what_int8_loses(tmp_path):
  """Eighths: of 1.05 and 0.03 come back 1 and 0; of 20, 15.875."""
  lost = replay.flow_errors(_clip([1.05, 0.03]), tmp_path / 'a')
  x, y = (float(np.float16(v)) for v in (1.05, 0.03))
  assert lost['rms'] == pytest.approx(((x**2 + y**2) / 2) ** 0.5)
  error = (((x - 1) ** 2 + y**2) / 2) ** 0.5
  assert lost['rms_error'] == pytest.approx(error)
  assert lost['relative'] == pytest.approx(error / lost['rms'])
  assert lost['saturated'] == lost['lost'] == 0
  small = replay.flow_errors(_clip([0.06, -0.06]), tmp_path / 'b')
  assert small['lost'] == 1 and small['relative'] == pytest.approx(1)
  large = replay.flow_errors(_clip([20, 0]), tmp_path / 'c')
  assert large['saturated'] == 0.5 and large['lost'] == 0
  assert large['rms_error'] == pytest.approx((20 - 15.875) / 2**0.5)


@pytest.mark.parametrize('motion', [True, False])
def test_an_episode_has_the_frames_of_its_film(motion):
  clip = _clip([1, 2])
  clip['image'][:] = np.arange(3)[:, None, None, None]
  steps = replay.episode(clip, 8, motion)
  fields = schema.replay_fields(16 if motion else None, 6)
  assert steps.keys() == fields.keys()
  for name, array in steps.items():
    assert array.shape == (8, *fields[name].shape)
    assert array.dtype == fields[name].dtype
  seen = steps['image'][:, 0, 0, 0].tolist()
  assert seen == [0, 1, 2, 0, 1, 2, 0, 1]
  if motion:
    assert (steps['flow'][4] == [1, 2]).all()


def test_our_buffer_is_measured(tmp_path, monkeypatch):
  monkeypatch.setattr(replay, 'DRAWS', 1)
  clips = [_clip([1, 2]), _clip([3, 4])]
  found = {}
  for flow_dtype in ('float16', 'int8'):
    found[flow_dtype] = replay.measure(
      replay_buffers.Ours, (True, flow_dtype), clips, True, 1002, str(tmp_path)
    )
    assert not list(tmp_path.iterdir())  # nothing is left behind
  exact, small = found['float16'], found['int8']
  assert exact['disk'] - small['disk'] == 64 * 64 * 2
  for name, value in exact.items():
    assert value > 0 or name == 'memory', name
  line = replay.table({'ours': exact}).splitlines()[-1]
  assert line.startswith('| ours | ') and line.count('|') == 9


def test_what_is_compared():
  none = replay.contestants({'dreamerv3': '', 'contextwm': ''})
  assert list(none) == [
    'ours, images',
    'ours, images and motion, float16',
    'ours, images and motion, int8',
  ]
  both = replay.contestants({'dreamerv3': 'a', 'contextwm': 'b'})
  assert both.keys() - none.keys() == {
    'DreamerV3, images',
    'DreamerV3, images and motion',
    'ContextWM, images',
    'ContextWM, images and motion',
  }
  assert both['ContextWM, images'] == (replay_buffers.ContextWM, ('b',), False)


def test_what_cannot_run_is_left_out_and_said(tmp_path, capsys):
  """Here a checkout whose code needs what nobody has."""
  folder = tmp_path / 'embodied' / 'core'
  folder.mkdir(parents=True)
  (folder / 'replay.py').write_text('import there_is_no_such_module\n')
  buffers = {'theirs': (replay_buffers.DreamerV3, (str(tmp_path),), True)}
  assert replay.compare(buffers, [_clip([1, 2])], 501, None) == {}
  said = capsys.readouterr().out
  assert 'theirs: left out, No module named' in said


def test_a_folder_that_is_no_checkout(tmp_path):
  with pytest.raises(ValueError, match='has no wmlib/core/replay.py'):
    replay_buffers.ContextWM(tmp_path, str(tmp_path))


def test_a_film_is_real():
  clip = replay.film('dmc', 'cheetah_run', frames=4)
  assert clip['image'].shape == (4, 64, 64, 3)
  assert clip['flow'].shape == (4, 64, 64, 2)
  assert not clip['flow'][0].any() and clip['flow'][1:].any()
