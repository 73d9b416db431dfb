"""What the host gives to a step, and how long the step waits for it."""

import pytest

from benchmarks import host, steps


def test_segments_come_in_the_shapes_of_the_step(tmp_path):
  step = steps.make_step('dmcr', 'float32', 'debug')
  batches = host.segments(step, '', str(tmp_path))
  batch = next(batches)
  assert batch.image.shape == step.example.image.shape
  assert batch.motion.points.shape == step.example.motion.points.shape
  assert (next(batches).image != batch.image).any()


@pytest.mark.slow
def test_a_step_waits_less_than_it_takes():
  found = host.measure('dmcr', 'debug', '', turns=3)
  assert 0 < found['waited'] < found['both'] and found['step'] > 0


def test_table():
  row = dict(
    stage='dmcr',
    preset='nano',
    batch=4.25,
    step=500.4,
    both=510.0,
    waited=1.04,
    start_empty=60.2,
    start_filled=9.9,
  )
  *_, line = host.table([row]).splitlines()
  assert line == '| dmcr, nano | 4.2 | 500 | 510 (1.0) | 60 | 10 |'
