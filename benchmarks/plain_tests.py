"""Runs tests that matter on a device, without pytest.

A stand-in provides the parts of pytest that those files use: fixtures, each
made once per file; `parametrize`; `raises`. Tests marked slow are left out.
"""

import contextlib
import dataclasses
import importlib
import inspect
import itertools
import pathlib
import re
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

_TESTS = pathlib.Path(__file__).parents[1] / 'tests'
FILES = (
  'equations_test',
  'golden_test',
  'golden_dreamerv3_test',
  'golden_prelar_test',
  'golden_continuation_test',
  'golden_diswm_test',
)
DEVICES_FILE = 'runs.parallel_test'
_DEVICES = 'gradient_on_devices'  # its tests that run on any number of devices
_FIXTURES = 'system_fixtures'  # shared by all files
_SHOWN = 300  # characters of an error


@dataclasses.dataclass(frozen=True)
class _Fixture:
  """A fixture, called by the names of its arguments."""

  make: Callable[..., Any]
  params: Sequence[Any] = (None,)


@dataclasses.dataclass(frozen=True)
class _Param:
  """Values of one case of `parametrize`."""

  values: tuple[Any, ...]
  slow: bool


@dataclasses.dataclass(frozen=True)
class Case:
  """One call of a test function.

  Attributes:
    name: file, function and parameters.
    run: calls it, and makes missing fixtures.
  """

  name: str
  run: Callable[[], None]


def _fixture(make=None, *, scope='function', params=(None,), ids=None):
  del scope, ids
  if make is None:
    return lambda make: _Fixture(make, params)
  return _Fixture(make)


def _parametrize(names, cases):
  names = names.split(',') if isinstance(names, str) else names

  def mark(function):
    found = [
      case if isinstance(case, _Param) else _param(*_tuple(case, len(names)))
      for case in cases
    ]
    vars(function).setdefault('_cases', []).append((names, found))
    return function

  return mark


def _tuple(case, count):
  return (case,) if count == 1 else tuple(case)


def _param(*values, marks=None):
  return _Param(values, marks is _slow)


def _slow(function):
  function._slow = True
  return function


@contextlib.contextmanager
def _raises(kind, match=''):
  try:
    yield
  except kind as error:
    assert re.search(match, str(error)), error
  else:
    raise AssertionError(f'{kind.__name__} was not raised.')


def _stand_in() -> types.ModuleType:
  module = types.ModuleType('pytest')
  module.fixture, module.param, module.raises = _fixture, _param, _raises
  module.mark = types.SimpleNamespace(parametrize=_parametrize, slow=_slow)
  return module


def cases() -> Iterator[Case]:
  """Yields all cases; those of several devices if there are several.

  From then on this process uses the stand-in instead of pytest.
  """
  sys.modules['pytest'] = _stand_in()
  sys.path[:0] = [str(_TESTS), str(_TESTS.parent)]
  shared = _fixtures(importlib.import_module(_FIXTURES))
  files = [importlib.import_module(name) for name in FILES]
  if jax.device_count() > 1:
    files.append(importlib.import_module(DEVICES_FILE))
  for module in files:
    yield from _cases_of(module, shared)


def _fixtures(module) -> dict[str, _Fixture]:
  return {k: v for k, v in vars(module).items() if isinstance(v, _Fixture)}


def _cases_of(module, shared) -> Iterator[Case]:
  fixtures, made = {**shared, **_fixtures(module)}, {}
  for name, function in list(vars(module).items()):
    if not name.startswith('test_') or hasattr(function, '_slow'):
      continue
    if module.__name__ == DEVICES_FILE and _DEVICES not in name:
      continue
    for arguments in _arguments(function):
      for choice in _choices(function, fixtures):
        label = [str(x) for x in (*arguments.values(), *choice.values())]
        where = f'{module.__name__}: {name}'
        yield Case(
          f'{where}[{", ".join(label)}]' if label else where,
          lambda f=function, a=arguments, c=choice: f(
            **_given(f, fixtures, made, a, c)
          ),
        )


def _arguments(function) -> Iterator[dict[str, Any]]:
  """Yields the cases of `parametrize`, without slow ones."""
  marks = getattr(function, '_cases', [])
  for chosen in itertools.product(*(found for _, found in marks)):
    if not any(param.slow for param in chosen):
      yield {
        name: value
        for (names, _), param in zip(marks, chosen, strict=True)
        for name, value in zip(names, param.values, strict=True)
      }


def _choices(function, fixtures) -> Iterator[dict[str, Any]]:
  """Yields a parameter for each fixture that has some."""
  names, found = list(inspect.signature(function).parameters), []
  for name in names:  # grows
    if name in fixtures:
      names += [
        more
        for more in inspect.signature(fixtures[name].make).parameters
        if more not in names
      ]
      if fixtures[name].params != (None,):
        found.append(name)
  for values in itertools.product(*(fixtures[name].params for name in found)):
    yield dict(zip(found, values, strict=True))


def _given(function, fixtures, made, arguments, choice):
  """Makes the arguments of a function."""
  given = {}
  for name in inspect.signature(function).parameters:
    if name in arguments:
      given[name] = arguments[name]
      continue
    key = name, repr(sorted(choice.items()))
    if name in fixtures and key not in made:
      inner = {'request': types.SimpleNamespace(param=choice.get(name))}
      make = fixtures[name].make
      made[key] = make(**_given(make, fixtures, made, inner, choice))
    given[name] = made[key]
  return given


def run(deadline: float) -> Iterator[tuple[str, str, float]]:
  """Runs all tests in float32's highest precision.

  Args:
    deadline: time by `time.monotonic` after which no test is begun.

  Yields:
    Name; 'passed', 'not run' or the failure; and seconds.
  """
  with jax.default_matmul_precision('highest'):
    for case in cases():
      begin = time.monotonic()
      if begin > deadline:
        yield case.name, 'not run', 0.0
        continue
      try:
        case.run()
        result = 'passed'
      except Exception as error:
        text = ' '.join(str(error).split())
        result = f'failed: {type(error).__name__}: {text}'[:_SHOWN]
      yield case.name, result, time.monotonic() - begin
