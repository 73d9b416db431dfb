"""Killed in the middle of a write: what is there is whole, and is gone on with.

Programs that do nothing but write (writers.py), killed at a random change of
their files or soon after. Of `kill_test.test_preprocessing` every change is one
of shards.
"""

import signal

import jax
import numpy as np
import pytest
import writers

from drp_jax.runs import checkpoint

_KILLS = [2, pytest.param(20, marks=pytest.mark.slow)]
_CHANGES = 150  # of files, among which one is chosen: some twenty writes


def _strike(command, folder, rng):
  delay = float(rng.choice([0.0, 0.002, 0.02]) * rng.uniform(0.5, 1.5))
  change = int(rng.integers(10, _CHANGES))
  code, said = command.run(folder, change, delay)
  assert code == -signal.SIGKILL, said[-3000:]


@pytest.mark.parametrize('kills', _KILLS)
def test_checkpoints(make_command, tmp_path, kills):
  command = make_command('../tests/faults/writers', 'checkpoints', '{}')
  rng, before = np.random.default_rng(kills), 0
  template = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), writers.state(0)
  )
  for _ in range(kills):
    _strike(command, tmp_path, rng)
    saved = checkpoint.Checkpoints(tmp_path)
    step = saved.latest_step()
    if step is not None:  # else none was finished
      state, meta = saved.restore(template)
      assert meta == {'step': step} and step >= before
      jax.tree.map(np.testing.assert_array_equal, state, writers.state(step))
      before = step
    saved.close()
  assert before >= kills  # it went on each time


@pytest.mark.parametrize('kills', _KILLS)
def test_replay(make_command, tmp_path, kills):
  command = make_command('../tests/faults/writers', 'replay', '{}')
  rng, before = np.random.default_rng(kills), 0
  for _ in range(kills):
    _strike(command, tmp_path, rng)
    replay = writers.open_replay(tmp_path)
    assert replay.num_episodes >= before
    before = replay.num_episodes
    batch = replay.sample(rng, 8 * before, writers.STEPS)
    assert replay.num_corrupt == 0
    index = batch['number'][:, 0, 0] // writers.STEPS
    assert set(index.tolist()) <= set(range(before))
    for number, row in zip(index, batch['number'], strict=True):
      np.testing.assert_array_equal(row, writers.episode(number)['number'])
  assert before >= kills
