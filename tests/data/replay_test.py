"""Replay: against a list of steps, across kills, and its errors.

Steps are numbered in the order of adding, so a number says where a step lies.
"""

import json
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from drp_jax.data import replay as replay_lib
from drp_jax.data import schema

_ROOT = pathlib.Path(__file__).parents[2]
_BOOL = np.dtype(np.bool_)
_FIELDS = {
  'image': schema.Field((2, 2, 3), np.dtype(np.uint8)),
  'number': schema.Field((), np.dtype(np.int64)),
  'is_first': schema.Field((), _BOOL),
  'is_last': schema.Field((), _BOOL),
}


def _step(number, is_first=False, is_last=False):
  return {
    'image': np.full((2, 2, 3), number % 256, np.uint8),
    'number': np.int64(number),
    'is_first': np.bool_(is_first),
    'is_last': np.bool_(is_last),
  }


def _episode(start, length):
  return [_step(start + i, i == 0, i == length - 1) for i in range(length)]


def _add(replay, steps):
  for step in steps:
    replay.add(step)


def _filled(folder, lengths, capacity=1000, chunk_steps=4):
  replay = replay_lib.Replay(folder, _FIELDS, capacity, chunk_steps)
  start = 0
  for length in lengths:
    _add(replay, _episode(start, length))
    start += length
  return replay


def _restored(folder, state, capacity=1000):
  """From what a checkpoint's JSON would hold."""
  state = json.loads(json.dumps(state))
  return replay_lib.Replay.restore(folder, _FIELDS, state, capacity)


def _rng(seed=0):
  return np.random.default_rng(seed)


def _starts(replay, length, draws=300, prioritize_ends=False):
  """First numbers of many segments, after a look at each of them."""
  batch = replay.sample(_rng(), draws, length, prioritize_ends)
  numbers = batch['number']
  assert numbers.shape == (draws, length)
  np.testing.assert_array_equal(np.diff(numbers), 1)
  expected = np.broadcast_to(
    (numbers % 256)[..., None, None, None], batch['image'].shape
  )
  np.testing.assert_array_equal(batch['image'], expected)
  return numbers[:, 0]


def _chunks(folder):
  return sorted(path.name for path in folder.iterdir())


def _equal_samples(one, other, length=3):
  batches = [r.sample(_rng(7), 64, length) for r in (one, other)]
  for name in _FIELDS:
    np.testing.assert_array_equal(batches[0][name], batches[1][name])


def test_what_was_added_is_what_is_sampled(tmp_path):
  """Episodes at 0..2, 3..7, 8..11 and files of 4 steps."""
  replay = _filled(tmp_path, [3, 5, 4])
  assert (replay.num_episodes, replay.num_steps) == (3, 12)
  assert set(_starts(replay, 3)) == {0, 3, 4, 5, 8, 9}  # within one episode
  assert set(_starts(replay, 5)) == {3}  # shorter episodes are not drawn
  assert set(_starts(replay, 1)) == set(range(12))


def test_flags_of_a_segment(tmp_path):
  """True at entry 0, where the model forgets, and where an episode ended."""
  replay = _filled(tmp_path, [3, 5, 4])
  batch = replay.sample(_rng(), 200, 3)
  assert batch['is_first'].dtype == bool
  np.testing.assert_array_equal(batch['is_first'][:, 0], True)
  np.testing.assert_array_equal(batch['is_first'][:, 1:], False)
  ends = np.isin(batch['number'], [2, 7, 11])
  np.testing.assert_array_equal(batch['is_last'], ends)
  # Entry 0 was set in the batch alone, not in the records.
  again = replay.sample(_rng(1), 200, 3)
  np.testing.assert_array_equal(again['is_first'][:, 1:], False)


def test_all_fields_of_a_real_step_survive(tmp_path):
  fields = schema.replay_fields(num_keypoints=3, action_size=2)
  rng = _rng()

  def draw(field):
    if field.dtype.kind == 'f':
      return rng.normal(size=field.shape).astype(field.dtype)
    return rng.integers(0, 2, field.shape).astype(field.dtype)

  steps = [{n: draw(f) for n, f in fields.items()} for _ in range(5)]
  for index, step in enumerate(steps):
    step['is_first'] = np.bool_(index == 0)
    step['is_last'] = np.bool_(index == 4)
  replay = replay_lib.Replay(tmp_path, fields, 100, chunk_steps=2)
  _add(replay, steps)
  for source in (
    replay,
    replay_lib.Replay.restore(tmp_path, fields, replay.state(), 100),
  ):
    batch = source.sample(_rng(), 1, 5)
    for name, field in fields.items():
      assert batch[name].dtype == field.dtype
      np.testing.assert_array_equal(
        batch[name][0], np.stack([step[name] for step in steps])
      )


def test_a_batch_is_a_copy(tmp_path):
  replay = _filled(tmp_path, [3])
  batch = replay.sample(_rng(), 2, 3)
  for array in batch.values():
    array[...] = 0
  assert set(_starts(replay, 3)) == {0}


def test_episodes_are_drawn_alike_however_long_they_are(tmp_path):
  replay = _filled(tmp_path, [3, 30])
  starts = _starts(replay, 3, draws=4000)
  assert abs((starts == 0).mean() - 0.5) < 0.03
  # And all 28 starts of the longer one alike.
  _, counts = np.unique(starts[starts > 0], return_counts=True)
  assert len(counts) == 28 and counts.min() > 40 and counts.max() < 105


@pytest.mark.parametrize(
  ('prioritize_ends', 'at_the_end'), [(True, 4 / 10), (False, 1 / 7)]
)
def test_ends_of_episodes_are_drawn_more_often_if_asked(
  tmp_path, prioritize_ends, at_the_end
):
  """n = 9, T = 3: of min(U{0..9}, 6), the draws 6, 7, 8 and 9 give 6."""
  replay = _filled(tmp_path, [9])
  starts = _starts(replay, 3, 6000, prioritize_ends)
  frequency = np.bincount(starts, minlength=7) / len(starts)
  others = (1 - at_the_end) / 6
  np.testing.assert_allclose(frequency, [others] * 6 + [at_the_end], atol=0.025)


def test_sampling_is_a_function_of_the_generator(tmp_path):
  replay = _filled(tmp_path, [30, 40])
  first, second = replay.sample(_rng(1), 16, 3), replay.sample(_rng(1), 16, 3)
  np.testing.assert_array_equal(first['number'], second['number'])
  other = replay.sample(_rng(2), 16, 3)
  assert (other['number'] != first['number']).any()
  rng = _rng(1)
  replay.sample(rng, 16, 3)
  later = replay.sample(rng, 16, 3)  # the generator was advanced
  assert (later['number'] != first['number']).any()


def test_an_unfinished_episode_is_not_sampled(tmp_path):
  replay = _filled(tmp_path, [4])
  _add(replay, _episode(4, 9)[:8])
  assert (replay.num_episodes, replay.num_steps) == (1, 4)
  assert set(_starts(replay, 2)) == {0, 1, 2}
  replay.add(_step(12, is_last=True))
  assert (replay.num_episodes, replay.num_steps) == (2, 13)
  assert set(_starts(replay, 9)) == {4}


def test_an_episode_of_one_step(tmp_path):
  replay = _filled(tmp_path, [1, 1])
  assert set(_starts(replay, 1)) == {0, 1}


def test_beyond_the_capacity_the_oldest_episodes_are_dropped(tmp_path):
  """10 steps: at 12, the episode of 3 goes; its file stays while shared."""
  replay = _filled(tmp_path, [3, 5, 4], capacity=10)
  assert (replay.num_episodes, replay.num_steps) == (2, 9)
  assert set(_starts(replay, 3)) == {3, 4, 5, 8, 9}
  assert _chunks(tmp_path) == [f'chunk-0000000{i}.bin' for i in (0, 1, 2)]
  _add(replay, _episode(12, 2))  # 11 steps; the one at 3..7 goes
  assert set(_starts(replay, 2)) == {8, 9, 10, 12}
  assert _chunks(tmp_path) == [f'chunk-0000000{i}.bin' for i in (2, 3)]


def test_a_full_replay_is_not_shortened_further_than_needed(tmp_path):
  assert _filled(tmp_path, [3, 3, 4], capacity=10).num_steps == 10


def test_the_newest_episode_stays_even_if_it_is_too_long(tmp_path):
  replay = _filled(tmp_path, [3, 12], capacity=5)
  assert (replay.num_episodes, replay.num_steps) == (1, 12)
  assert set(_starts(replay, 12)) == {3}


def test_a_restored_replay_goes_on_like_an_unbroken_one(tmp_path):
  """Saved inside an episode and inside a file; what came later is dropped."""
  replay = _filled(tmp_path / 'a', [3, 5])
  unfinished = _episode(8, 6)
  _add(replay, unfinished[:2])
  state = replay.state()
  lost = _episode(50, 9)[1:]
  _add(replay, lost)
  restored = _restored(tmp_path / 'a', state)
  assert (restored.num_episodes, restored.num_steps) == (2, 8)
  with pytest.raises(ValueError, match='inside an episode'):
    restored.add(_step(10, is_first=True))
  _add(restored, unfinished[2:])
  assert set(_starts(restored, 6)) == {8}
  _equal_samples(restored, _filled(tmp_path / 'b', [3, 5, 6]))
  assert _chunks(tmp_path / 'a') == _chunks(tmp_path / 'b')


_KILLED = """
import json, os, pathlib, signal, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
import replay_test

folder = pathlib.Path(sys.argv[1])
replay = replay_test._filled(folder / 'replay', [3, 5])
(folder / 'state.json').write_text(json.dumps(replay.state()))
replay_test._add(replay, replay_test._episode(8, 4))
replay_test._add(replay, replay_test._episode(12, 9)[:5])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """What a process left that was killed nine steps after its checkpoint."""
  folder = tmp_path_factory.mktemp('killed')
  here = pathlib.Path(__file__).parent
  done = subprocess.run(
    [sys.executable, '-c', _KILLED, str(folder), str(here)],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == -signal.SIGKILL, done.stderr
  return folder


def test_after_a_kill_the_saved_state_is_whole(killed, tmp_path):
  """The file that was being made may be there in part."""
  shutil.copytree(killed / 'replay', tmp_path / 'a')
  newest = tmp_path / 'a' / 'chunk-00000004.bin'
  size = newest.stat().st_size
  assert size == 4 * sum(
    field.dtype.itemsize * int(np.prod(field.shape))
    for field in _FIELDS.values()
  )
  newest.write_bytes(newest.read_bytes()[: size // 2])
  state = json.loads((killed / 'state.json').read_text())
  restored = _restored(tmp_path / 'a', state)
  _equal_samples(restored, _filled(tmp_path / 'b', [3, 5]))
  _add(restored, _episode(8, 4))
  _add(restored, _episode(12, 9))
  _equal_samples(restored, _filled(tmp_path / 'c', [3, 5, 4, 9]))


def test_a_killed_process_loses_no_step_that_it_wrote(killed, tmp_path):
  shutil.copytree(killed / 'replay', tmp_path / 'a')
  state = json.loads((killed / 'state.json').read_text())
  state['episodes'].append([8, 4])
  state['open_start'], state['cursor'] = 12, 17
  restored = _restored(tmp_path / 'a', state)
  _add(restored, _episode(12, 9)[5:])
  assert set(_starts(restored, 4)) == {3, 4, *range(8, 9), *range(12, 18)}


@pytest.mark.parametrize('seed', range(5))
def test_a_random_life_against_a_list(tmp_path, seed):
  """Episodes, checkpoints and kills in any order; contents and capacity."""
  rng = _rng(seed)
  chunk_steps, capacity = int(rng.integers(1, 7)), int(rng.integers(8, 30))
  replay = replay_lib.Replay(tmp_path, _FIELDS, capacity, chunk_steps)
  steps, kept = [], None  # the list, and (state, length of the list) of a save
  for _ in range(60):
    event = rng.choice(['episode', 'episode', 'save', 'kill'])
    if event == 'episode':
      episode = _episode(len(steps), int(rng.integers(1, 9)))
      _add(replay, episode)
      steps += episode
    elif event == 'save':
      kept = json.loads(json.dumps(replay.state())), len(steps)
    elif kept is not None:
      replay = _restored(tmp_path, kept[0], capacity)
      steps = steps[: kept[1]]
    if not steps:
      continue
    firsts = [i for i, step in enumerate(steps) if step['is_first']]
    within = [i for i in firsts if len(steps) - i <= capacity] or firsts[-1:]
    assert replay.num_steps == len(steps) - within[0]
    assert replay.num_episodes == len(within)
    batch = replay.sample(rng, 4, 1)
    assert batch['number'].min() >= within[0]
    for number, image in zip(batch['number'], batch['image'], strict=True):
      np.testing.assert_array_equal(image[0], steps[number[0]]['image'])


def test_each_of_the_last_states_can_be_gone_back_to(tmp_path):
  """Capacity drops an episode, hence its file, only when no state needs it."""
  replay = replay_lib.Replay(tmp_path / 'a', _FIELDS, 4, chunk_steps=4)
  states = []
  for number in range(replay_lib.KEPT_STATES + 1):
    _add(replay, _episode(4 * number, 4))
    states.append(replay.state())
  assert set(_starts(replay, 4)) == {12}
  for number, state in enumerate(states):
    folder = tmp_path / str(number)
    shutil.copytree(tmp_path / 'a', folder)
    if number == 0:
      with pytest.raises(ValueError, match='chunk-00000000.bin.*missing'):
        _restored(folder, state, 4)
    else:
      assert set(_starts(_restored(folder, state, 4), 4)) == {4 * number}


def test_what_was_restored_from_stays_restorable(tmp_path):
  """A second kill before the next checkpoint goes back to the same one."""
  state = _filled(tmp_path, [4], capacity=4).state()
  for _ in range(3):
    replay = _restored(tmp_path, state, 4)
    _add(replay, _episode(4, 4))
    assert set(_starts(replay, 4)) == {4}
  assert set(_starts(_restored(tmp_path, state, 4), 4)) == {0}


def test_states_without_an_episode(tmp_path):
  empty = replay_lib.Replay(tmp_path, _FIELDS, 10, 4)
  state = empty.state()
  _add(empty, _episode(0, 5))
  restored = _restored(tmp_path, state)
  assert restored.num_steps == 0 and _chunks(tmp_path) == []
  _add(restored, _episode(0, 3))
  assert set(_starts(restored, 3)) == {0}


def test_a_new_replay_clears_away_the_files_of_another(tmp_path):
  _filled(tmp_path, [3, 5])
  replay = replay_lib.Replay(tmp_path, _FIELDS, 10, 4)
  assert _chunks(tmp_path) == [] and replay.num_episodes == 0


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/maps').exists(), reason='Linux tells of maps'
)
def test_more_files_than_a_process_may_open(tmp_path):
  replay = _filled(tmp_path, [600], chunk_steps=2)
  assert len(_chunks(tmp_path)) == 300
  assert set(_starts(replay, 400, draws=20)) <= set(range(201))
  maps = pathlib.Path('/proc/self/maps').read_text().splitlines()
  assert 0 < sum(str(tmp_path) in line for line in maps) <= 256
  _add(replay, _episode(600, 3))  # its file may have been closed meanwhile
  restored = _restored(tmp_path, replay.state())
  assert 600 in _starts(restored, 3)


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(is_first=np.bool_(False)), 'must begin with is_first=True'),
    (dict(number=1.5), "'number' is float64.*expected int64"),
    (dict(image=np.zeros((2, 2), np.uint8)), r"'image' is uint8\[2, 2\]"),
    (dict(is_last=1), "'is_last' is int64"),
    (dict(reward=np.float32(0)), r"\['reward'\] are unknown"),
  ],
)
def test_a_wrong_step_is_refused_and_leaves_no_trace(
  tmp_path, changes, message
):
  replay = _filled(tmp_path, [3])
  with pytest.raises(ValueError, match=f'^replay step.*{message}'):
    replay.add({**_step(3, is_first=True), **changes})
  _add(replay, _episode(3, 2))
  assert set(_starts(replay, 2)) == {0, 1, 3}


def test_a_step_without_a_field_is_refused(tmp_path):
  step = _step(0, is_first=True)
  del step['image']
  with pytest.raises(ValueError, match=r"\['image'\] are missing"):
    replay_lib.Replay(tmp_path, _FIELDS, 10).add(step)


def test_an_episode_cannot_begin_inside_another(tmp_path):
  replay = _filled(tmp_path, [3])
  replay.add(_step(3, is_first=True))
  with pytest.raises(ValueError, match='that no is_last ended'):
    replay.add(_step(4, is_first=True))
  replay.add(_step(4, is_last=True))
  assert set(_starts(replay, 2)) == {0, 1, 3}


def test_nothing_long_enough_to_sample(tmp_path):
  replay = replay_lib.Replay(tmp_path / 'a', _FIELDS, 10)
  with pytest.raises(ValueError, match='of 0 the longest has 0'):
    replay.sample(_rng(), 1, 1)
  replay = _filled(tmp_path / 'b', [3, 5])
  with pytest.raises(
    ValueError,
    match='length=6 .*config.replay.segment_length.* of 2 the longest has 5',
  ):
    replay.sample(_rng(), 1, 6)


@pytest.mark.parametrize(('capacity', 'chunk_steps'), [(0, 4), (4, 0), (-1, 1)])
def test_sizes_below_one(tmp_path, capacity, chunk_steps):
  with pytest.raises(
    ValueError,
    match=f'config.replay.capacity={capacity} and chunk_steps={chunk_steps} ',
  ):
    replay_lib.Replay(tmp_path, _FIELDS, capacity, chunk_steps)


def test_other_fields_than_those_saved(tmp_path):
  state = _filled(tmp_path, [3]).state()
  longer = {**_FIELDS, 'image': schema.Field((2, 4, 3), np.dtype(np.uint8))}
  with pytest.raises(
    ValueError,
    match=r"'image' was saved as uint8\[2, 2, 3\], expected uint8\[2, 4, 3\]",
  ):
    replay_lib.Replay.restore(tmp_path, longer, state, 10)
  more = {**_FIELDS, 'reward': schema.Field((), np.dtype(np.float32))}
  with pytest.raises(ValueError, match="'reward' was saved as None"):
    replay_lib.Replay.restore(tmp_path, more, state, 10)
  fewer = {n: f for n, f in _FIELDS.items() if n != 'number'}
  with pytest.raises(ValueError, match="'number' .*expected None"):
    replay_lib.Replay.restore(tmp_path, fewer, state, 10)


@pytest.mark.parametrize('harm', ['delete', 'truncate'])
def test_a_file_that_the_checkpoint_needs_is_gone(tmp_path, harm):
  state = _filled(tmp_path, [3, 5]).state()
  path = tmp_path / 'chunk-00000001.bin'
  if harm == 'delete':
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(ValueError, match='chunk-00000001.bin, which the'):
    _restored(tmp_path, state)
  # Refusing deletes nothing.
  assert (tmp_path / 'chunk-00000000.bin').exists()
