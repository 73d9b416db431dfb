"""Tests of the house: who imports whom, and what an import costs."""

import ast
import configparser
import pathlib
import subprocess
import sys

import pytest

from drp_jax.systems import registry

_ROOT = pathlib.Path(__file__).parents[1]
_PACKAGE = _ROOT / 'drp_jax'

# Folder or module of drp_jax -> what it may import of drp_jax beside itself.
_MAY_IMPORT = {
  'types': (),
  'extras': (),
  'files': (),
  'processes': (),
  'recordings': ('files',),
  'weights': ('extras',),
  'wheels': (),
  'ops': ('types',),
  'losses': ('types', 'ops'),
  'models': ('types', 'ops'),
  'runs': ('data.report', 'data.schema', 'extras', 'files'),
  'systems': ('types', 'ops', 'losses', 'models', 'runs', 'data.schema'),
  'train': (
    'types',
    'ops',
    'losses',
    'runs',
    'systems',
    'data',
    'files',
    'extras',
  ),
  'convert': ('types', 'models', 'systems', 'runs.checkpoint', 'weights'),
  'data': ('files', 'extras', 'processes', 'recordings', 'wheels'),
  'envs': ('files', 'extras', 'processes', 'recordings', 'wheels'),
  'viz': ('files', 'extras'),
  'preprocess': (
    'data.schema',
    'data.shards',
    'extras',
    'files',
    'processes',
    'weights',
  ),
}
_NO_JAX = ('data', 'envs', 'preprocess')
_TORCH = ('preprocess', 'convert', 'weights')
_FILES = sorted(_PACKAGE.rglob('*.py'))


def _name(path: pathlib.Path) -> str:
  return path.relative_to(_ROOT).as_posix()


def _part(path: pathlib.Path) -> str:
  return path.relative_to(_PACKAGE).with_suffix('').parts[0]


def _tree(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(encoding='utf-8'))


def _imports(path: pathlib.Path) -> set[str]:
  """Dotted names of all imported modules and members, lazy ones too."""
  names = set()
  for node in ast.walk(_tree(path)):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: imports are absolute.'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def _top_level(path: pathlib.Path) -> set[str]:
  return {name.split('.')[0] for name in _imports(path)}


def test_every_part_has_a_rule():
  parts = {_part(path) for path in _FILES} - {'__init__'}
  assert parts <= _MAY_IMPORT.keys()
  assert len(_FILES) > 40


@pytest.mark.parametrize('path', _FILES, ids=_name)
def test_imports_go_one_way(path):
  part = _part(path)
  for name in _imports(path):
    assert name.split('.')[0] not in ('experiments', 'configs', 'tests')
    if not name.startswith('drp_jax.'):
      continue
    target = name.removeprefix('drp_jax.')
    allowed = (*_MAY_IMPORT[part], part)
    assert any(target == a or target.startswith(f'{a}.') for a in allowed), (
      f'{_name(path)} imports {name}'
    )


def test_only_tests_import_tests():
  folders = 'benchmarks', 'configs', 'experiments', 'third_party'
  paths = [path for x in folders for path in (_ROOT / x).rglob('*.py')]
  assert len(paths) > 40
  for path in paths:
    assert 'tests' not in _top_level(path), _name(path)


@pytest.mark.parametrize('path', _FILES, ids=_name)
def test_heavy_and_global_things_stay_where_they_belong(path):
  part, tops = _part(path), _top_level(path)
  if part not in _TORCH:
    assert not {'torch', 'tensorflow'} & tops
  if part in _NO_JAX:
    assert not {'jax', 'flax', 'optax'} & tops
  assert not any(name.startswith('absl.flags') for name in _imports(path))


@pytest.mark.parametrize('path', _FILES, ids=_name)
def test_modules_do_not_print(path):
  if _name(path) == 'drp_jax/envs/gl.py':
    return  # a command as well, for make
  called = {
    node.func.id
    for node in ast.walk(_tree(path))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
  }
  assert 'print' not in called


@pytest.mark.parametrize('path', _FILES, ids=_name)
def test_only_one_file_names_devices_mapping(path):
  names = {
    node.attr if isinstance(node, ast.Attribute) else node.id
    for node in ast.walk(_tree(path))
    if isinstance(node, ast.Attribute | ast.Name)
  }
  if _name(path) == 'drp_jax/runs/parallel.py':
    assert 'pmap' in names
  else:
    assert not {'pmap', 'shard_map', 'pjit'} & names


def test_linen_lives_with_the_models():
  """And in systems, which have networks of their own."""
  for path in _FILES:
    if 'flax.linen' in _imports(path):
      assert _part(path) in ('models', 'systems'), _name(path)


# Places of systems: `drp_jax.systems.<name>`.
_OWN = {x.build.__module__.split('.')[2] for x in registry.SYSTEMS.values()}


def test_a_system_is_known_by_the_registry_alone():
  """No loop, no shared file and no other system imports one."""
  assert _OWN >= {'drp', 'ipv', 'dreamerv2', 'dreamerv3', 'prelar', 'diswm'}
  for path in _FILES:
    if _part(path) == 'convert' or _name(path).endswith('systems/registry.py'):
      continue
    own = path.relative_to(_PACKAGE).with_suffix('').as_posix()
    for name in _imports(path):
      if name.startswith('drp_jax.systems.'):
        system = name.split('.')[2]
        assert system not in _OWN or f'systems/{system}' in own, (
          f'{own} imports {name}'
        )


def test_a_loop_asks_no_system_who_it_is():
  """No name of a system, and no guess at what an object answers."""
  for path in _FILES:
    if _part(path) not in ('runs', 'train'):
      continue
    for node in ast.walk(_tree(path)):
      if isinstance(node, ast.Constant):
        assert node.value not in registry.SYSTEMS, _name(path)
      if isinstance(node, ast.Name):
        assert node.id != 'hasattr', _name(path)


def test_no_drawers_for_everything():
  for path in _FILES:
    assert path.stem not in ('utils', 'util', 'common', 'misc', 'helpers')


_SCRIPT = """
import importlib, pkgutil, sys
import drp_jax.models
for module in pkgutil.walk_packages(drp_jax.models.__path__, 'drp_jax.models.'):
  importlib.import_module(module.name)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized(), 'a backend was started'
heavy = {'torch', 'tensorflow', 'tensorflow_datasets', 'cv2', 'mujoco', 'grain',
         'gymnasium', 'ml_collections', 'matplotlib', 'orbax'}
loaded = heavy & sys.modules.keys()
assert not loaded, loaded
print(sum(name.startswith('drp_jax.models.') for name in sys.modules))
"""


def test_importing_the_models_is_light_and_takes_no_device():
  done = subprocess.run(
    [sys.executable, '-c', _SCRIPT],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  files = [path for path in _FILES if _part(path) == 'models']
  assert int(done.stdout) == len(files) - 1  # all but __init__


def test_every_file_that_is_no_code_goes_into_the_wheel():
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg')
  patterns = config['options.package_data']['drp_jax'].split()
  packed = {path for pattern in patterns for path in _PACKAGE.glob(pattern)}
  others = {
    path
    for path in _PACKAGE.rglob('*')
    if path.is_file()
    and path.suffix not in ('.py', '.pyc')
    and '__pycache__' not in path.parts
  }
  assert others and others == packed
