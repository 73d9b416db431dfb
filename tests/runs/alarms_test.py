"""Collapse is warned about once, when it lasts."""

import math

import numpy as np
import pytest

from configs import base
from drp_jax.runs import alarms
from drp_jax.systems import registry

_MAX = 10.0
_HEALTHY = {
  'entropy/z_post': 5.0,
  'entropy/s_post': 0.08,
  'kl/z': 0.06,
  'kl/s': 6.0,
  'a_agg/std': 0.2,
  'loss/mae': 100.0,
  'mae/zero_flow': 200.0,
  'held_out/mae': 100.0,
  'held_out/mae_mean_patch': 150.0,
}


def test_a_healthy_line_and_an_empty_one():
  assert alarms.check(_HEALTHY, _MAX) == {}
  assert alarms.check({}, _MAX) == {}
  assert alarms.check(dict.fromkeys(_HEALTHY, math.nan), _MAX) == {}


@pytest.mark.parametrize(
  ('name', 'value', 'meaning'),
  [
    ('entropy/z_post', 0.009, 'z has become deterministic'),
    ('entropy/s_post', 0.0, 's has become deterministic'),
    ('kl/z', 0.009, 'tells z nothing'),
    ('kl/s', np.float32(0.0), 'tells s nothing'),
    ('a_agg/std', 0.009, 'same whatever moves'),
    ('loss/mae', 199.0, 'no better than by no motion'),
    ('held_out/mae', 148.0, 'no better than by the mean patch'),
  ],
)
def test_each_collapse_is_named(name, value, meaning):
  found = alarms.check({**_HEALTHY, name: value}, _MAX)
  assert found.keys() == {name} and meaning in found[name]


def test_it_is_warned_about_once_and_when_it_lasts(caplog):
  watch = alarms.Alarms(_MAX)
  collapsed = {**_HEALTHY, 'a_agg/std': 0.0}
  watch.look(alarms.WARM_UP - 1, collapsed)
  for _ in range(alarms.PATIENCE - 1):
    watch.look(alarms.WARM_UP, collapsed)
  watch.look(alarms.WARM_UP, _HEALTHY)
  for _ in range(alarms.PATIENCE - 1):
    watch.look(alarms.WARM_UP, collapsed)
  watch.look(alarms.WARM_UP, {'eval/return': 1.0})  # does not speak of it
  assert not caplog.text
  for _ in range(3):
    watch.look(2000, collapsed)
  assert caplog.text.count('Collapse after 2000 updates? a_agg/std=0') == 1


def test_a_termination_that_nothing_learns_from_is_warned_about_once(caplog):
  terminations = alarms.Terminations(are_learned=False)
  terminations.look(0, np.array([False, False]))
  assert not caplog.messages
  for number in (1, 2, 3):
    terminations.look(number, np.array([False, number > 1]))
  (message,) = caplog.messages
  assert message.startswith('Episode 3 terminated')
  assert 'config.behavior.continuation=False' in message


def test_no_warning_where_terminations_are_learned(caplog):
  alarms.Terminations(are_learned=True).look(0, np.array([True]))
  assert not caplog.messages


@pytest.mark.parametrize('agent', registry.SYSTEMS)
def test_who_learns_terminations(agent):
  config = base.get_config('debug')
  config.agent = agent
  assert registry.build(config, 1, None).learns_terminations == (
    agent == 'dreamerv3'
  )
  config.behavior.continuation = True
  assert registry.build(config, 1, None).learns_terminations
