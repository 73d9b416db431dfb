"""Tests of what is due when, and of speeds."""

import pytest

from drp_jax.runs import clocks


@pytest.mark.parametrize(
  ('before', 'now', 'marks'),
  [(-1, 999, 0), (-1, 1000, 1), (1000, 10_999, 0), (999, 21_000, 3)],
)
def test_marks_that_are_passed(before, now, marks):
  """1000, 11 000, 21 000, as evaluations come."""
  assert clocks.Every(10_000, first=1000).passed(before, now) == marks


def test_marks_are_at_multiples():
  clock = clocks.Every(3)
  assert [count for count in range(1, 10) if clock.at(count)] == [3, 6, 9]
  assert all(clocks.Every(1).at(count) for count in range(1, 4))


def test_speeds_are_of_the_time_since_they_were_asked_for(monkeypatch):
  times = iter((10.0, 12.0, 16.0))
  monkeypatch.setattr(clocks.time, 'monotonic', lambda: next(times))
  speed = clocks.Speed(steps=100, updates=1)
  assert speed.measure(steps=110, updates=2) == {
    'time/steps_per_second': 5.0,
    'time/updates_per_second': 0.5,
  }
  assert speed.measure(steps=110, updates=10)['time/updates_per_second'] == 2.0
