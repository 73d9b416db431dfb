"""Tests by their functions, without pytest."""

import os
import pathlib
import subprocess
import sys

import bare

_ROOT = pathlib.Path(__file__).parents[2]

_SAMPLE = """
import pytest
from numpy import testing

made = []

@pytest.fixture(scope='module')
def one():
  made.append('one')
  return 1

@pytest.fixture(scope='module', params=[10, 20], ids=['ten', 'twenty'])
def tens(request, one):
  return request.param * one

@pytest.mark.parametrize(('a', 'b'), [(1, 2), pytest.param(0, 3)])
@pytest.mark.parametrize('c', [5, pytest.param(6, marks=pytest.mark.slow)])
def test_parameters(a, b, c, one):
  assert (a, b, c) in {(1, 2, 5), (0, 3, 5)}
  assert one == 1 and made == ['one']

def test_fixtures_with_parameters(tens):
  assert tens in (10, 20)

def test_that_fails():
  assert False, 'as it should'

def test_of_errors():
  with pytest.raises(ValueError, match='no .* here'):
    raise ValueError('no luck here')

def test_of_an_error_that_does_not_come():
  with pytest.raises(ValueError):
    pass

@pytest.mark.slow
def test_that_takes_minutes():
  assert False
"""


def _python(code, env):
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=_ROOT,
    env=env,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  return done.stdout.splitlines()


def test_a_file_of_tests(tmp_path):
  (tmp_path / 'sample_test.py').write_text(_SAMPLE)
  code = (
    f'import sys, time; sys.path.insert(0, {str(tmp_path)!r})\n'
    'from benchmarks import plain_tests\n'
    "plain_tests.FILES = ('sample_test',)\n"
    'for name, result, _ in plain_tests.run(time.monotonic() + 600):\n'
    '  print(name, "->", result)\n'
  )
  one_device = {**os.environ, 'XLA_FLAGS': ''}
  assert _python(code, one_device) == [
    'sample_test: test_parameters[5, 1, 2] -> passed',
    'sample_test: test_parameters[5, 0, 3] -> passed',
    'sample_test: test_fixtures_with_parameters[10] -> passed',
    'sample_test: test_fixtures_with_parameters[20] -> passed',
    'sample_test: test_that_fails -> failed: AssertionError: as it should',
    'sample_test: test_of_errors -> passed',
    'sample_test: test_of_an_error_that_does_not_come -> failed:'
    ' AssertionError: ValueError was not raised.',
  ]


def test_nothing_is_begun_after_the_deadline():
  code = (
    'from benchmarks import plain_tests\n'
    'found = [result for _, result, _ in plain_tests.run(0.0)]\n'
    'print(len(found), set(found))\n'
  )
  (line,) = _python(code, os.environ)
  count, _, results = line.partition(' ')
  assert results == "{'not run'}" and int(count) > 40


_QUICK = 'balanced', 'equation_10_lambda', 'equation_14', '15_proj', 'formulas'


def test_equations_and_golden_arrays_on_a_bare_machine(tmp_path):
  """Those that compile little; orbax comes with Flax."""
  code = (
    'from benchmarks import plain_tests\n'
    'for case in plain_tests.cases():\n'
    f'  if any(word in case.name for word in {_QUICK}):\n'
    '    case.run()\n'
    '    print(case.name)\n'
  )
  lines = _python(code, bare.environment(tmp_path, *bare.ORBAX))
  found = '\n'.join(lines)
  assert all(word in found for word in _QUICK), found
  assert 'equations_test' in found and 'golden_dreamerv3_test' in found


def test_it_finds_what_pytest_finds():
  """But what takes several devices in other numbers."""
  files = 'equations', 'golden', 'golden_prelar', 'golden_diswm'
  pytest = subprocess.run(
    [
      *(sys.executable, '-m', 'pytest', '--collect-only'),  # and addopts' -q
      *(f'tests/{name}_test.py' for name in files),
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  expected = [line for line in pytest.stdout.splitlines() if '::' in line]
  code = (
    'from benchmarks import plain_tests\n'
    'for case in plain_tests.cases():\n'
    '  print(case.name)\n'
  )
  found = [
    line
    for line in _python(code, os.environ)
    if line.split('_test:')[0] in files
  ]
  assert len(found) == len(expected) > 30
