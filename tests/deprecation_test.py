"""Deprecated calls in our own code are errors, wherever the tests reach it."""

import pathlib
import warnings

import pytest

_ROOT = pathlib.Path(__file__).parents[1]


def _warn(category: type[Warning], module: str):
  """Warns as a deprecated function does that `module` calls."""
  warnings.warn_explicit('gone soon', category, 'file.py', 1, module)


def _module(path: pathlib.Path) -> str:
  return '.'.join(path.relative_to(_ROOT).with_suffix('').parts)


@pytest.mark.parametrize('category', [DeprecationWarning, FutureWarning])
def test_our_own_modules_may_call_nothing_deprecated(category):
  folders = ('drp_jax', 'configs', 'experiments', 'benchmarks')
  modules = [
    _module(path) for name in folders for path in (_ROOT / name).rglob('*.py')
  ]
  assert len(modules) > 150
  for module in (*modules, 'conftest', __name__):
    with pytest.raises(category, match='gone soon'):
      _warn(category, module)


def test_modules_of_others_may():
  _warn(DeprecationWarning, 'orbax.checkpoint')
  _warn(DeprecationWarning, 'drp_jaxer')


def test_a_call_is_told_from_the_callee():
  with pytest.raises(DeprecationWarning):
    warnings.warn('gone soon', DeprecationWarning, stacklevel=1)
