"""Replay: against a list of steps, across kills, corruption, its errors.

Steps are numbered in the order of adding, so a number says where a step lies.
"""

import json
import os
import pathlib
import re
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


def _episode(start, length):
  """Steps numbered from `start` on."""
  numbers = np.arange(start, start + length)
  image = (numbers % 256).astype(np.uint8)[:, None, None, None]
  return {
    'image': np.broadcast_to(image, (length, 2, 2, 3)).copy(),
    'number': numbers,
    'is_first': numbers == start,
    'is_last': numbers == start + length - 1,
  }


def _new(folder, capacity=1000, chunk_steps=4, fields=_FIELDS):
  return replay_lib.Replay(folder, fields, capacity, 'float16', chunk_steps)


def _filled(folder, lengths, capacity=1000, chunk_steps=4):
  replay = _new(folder, capacity, chunk_steps)
  start = 0
  for length in lengths:
    replay.add_episode(_episode(start, length))
    start += length
  return replay


def _restored(folder, state, capacity=1000):
  """From what a checkpoint's JSON would hold."""
  state = json.loads(json.dumps(state))
  return replay_lib.Replay.restore(folder, _FIELDS, state, capacity, 'float16')


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


def _real_episode(fields, length, flow_scale=1.0):
  rng = _rng()

  def draw(field):
    if field.dtype.kind == 'f':
      return rng.normal(size=(length, *field.shape)).astype(field.dtype)
    return rng.integers(0, 2, (length, *field.shape)).astype(field.dtype)

  steps = {name: draw(field) for name, field in fields.items()}
  steps['is_first'] = np.arange(length) == 0
  steps['is_last'] = np.arange(length) == length - 1
  if 'flow' in steps:
    steps['flow'] = (flow_scale * steps['flow']).astype(np.float16)
  return steps


@pytest.mark.parametrize('num_keypoints', [3, None])
def test_all_fields_of_a_real_episode_survive(tmp_path, num_keypoints):
  """Also without motion, for systems that see none."""
  fields = schema.replay_fields(num_keypoints, action_size=2)
  steps = _real_episode(fields, 5)
  replay = _new(tmp_path, chunk_steps=2, fields=fields)
  replay.add_episode(steps)
  restored = replay_lib.Replay.restore(
    tmp_path, fields, replay.state(), 100, 'float16'
  )
  for source in (replay, restored):
    batch = source.sample(_rng(), 1, 5)
    assert batch.keys() == fields.keys()
    for name, field in fields.items():
      assert batch[name].dtype == field.dtype
      np.testing.assert_array_equal(batch[name][0], steps[name])


def test_flow_in_eighths_of_a_pixel(tmp_path):
  """Off by half a step at most, the nearest step beyond the range; half the
  space."""
  fields = schema.replay_fields(num_keypoints=3, action_size=2)
  steps = _real_episode(fields, 5, flow_scale=6.0)
  by_hand = [0.0, 0.05, -0.07, 0.125, 15.8, 15.875, 15.95, -16.5, 300, -300]
  steps['flow'][2, 0, : len(by_hand), 0] = by_hand
  replay = replay_lib.Replay(tmp_path, fields, 100, 'int8')
  replay.add_episode(steps)
  restored = replay_lib.Replay.restore(
    tmp_path, fields, replay.state(), 100, 'int8'
  )
  for source in (replay, restored):
    batch = source.sample(_rng(), 1, 5)
    flow = batch['flow'][0]
    assert flow.dtype == np.float16
    within = np.clip(steps['flow'].astype(float), -15.875, 15.875)
    assert 0.06 < np.abs(flow - within).max() <= 1 / 16
    np.testing.assert_array_equal(
      flow[2, 0, : len(by_hand), 0],
      [0, 0, -0.125, 0.125, 15.75, 15.875, 15.875, -15.875, 15.875, -15.875],
    )
    for name in fields.keys() - {'flow'}:
      np.testing.assert_array_equal(batch[name][0], steps[name])
  size = (tmp_path / 'chunk-00000000.bin').stat().st_size
  assert size == 5 * (64 * 64 * (3 + 2) + 3 * 8 + 3 + 4 + 2 * 4 + 4 + 3)


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


def test_segments_within_episodes_draw_what_they_always_drew(tmp_path):
  """By hand: the episode, then the start, of one generator in this order."""
  replay = _filled(tmp_path, [9, 4, 12])
  for prioritize_ends in (False, True):
    batch = replay.sample(_rng(3), 50, 4, prioritize_ends)
    rng, firsts, totals = _rng(3), np.array([0, 9, 13]), np.array([9, 4, 12])
    drawn = rng.integers(3, size=50)
    totals = totals[drawn]
    upper = totals if prioritize_ends else totals - 4
    starts = np.minimum(rng.integers(0, upper + 1), totals - 4)
    np.testing.assert_array_equal(batch['number'][:, 0], firsts[drawn] + starts)


def _joined(replay, length, draws, **options):
  """Numbers [draws, length] of segments, after a look at how they are joined.

  Of episodes as `_filled` adds them: a step is followed by the next one, or, if
  its episode ends with it, by the first step of any episode.
  """
  batch = replay.sample(_rng(5), draws, length, **options)
  number, is_first, is_last = (
    batch[name] for name in ('number', 'is_first', 'is_last')
  )
  np.testing.assert_array_equal(batch['image'][..., 0, 0, 0], number % 256)
  assert is_first[:, 0].all()
  np.testing.assert_array_equal(is_first[:, 1:], is_last[:, :-1])
  within = ~is_first[:, 1:]
  assert (np.diff(number)[within] == 1).all()
  return number


def test_short_episodes_are_joined(tmp_path):
  """Of 3, 5 and 4 steps: a segment of 5 continues in any of them."""
  replay = _filled(tmp_path, [3, 5, 4])
  number = _joined(replay, 5, 600)
  assert set(number.ravel()) == set(range(12))
  follows = {(2, 0), (2, 3), (2, 8), (7, 0), (7, 3), (7, 8), (11, 0)}
  pairs = set(zip(number[:, :-1].ravel(), number[:, 1:].ravel(), strict=True))
  assert follows <= pairs


@pytest.mark.parametrize(
  ('lengths', 'length'),
  [([3, 40, 1, 7, 2], 8), ([3, 2], 16), ([1], 4), ([20, 20, 5], 6)],
)
@pytest.mark.parametrize('prioritize_ends', [False, True])
def test_each_entry_of_a_joined_segment_is_each_step_alike(
  tmp_path, lengths, length, prioritize_ends
):
  """Chi-square of the counts of all steps, at every entry; a fixed seed.

  The mean of chi-square is its degrees of freedom k, its deviation sqrt(2 k);
  drawing steps as often as episodes, or leaving some out, gives hundreds.
  """
  replay = _filled(tmp_path, lengths, chunk_steps=100)
  draws, steps = 4000, sum(lengths)
  number = _joined(replay, length, draws, prioritize_ends=prioritize_ends)
  for entry in range(length):
    counts = np.bincount(number[:, entry], minlength=steps)
    expected = draws / steps
    chi_square = (np.square(counts - expected) / expected).sum()
    freedom = steps - 1
    assert chi_square <= freedom + 4 * np.sqrt(2 * freedom), (entry, counts)


def test_the_same_numbers_whether_ends_are_asked_for_or_not(tmp_path):
  """A joined segment holds an end with probability about T / n anyway."""
  replay = _filled(tmp_path, [3, 9])
  plain = replay.sample(_rng(), 200, 4)['number']
  asked = replay.sample(_rng(), 200, 4, prioritize_ends=True)['number']
  np.testing.assert_array_equal(plain, asked)


def test_long_episodes_are_joined_if_asked(tmp_path):
  """So that what follows an end is in the segment too."""
  replay = _filled(tmp_path, [9, 12])
  number = _joined(replay, 4, 3000, across_ends=True)
  counts = np.bincount(number[:, 0], minlength=21)
  assert counts.min() > 100 and counts.max() < 190
  assert not (np.diff(replay.sample(_rng(), 300, 4)['number']) != 1).any()


def test_a_short_episode_that_is_corrupt(tmp_path):
  """It is dropped wherever in a segment it was drawn."""
  state = _filled(tmp_path, [3, 6, 4]).state()
  _flip(tmp_path / 'chunk-00000000.bin', 1 * 22)  # step 1
  restored = _restored(tmp_path, state)
  number = restored.sample(_rng(), 100, 5)['number']
  assert set(number.ravel()) == set(range(3, 13))
  assert (restored.num_episodes, restored.num_corrupt) == (2, 1)


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


def test_an_episode_of_one_step(tmp_path):
  replay = _filled(tmp_path, [1, 1])
  assert set(_starts(replay, 1)) == {0, 1}


def test_beyond_the_capacity_the_oldest_episodes_are_dropped(tmp_path):
  """10 steps: at 12, the episode of 3 goes; its file stays while shared."""
  replay = _filled(tmp_path, [3, 5, 4], capacity=10)
  assert (replay.num_episodes, replay.num_steps) == (2, 9)
  assert set(_starts(replay, 3)) == {3, 4, 5, 8, 9}
  assert _chunks(tmp_path) == [f'chunk-0000000{i}.bin' for i in (0, 1, 2)]
  replay.add_episode(_episode(12, 2))  # 11 steps; the one at 3..7 goes
  assert set(_starts(replay, 2)) == {8, 9, 10, 12}
  assert _chunks(tmp_path) == [f'chunk-0000000{i}.bin' for i in (2, 3)]


def test_a_full_replay_is_not_shortened_further_than_needed(tmp_path):
  assert _filled(tmp_path, [3, 3, 4], capacity=10).num_steps == 10


def test_the_newest_episode_stays_even_if_it_is_too_long(tmp_path):
  replay = _filled(tmp_path, [3, 12], capacity=5)
  assert (replay.num_episodes, replay.num_steps) == (1, 12)
  assert set(_starts(replay, 12)) == {3}


def test_a_smaller_capacity_holds_from_the_start_of_a_restored_run(tmp_path):
  """Of 3 + 5 + 4 steps; what was restored from stays restorable."""
  state = _filled(tmp_path, [3, 5, 4]).state()
  for capacity, starts in ((9, {3, 4, 5, 8, 9}), (4, {8, 9})):
    replay = _restored(tmp_path, state, capacity)
    assert replay.num_steps == (9 if capacity == 9 else 4)
    assert set(_starts(replay, 3)) == starts
  assert _restored(tmp_path, state).num_steps == 12
  for _ in range(replay_lib.KEPT_STATES):
    replay.state()
  assert _chunks(tmp_path) == ['chunk-00000002.bin']


def test_a_restored_replay_goes_on_like_an_unbroken_one(tmp_path):
  """Saved inside a file; what came later is dropped."""
  replay = _filled(tmp_path / 'a', [3, 6])
  state = replay.state()
  replay.add_episode(_episode(50, 9))
  restored = _restored(tmp_path / 'a', state)
  assert (restored.num_episodes, restored.num_steps) == (2, 9)
  restored.add_episode(_episode(9, 6))
  assert set(_starts(restored, 3)) == {0, *range(3, 7), *range(9, 13)}
  _equal_samples(restored, _filled(tmp_path / 'b', [3, 6, 6]))
  assert _chunks(tmp_path / 'a') == _chunks(tmp_path / 'b')
  assert (tmp_path / 'a' / 'chunk-00000003.bin').stat().st_size == 3 * 22


_KILLED = """
import json, os, pathlib, signal, sys
import numpy as np
sys.path.insert(0, sys.argv[2])
import replay_test

folder = pathlib.Path(sys.argv[1])
replay = replay_test._filled(folder / 'replay', [3, 5])
(folder / 'state.json').write_text(json.dumps(replay.state()))
replay.add_episode(replay_test._episode(8, 4))
replay.add_episode(replay_test._episode(12, 9))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope='module')
def killed(tmp_path_factory):
  """What a process left that was killed two episodes after its checkpoint."""
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
  """The file that was being written may end anywhere."""
  shutil.copytree(killed / 'replay', tmp_path / 'a')
  sizes = [path.stat().st_size for path in sorted((tmp_path / 'a').iterdir())]
  step = sum(
    field.dtype.itemsize * int(np.prod(field.shape))
    for field in _FIELDS.values()
  )
  assert sizes == [4 * step] * 5 + [step]  # 21 steps: nothing was lost
  newest = tmp_path / 'a' / 'chunk-00000004.bin'
  newest.write_bytes(newest.read_bytes()[: 2 * step + 3])
  state = json.loads((killed / 'state.json').read_text())
  restored = _restored(tmp_path / 'a', state)
  _equal_samples(restored, _filled(tmp_path / 'b', [3, 5]))
  restored.add_episode(_episode(8, 4))
  restored.add_episode(_episode(12, 9))
  _equal_samples(restored, _filled(tmp_path / 'c', [3, 5, 4, 9]))


@pytest.mark.parametrize('seed', range(5))
def test_a_random_life_against_a_list(tmp_path, seed):
  """Episodes, checkpoints and kills in any order; contents and capacity."""
  rng = _rng(seed)
  chunk_steps, capacity = int(rng.integers(1, 7)), int(rng.integers(8, 30))
  replay = _new(tmp_path, capacity, chunk_steps)
  # First step of each step's episode, and (state, number of steps) of a save.
  steps, kept = [], None
  for _ in range(60):
    event = rng.choice(['episode', 'episode', 'save', 'kill'])
    if event == 'episode':
      start, length = len(steps), int(rng.integers(1, 9))
      replay.add_episode(_episode(start, length))
      steps += [start] * length
    elif event == 'save':
      kept = json.loads(json.dumps(replay.state())), len(steps)
    elif kept is not None:
      replay = _restored(tmp_path, kept[0], capacity)
      steps = steps[: kept[1]]
    if not steps:
      continue
    firsts = sorted(set(steps))
    within = [i for i in firsts if len(steps) - i <= capacity] or firsts[-1:]
    assert replay.num_steps == len(steps) - within[0]
    assert replay.num_episodes == len(within)
    batch = replay.sample(rng, 4, 1)
    assert batch['number'].min() >= within[0]
    np.testing.assert_array_equal(
      batch['image'][:, 0, 0, 0, 0], batch['number'][:, 0] % 256
    )
    np.testing.assert_array_equal(
      batch['is_last'], np.isin(batch['number'] + 1, [*firsts, len(steps)])
    )


def test_each_of_the_last_states_can_be_gone_back_to(tmp_path):
  """Capacity drops an episode, hence its file, only when no state needs it."""
  replay = _new(tmp_path / 'a', 4)
  states = []
  for number in range(replay_lib.KEPT_STATES + 1):
    replay.add_episode(_episode(4 * number, 4))
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
    replay.add_episode(_episode(4, 4))
    assert set(_starts(replay, 4)) == {4}
  assert set(_starts(_restored(tmp_path, state, 4), 4)) == {0}


def test_states_without_an_episode(tmp_path):
  empty = _new(tmp_path)
  state = empty.state()
  empty.add_episode(_episode(0, 5))
  restored = _restored(tmp_path, state)
  assert restored.num_steps == 0 and _chunks(tmp_path) == []
  restored.add_episode(_episode(0, 3))
  assert set(_starts(restored, 3)) == {0}


def test_a_new_replay_clears_away_the_files_of_another(tmp_path):
  _filled(tmp_path, [3, 5])
  replay = _new(tmp_path)
  assert _chunks(tmp_path) == [] and replay.num_episodes == 0


@pytest.mark.skipif(
  not pathlib.Path('/proc/self/status').exists(), reason='Linux tells of memory'
)
def test_memory_does_not_grow_with_the_buffer(tmp_path):
  """80 MB of steps, all of them read, and files neither mapped nor open."""
  fields = schema.replay_fields(num_keypoints=4, action_size=2)
  replay = _new(tmp_path, 10_000, 64, fields)
  steps = _real_episode(fields, 100)
  replay.add_episode(steps)
  replay.sample(_rng(), 4, 100)
  before = _resident_megabytes()
  for _ in range(27):
    replay.add_episode(steps)
  for seed in range(20):
    replay.sample(_rng(seed), 4, 100)
  assert sum(p.stat().st_size for p in tmp_path.iterdir()) > 80e6
  assert _resident_megabytes() - before < 20
  maps = pathlib.Path('/proc/self/maps').read_text()
  files = [os.path.realpath(p) for p in pathlib.Path('/proc/self/fd').iterdir()]
  assert str(tmp_path) not in maps + ' '.join(files)


def _resident_megabytes():
  status = pathlib.Path('/proc/self/status').read_text()
  return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1]) / 1e3


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(number=np.arange(2.0)), r"'number' is float64\[2\], .*int64\[2\]"),
    (dict(number=np.arange(3)), r"'number' is int64\[3\], expected int64\[2\]"),
    (dict(image=np.zeros((2, 2), np.uint8)), r"'image' is uint8\[2, 2\]"),
    (dict(is_last=np.arange(2)), r"'is_last' is int64\[2\]"),
    (dict(reward=np.zeros(2, np.float32)), r"\['reward'\] are unknown"),
    (
      dict(is_first=np.array([False, False])),
      r'is_first must be true at entry 0 of 2 alone, not at \[\]',
    ),
    (
      dict(is_first=np.array([True, True])),
      r'is_first must be true at entry 0 of 2 alone, not at \[0, 1\]',
    ),
    (
      dict(is_last=np.array([True, False])),
      r'is_last must be true at entry 1 of 2 alone, not at \[0\]',
    ),
    (
      dict(is_last=np.array([False, False])),
      r'is_last must be true at entry 1 of 2 alone, not at \[\]',
    ),
  ],
)
def test_a_wrong_episode_is_refused_and_leaves_no_trace(
  tmp_path, changes, message
):
  replay = _filled(tmp_path, [3])
  with pytest.raises(ValueError, match=f'^replay episode.*{message}'):
    replay.add_episode({**_episode(3, 2), **changes})
  replay.add_episode(_episode(3, 2))
  assert set(_starts(replay, 2)) == {0, 1, 3}


def test_one_step_is_not_an_episode(tmp_path):
  """Steps as such, episodes without any, and without a field."""
  step = {name: array[0] for name, array in _episode(0, 1).items()}
  with pytest.raises(
    ValueError, match=r"'image' is uint8\[2, 2, 3\], .*\[1, 2"
  ):
    _new(tmp_path).add_episode(step)
  with pytest.raises(ValueError, match='is_first must be .* entry 0 of 0 '):
    _new(tmp_path).add_episode(_episode(0, 0))
  for name in _FIELDS:
    steps = _episode(0, 3)
    del steps[name]
    with pytest.raises(ValueError, match=rf"\['{name}'\] are missing"):
      _new(tmp_path).add_episode(steps)


@pytest.mark.parametrize('value', [np.nan, np.inf])
@pytest.mark.parametrize('name', ['flow', 'reward'])
def test_what_is_not_finite_is_refused(tmp_path, name, value):
  fields = schema.replay_fields(num_keypoints=3, action_size=2)
  steps = _real_episode(fields, 3)
  steps[name].flat[-1] = value
  with pytest.raises(ValueError, match=f"field '{name}' is not finite"):
    _new(tmp_path, fields=fields).add_episode(steps)


def _flip(path, offset):
  """Changes one byte of a file."""
  content = bytearray(path.read_bytes())
  content[offset] ^= 1
  path.write_bytes(content)


def test_a_corrupt_episode_is_dropped_when_first_drawn(tmp_path, caplog):
  """Of four, the second has one bit changed; its neighbors share its files."""
  state = _filled(tmp_path, [3, 6, 4, 5]).state()
  _flip(tmp_path / 'chunk-00000001.bin', 1 * 22)  # step 5
  restored = _restored(tmp_path, state)
  assert (restored.num_episodes, restored.num_corrupt) == (4, 0)
  assert not caplog.records
  assert set(_starts(restored, 3)) == {0, 9, 10, 13, 14, 15}
  assert (restored.num_episodes, restored.num_steps) == (3, 12)
  assert restored.num_corrupt == 1
  (warning,) = caplog.messages
  assert warning == (
    f'Replay in {str(tmp_path)!r}: the episode of 6 steps at step 3 in '
    'chunk-00000000.bin, chunk-00000001.bin, chunk-00000002.bin is not what '
    'was written, and is dropped; 3 episodes are left.'
  )
  # It stays dropped, and counted, and the run goes on.
  restored.add_episode(_episode(18, 3))
  again = _restored(tmp_path, restored.state())
  assert set(_starts(again, 3)) == {0, 9, 10, 13, 14, 15, 18}
  assert again.num_corrupt == 1 and len(caplog.messages) == 1


def test_draws_beside_a_corrupt_episode_keep_to_the_rules(tmp_path):
  """Uniform over those that are left, and a function of the generator."""
  state = _filled(tmp_path, [3, 6, 30]).state()
  _flip(tmp_path / 'chunk-00000001.bin', 3)
  one, other = _restored(tmp_path, state), _restored(tmp_path, state)
  starts = _starts(one, 3, draws=4000)
  assert (
    abs((starts == 0).mean() - 0.5) < 0.03 and starts[starts > 0].min() == 9
  )
  np.testing.assert_array_equal(_starts(other, 3, draws=4000), starts)


def test_all_episodes_corrupt(tmp_path, caplog):
  state = _filled(tmp_path, [3, 2]).state()
  for path in tmp_path.iterdir():
    path.write_bytes(bytes(path.stat().st_size))  # as after a power cut
  restored = _restored(tmp_path, state)
  with pytest.raises(ValueError, match='holds no whole episode to draw from'):
    restored.sample(_rng(), 8, 1)
  assert len(caplog.messages) == restored.num_corrupt == 2
  # What is new goes into the same files.
  restored.add_episode(_episode(5, 4))
  assert set(_starts(restored, 4)) == {5}
  assert set(_starts(_restored(tmp_path, restored.state()), 4)) == {5}


def test_each_episode_is_checked_once(tmp_path):
  """Not those that the process wrote itself, nor twice."""
  replay = _filled(tmp_path, [4])
  state = replay.state()
  _flip(tmp_path / 'chunk-00000000.bin', 8)
  replay.sample(_rng(), 4, 3)
  assert replay.num_corrupt == 0
  _flip(tmp_path / 'chunk-00000000.bin', 8)  # back
  restored = _restored(tmp_path, state)
  restored.sample(_rng(), 4, 3)
  _flip(tmp_path / 'chunk-00000000.bin', 8)
  restored.sample(_rng(), 4, 3)
  assert restored.num_corrupt == 0


_FULL = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
import replay_test

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
replay = replay_test._filled(sys.argv[1], [3, 2], chunk_steps=100)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
try:
  replay.add_episode(replay_test._episode(5, 9))
except RuntimeError as error:
  print(error)
assert set(replay_test._starts(replay, 2)) == {0, 1, 3}
replay.add_episode(replay_test._episode(5, 4))
assert set(replay_test._starts(replay, 2)) == {0, 1, 3, 5, 6, 7}
"""


def test_a_disk_that_is_full(tmp_path):
  """Here a limit of 200 bytes a file: an episode fits in part, then another."""
  folder = tmp_path / 'replay'
  done = subprocess.run(
    [sys.executable, '-c', _FULL, folder, pathlib.Path(__file__).parent],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert re.fullmatch(
    f'The replay cannot be written to {str(folder)!r}: File too large. It '
    'grows to .* GB, less with a smaller config.replay.capacity. .*\n',
    done.stdout,
  )


def test_what_a_run_says_at_its_start(tmp_path):
  fields = schema.replay_fields(num_keypoints=16, action_size=6)
  said = []
  for flow_dtype in replay_lib.FLOW_DTYPES:
    replay = replay_lib.Replay(tmp_path, fields, 1_000_000, flow_dtype)
    said.append(replay.describe())
  assert 'Replay: 0 steps of 28851 bytes in' in said[0]
  assert 'config.replay.capacity=1000000 28.85 GB on disk.' in said[0]
  assert ' 20659 bytes' in said[1] and ' 20.66 GB' in said[1]


def test_no_episode_to_draw_from(tmp_path):
  with pytest.raises(
    ValueError, match=f'{re.escape(repr(str(tmp_path)))} holds no whole episode'
  ):
    _new(tmp_path).sample(_rng(), 1, 1)


@pytest.mark.parametrize(('capacity', 'chunk_steps'), [(0, 4), (4, 0), (-1, 1)])
def test_sizes_below_one(tmp_path, capacity, chunk_steps):
  with pytest.raises(
    ValueError,
    match=f'config.replay.capacity={capacity} and chunk_steps={chunk_steps} ',
  ):
    _new(tmp_path, capacity, chunk_steps)


def test_an_unknown_type_of_flow(tmp_path):
  with pytest.raises(
    ValueError, match=r"config.replay.flow_dtype='int4' .*\('float16', 'int8'\)"
  ):
    replay_lib.Replay(tmp_path, _FIELDS, 10, 'int4')


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    (
      dict(image=schema.Field((2, 4, 3), np.dtype(np.uint8))),
      r"'image' was saved as uint8\[2, 2, 3\], expected uint8\[2, 4, 3\]\.",
    ),
    (
      dict(reward=schema.Field((), np.dtype(np.float32))),
      r"'reward' was saved as None, expected float32\[\]\.",
    ),
    (dict(number=None), r"'number' was saved as int64\[\], expected None\."),
  ],
)
def test_other_fields_than_those_saved(tmp_path, fields, message):
  state = _filled(tmp_path, [3]).state()
  fields = {n: f for n, f in {**_FIELDS, **fields}.items() if f is not None}
  with pytest.raises(ValueError, match=message):
    replay_lib.Replay.restore(tmp_path, fields, state, 10, 'float16')


def test_flow_of_another_type_than_saved(tmp_path):
  fields = schema.replay_fields(num_keypoints=3, action_size=2)
  state = replay_lib.Replay(tmp_path, fields, 10, 'int8').state()
  with pytest.raises(
    ValueError,
    match=r"'flow' was saved as int8\[64, 64, 2\], expected "
    r'float16\[64, 64, 2\] by config.replay.flow_dtype',
  ):
    replay_lib.Replay.restore(tmp_path, fields, state, 10, 'float16')


def test_a_state_of_an_older_version(tmp_path):
  state = _filled(tmp_path, [3]).state()
  del state['format']
  with pytest.raises(ValueError, match='in format 1.* it reads 2'):
    _restored(tmp_path, state)
  assert (tmp_path / 'chunk-00000000.bin').exists()


@pytest.mark.parametrize('harm', ['delete', 'truncate'])
def test_a_file_that_the_checkpoint_needs_is_gone(tmp_path, harm):
  state = _filled(tmp_path, [3, 5]).state()
  path = tmp_path / 'chunk-00000001.bin'
  if harm == 'delete':
    path.unlink()
  else:
    path.write_bytes(path.read_bytes()[:-1])
  with pytest.raises(
    ValueError,
    match='chunk-00000001.bin, which the checkpoint needs, is missing or '
    'shorter than 88 bytes; the episode of 5 steps at step 3 lies there',
  ):
    _restored(tmp_path, state)
  # Refusing deletes nothing.
  assert (tmp_path / 'chunk-00000000.bin').exists()
