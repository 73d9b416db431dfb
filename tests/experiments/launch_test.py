"""What every command does first: processes that join, and traces."""

import gzip
import json

import jax
import jax.numpy as jnp
import pytest

from experiments import launch


def test_a_process_alone_needs_no_flags():
  launch.join('', None, None, allowed=False)
  assert jax.process_count() == 1


@pytest.mark.parametrize(
  'flags',
  [
    ('', 2, 0),
    ('auto', 2, 0),
    ('localhost', 2, 0),
    ('localhost:1234', None, None),
    ('localhost:1234', 2, None),
    ('localhost:1234', 2, 2),
    ('localhost:port', 2, 0),
  ],
)
def test_flags_of_several_processes_that_do_not_fit(flags):
  with pytest.raises(ValueError, match='--coordinator=.*--process_id='):
    launch.join(*flags, allowed=True)


def test_a_command_for_one_process_says_so():
  with pytest.raises(ValueError, match='only pre-training'):
    launch.join('auto', None, None, allowed=False)


def test_a_trace_holds_what_was_computed(tmp_path):
  def computed_under_the_profiler(x):
    return x @ x

  with launch.traced(str(tmp_path), after=0.0, seconds=60.0):
    step = jax.jit(computed_under_the_profiler)
    step(jnp.ones((8, 8))).block_until_ready()
  [path] = tmp_path.rglob('perfetto_trace.json.gz')
  with gzip.open(path) as file:
    events = json.load(file)['traceEvents']
  assert any('computed_under' in event.get('name', '') for event in events)
  assert list(tmp_path.rglob('*.xplane.pb'))  # for TensorBoard


def test_a_program_that_ends_before_its_trace_says_so(tmp_path, caplog):
  with launch.traced(str(tmp_path), after=60.0, seconds=1.0):
    pass
  assert '--profile_after' in caplog.text
  assert not list(tmp_path.iterdir())
