"""Episodes of two versions of MuJoCo, side by side."""

import json

import numpy as np
import pytest

from benchmarks import mujoco_versions

TASKS = ['cartpole_swingup', 'walker_run']


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp('versions') / 'here.npz'
  mujoco_versions.save_episodes(path, TASKS, 12)
  return path


def changed(file, name, change):
  """A file as `file`, with `change` of one array."""
  with np.load(file) as archive:
    arrays = dict(archive)
  arrays[name] = change(arrays[name])
  path = file.with_name('changed.npz')
  np.savez(path, **arrays)
  return path


def test_one_version_equals_itself(file, tmp_path):
  again = tmp_path / 'again.npz'
  mujoco_versions.save_episodes(again, TASKS, 12)
  report = mujoco_versions.compare(file, again)
  assert list(report['results']) == TASKS
  for row in report['results'].values():
    assert row['equal_steps'] == row['close_steps'] == 12
    assert not any(
      row[name] for name in ('start', 'image', 'image_changed', 'state')
    )
  assert report['versions'][0].keys() == set(mujoco_versions.PACKAGES)
  json.dumps(report, allow_nan=False)


def test_another_state_is_counted_from_where_it_begins(file):
  def change(state):
    state[5:] += 1e-9
    state[9:] += 1e-3
    return state

  other = changed(file, 'walker_run/state', change)
  results = mujoco_versions.compare(file, other)['results']
  row = results['walker_run']
  assert (row['equal_steps'], row['close_steps']) == (4, 8)
  assert row['start'] == 0 and row['state'] == pytest.approx(1e-3, rel=1e-3)
  assert results['cartpole_swingup']['equal_steps'] == 12


def test_another_start_leaves_no_step(file):
  other = changed(file, 'walker_run/state', lambda state: state + 1)
  row = mujoco_versions.compare(file, other)['results']['walker_run']
  assert row['equal_steps'] == row['close_steps'] == 0
  assert row['start'] == pytest.approx(1)


def test_other_images_and_rewards_are_seen(file):
  def change(image):
    image[:, :32, :, 0] ^= 16
    return image

  other = changed(file, 'walker_run/image', change)
  row = mujoco_versions.compare(file, other)['results']['walker_run']
  assert row['image_changed'] == 0.5
  assert row['image'] == pytest.approx(16 / 2 / 3)
  other = changed(file, 'walker_run/reward', lambda reward: reward + 0.25)
  report = mujoco_versions.compare(file, other)
  assert report['results']['walker_run']['reward'] == 0.25
  head, _, first, second = mujoco_versions.table(report['results']).split('\n')
  assert second.startswith('| walker_run | 0.000 | 0.00 | 12 | 12 | 0.0e+00 |')
  assert head.count('|') == first.count('|') == second.count('|')


def test_files_of_other_lengths_are_refused(file, tmp_path):
  other = tmp_path / 'other.npz'
  mujoco_versions.save_episodes(other, TASKS, 3)
  with pytest.raises(ValueError, match='--compare: .*--steps'):
    mujoco_versions.compare(file, other)
