"""Tests of what a checkpoint's JSON holds of a fine-tuning."""

import json

import pytest

from drp_jax.train import run_state


def _through_json(state):
  return run_state.RunState.from_json(json.loads(json.dumps(state.to_json())))


@pytest.mark.parametrize(
  'middle', [None, run_state.Round(7, explore=False, failed=[1], num_envs=2)]
)
def test_what_is_written_is_read(middle):
  state = run_state.RunState(67, 4, 1, 40, [12, 900], [2, 1], middle)
  assert _through_json(state) == state


def test_names_are_those_of_earlier_checkpoints():
  state = run_state.RunState(round=run_state.Round(7, True, [1], 2))
  assert state.to_json() == {
    'agent_step': 0,
    'episode': 0,
    'dropped': 0,
    'evaluated': -1,
    'lines': 0,
    'bad_steps': [0, 0],
    'round': {'steps': 7, 'explore': True, 'failed': [1], 'num_envs': 2},
  }


def test_an_old_checkpoint_says_less_and_more():
  """All lines of metrics count then; of a round neither size nor failures."""
  found = {
    'agent_step': 20,
    'episode': 2,
    'round': {'steps': 10, 'explore': True},
    'replay': {'files': []},
  }
  state = run_state.RunState.from_json(found)
  assert state == run_state.RunState(
    20, 2, lines=None, round=run_state.Round(10, True)
  )
  assert state.round.num_envs is None and not state.round.failed
