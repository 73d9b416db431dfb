"""Tests of renders for pre-training, written as real video."""

import zlib

import av
import numpy as np
import pytest

from drp_jax import recordings
from drp_jax.envs import dmc, metaworld, renders

TASKS = ['finger_spin', 'acrobot_swingup']  # with and without DMCR looks
FRAMES = 6


def write_video(path, frames, fps):
  with av.open(str(path), 'w') as file:
    stream = file.add_stream('libx264', rate=fps)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt, stream.options = 'yuv420p', {'crf': '10', 'threads': '1'}
    for frame in frames:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, 'rgb24')))
    file.mux(stream.encode())


def read_video(path):
  with av.open(str(path)) as file:
    return np.stack(
      [f.to_ndarray(format='rgb24') for f in file.decode(video=0)]
    )


def test_writes_videos_that_move_and_differ(tmp_path):
  paths = renders.write_rollouts(tmp_path, TASKS, 2, FRAMES, 0, write_video)
  names = [path.name for path in paths]
  assert names == [f'{task}_{i:04d}.mp4' for task in TASKS for i in range(2)]
  beside = [recordings.path_of(path) for path in paths]
  assert sorted(tmp_path.iterdir()) == sorted(paths + beside)  # nothing partial
  videos = [read_video(path) for path in paths]
  for video in videos:
    assert video.shape == (FRAMES, 64, 64, 3)
    assert np.abs(np.diff(video.astype(int), axis=0)).max() > 30
  assert (videos[0] != videos[1]).any()


def test_goes_on_after_a_kill_and_gives_the_same_frames(tmp_path):
  def keep(into):
    def write(path, frames, fps):
      assert fps == renders.FPS
      if len(into) == 2:
        raise KeyboardInterrupt
      into.append(frames)
      path.write_bytes(b'x')

    return write

  first, second = [], []
  with pytest.raises(KeyboardInterrupt):
    renders.write_rollouts(tmp_path, TASKS, 2, 3, 5, keep(first))
  # Two were written; the next call makes the others only.
  renders.write_rollouts(tmp_path, TASKS, 2, 3, 5, keep(second))
  assert len(first) == len(second) == 2
  again = []
  other = tmp_path / 'other'
  renders.write_rollouts(other, TASKS[1:], 2, 3, 5, keep(again))
  np.testing.assert_array_equal(second, again)  # whatever the other tasks


def test_clips_longer_than_an_episode_are_refused():
  env = dmc.DMC('cartpole_swingup', draw=False)
  with pytest.raises(ValueError, match='1001 frames, not 2000'):
    renders.rollout(env, 2000, np.random.default_rng(0))


def keep_frames(path, frames, fps):
  del fps
  path.write_bytes(frames.tobytes())


def test_scenes_lie_beside_their_videos(tmp_path):
  paths = renders.write_rollouts(
    tmp_path, TASKS[:1], 2, 3, 0, keep_frames, scenes=True
  )
  scenes = [path.with_suffix('.scene.npz') for path in paths]
  beside = [recordings.path_of(path) for path in paths]
  assert sorted(tmp_path.iterdir()) == sorted(paths + scenes + beside)
  with np.load(scenes[0], allow_pickle=False) as file:
    arrays = dict(file)
  assert arrays['depth'].shape == arrays['geom'].shape == (3, 64, 64)
  assert len(arrays['focal']) == 3
  moves = np.ptp(arrays['position'], axis=0).max(axis=-1) > 0.001
  assert moves.any()
  assert (moves <= arrays['moves'][0]).all()  # what is fixed does not move

  # A video without its scene is made again, both as they were.
  before = {path: path.read_bytes() for path in tmp_path.iterdir()}
  scenes[0].unlink()
  scenes[1].write_bytes(b'left as it is')
  renders.write_rollouts(tmp_path, TASKS[:1], 2, 3, 0, keep_frames, scenes=True)
  assert scenes[1].read_bytes() == b'left as it is'
  with np.load(scenes[0], allow_pickle=False) as file:
    for name, array in arrays.items():
      np.testing.assert_array_equal(file[name], array)
  assert paths[0].read_bytes() == before[paths[0]]


def test_recording_does_not_change_a_video(tmp_path):
  with_scenes, without = (
    renders.write_rollouts(
      tmp_path / str(scenes), TASKS[:1], 1, 3, 0, keep_frames, scenes
    )[0].read_bytes()
    for scenes in (True, False)
  )
  assert with_scenes == without


def test_a_killed_write_leaves_no_video_without_its_scene(tmp_path):
  def die(*_):
    raise KeyboardInterrupt

  with pytest.raises(KeyboardInterrupt):
    renders.write_rollouts(tmp_path, TASKS[:1], 1, 3, 0, die, scenes=True)
  assert sorted(path.name for path in tmp_path.iterdir()) == [
    'finger_spin_0000.mp4.actions.npz',
    'finger_spin_0000.scene.npz',
  ]


def test_what_moved_lies_beside_each_video(tmp_path):
  """The same as that of the same actions in an environment without images."""
  tasks = ['acrobot_swingup', 'metaworld_reach']
  paths = renders.write_rollouts(tmp_path, tasks, 2, 4, 0, keep_frames)
  first, second, *arms = map(recordings.read, paths)
  assert [r.body for r in (first, second, *arms)] == [
    'acrobot', 'acrobot', 'sawyer', 'sawyer'
  ]  # fmt: skip
  assert {len(r) for r in (first, second, *arms)} == {4}
  assert (first.action[1:] != second.action[1:]).all()
  env = renders._open('acrobot_swingup')
  key = [0, zlib.crc32(b'acrobot_swingup'), 0]
  env.reset(seed=int(np.random.default_rng(key).integers(2**31)))
  model, data = env.unwrapped.simulation
  for t in range(1, 4):
    before, time = data.qpos.copy(), data.time
    env.step(first.action[t])
    seconds = data.time - time
    np.testing.assert_allclose(
      first.joint_velocity[t], (data.qpos - before) / seconds, rtol=1e-5
    )
  assert model.nv == 2 and not first.joint_velocity[0].any()
  env.close()


def test_a_video_without_a_recording_is_left_as_it_is(tmp_path):
  """It is from before there were recordings."""
  (tmp_path / 'acrobot_swingup_0000.mp4').write_bytes(b'old')
  paths = renders.write_rollouts(tmp_path, TASKS[1:], 2, 2, 0, keep_frames)
  assert paths[0].read_bytes() == b'old'
  assert recordings.read(paths[0]) is None
  assert len(recordings.read(paths[1])) == 2


@pytest.fixture(scope='module')
def arm():
  env = metaworld.MetaWorld('reach', shadow_size=256)
  yield env
  env.close()


def test_policies_differ_and_have_a_seed(arm):
  def hand(policy, seed):
    rng = np.random.default_rng(seed)
    return renders.rollout(arm, 4, rng, True, policy)[1]['position']

  scripted = hand('scripted', 0)
  np.testing.assert_array_equal(hand('scripted', 0), scripted)
  assert (hand('random', 0)[-1] != scripted[-1]).any()
  assert (hand('scripted', 1) != scripted).any()  # another goal


def test_a_task_of_metaworld_by_its_name(tmp_path):
  path = renders.write_rollouts(
    tmp_path, ['metaworld_drawer-open'], 1, 2, 0, keep_frames, False, 'scripted'
  )
  assert path == [tmp_path / 'metaworld_drawer-open_0000.mp4']
  assert path[0].stat().st_size == 2 * 64 * 64 * 3


def test_unknown_and_missing_policies_are_refused(tmp_path):
  with pytest.raises(ValueError, match='config.sim.policy.*not .clever.'):
    renders.write_rollouts(
      tmp_path, TASKS[:1], 1, 2, 0, keep_frames, policy='clever'
    )
  with pytest.raises(ValueError, match='for tasks of Meta-World only'):
    renders.write_rollouts(
      tmp_path, TASKS[:1], 1, 2, 0, keep_frames, policy='scripted'
    )
