"""Renders of known motion: it is what the folder says it is."""

import cv2
import numpy as np
import pytest

from drp_jax import recordings
from drp_jax.envs import pushes

FRAMES = 25


def _flow(video):
  """[T-1, 64, 64, 2] between frames."""
  gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in video]
  dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  return np.stack(
    [dis.calc(a, b, None) for a, b in zip(gray[:-1], gray[1:], strict=True)]
  )


@pytest.mark.parametrize(
  ('name', 'sign'),
  [('pushing_left_to_right', 1), ('pushing_right_to_left', -1)],
)
def test_pushes_go_where_they_say(name, sign):
  for seed in range(3):
    rng = np.random.default_rng(seed)
    video, found = pushes.film(name, FRAMES, rng)
    assert video.shape == (FRAMES, 64, 64, 3) and video.dtype == np.uint8
    flow = _flow(video)
    fast = flow[np.linalg.norm(flow, axis=-1) > 0.5]
    assert sign * fast[:, 0].mean() > 0.1
    # The hand goes one way only, with the thing once it has come to it.
    assert found.action.shape == (FRAMES, 3) and found.body == 'hand'
    assert not found.action[0].any() and not found.action[:, 1:].any()
    assert (sign * found.action[:, 0] >= 0).all()
    assert sign * found.joint_velocity[:, 0].mean() > 0.02


def test_things_are_put_down_and_left():
  for seed in range(3):
    rng = np.random.default_rng(seed)
    video, found = pushes.film('putting_on_a_surface', FRAMES, rng)
    down, up = np.split(_flow(video), [13])
    assert down[np.linalg.norm(down, axis=-1) > 0.5][:, 1].mean() > 0.3
    assert up[np.linalg.norm(up, axis=-1) > 0.5][:, 1].mean() < -0.3
    assert (found.action[1:13, 2] < 0).all() and (
      found.action[16:, 2] >= 0
    ).all()
    # The hand holds the thing, then leaves it.
    np.testing.assert_allclose(
      found.joint_velocity[3:10, 2], found.action[3:10, 2], atol=0.1
    )
    assert np.abs(found.joint_velocity[18:, 2]).max() < 0.05


def test_looks_differ_and_files_are_functions_of_their_names(tmp_path):
  made = {}

  def write(path, frames, fps):
    assert fps == pushes.FPS
    made[path.name, path.parent.name] = frames
    path.write_bytes(b'x')

  paths = pushes.write_videos(tmp_path, 2, 4, 0, write)
  assert [p.relative_to(tmp_path).as_posix() for p in paths] == [
    f'{name}/{i:04d}.mp4' for name in pushes.CLASSES for i in range(2)
  ]
  firsts = [frames[0].astype(int) for frames in made.values()]
  for i, one in enumerate(firsts):
    for other in firsts[:i]:
      assert np.abs(one - other).mean() > 5
  paths[3].unlink()
  before = dict(made)
  made.clear()
  pushes.write_videos(tmp_path, 2, 4, 0, write)
  assert list(made) == [('0001.mp4', 'pushing_right_to_left')]
  assert [len(recordings.read(path)) for path in paths] == 6 * [4]
  for key, frames in made.items():
    np.testing.assert_array_equal(frames, before[key])
