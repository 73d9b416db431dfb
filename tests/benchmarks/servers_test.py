"""Processes that answer, fail, die or are late."""

import os
import sys
import time

import pytest

from benchmarks import accelerator, servers


def _server(code, env=None):
  program = f'from benchmarks import servers\n{code}'
  return servers.Server([sys.executable, '-c', program], env or os.environ)


def _soon():
  return time.monotonic() + 60


def test_it_answers_by_itself_and_then_every_question():
  server = _server(
    'print("noise")\nservers.serve(lambda: ({"a": 1}, lambda x: x * 2))'
  )
  assert server.answer(_soon()) == {'a': 1}
  assert server.ask(21, _soon()) == 42
  assert server.ask('ab', _soon()) == 'abab'
  server.close()


@pytest.mark.parametrize(
  ('code', 'message'),
  [
    ('servers.serve(lambda: 1 / 0)', 'ZeroDivisionError: division by zero'),
    (
      'import os, sys; print("last words", file=sys.stderr); os._exit(3)',
      'ended with code 3: last words',
    ),
    ('import os; os.kill(os.getpid(), 9)', 'ended with code -9'),
  ],
)
def test_what_fails_says_why(code, message):
  server = _server(code)
  with pytest.raises(servers.Failure, match=message):
    server.answer(_soon())
  server.close()


def test_a_question_may_fail_too():
  server = _server('servers.serve(lambda: (0, lambda x: 1 / x))')
  assert server.answer(_soon()) == 0
  with pytest.raises(servers.Failure, match='division by zero'):
    server.ask(0, _soon())
  with pytest.raises(servers.Failure):
    server.ask(1, _soon())
  server.close()


def test_who_is_late_is_not_waited_for():
  server = _server('import time; time.sleep(600)')
  with pytest.raises(TimeoutError):
    server.answer(time.monotonic() + 0.1)
  server.close()  # or this would take ten minutes


def test_running_out_of_memory_is_recognized():
  server = _server(
    'import jax.numpy as jnp\n'
    'servers.serve(lambda: (float(jnp.zeros([2**45])[0]), None))'
  )
  with pytest.raises(servers.Failure) as failure:
    server.answer(_soon())
  assert accelerator.out_of_memory(str(failure.value)), failure.value
  assert not accelerator.out_of_memory('ValueError: memory')
  server.close()
