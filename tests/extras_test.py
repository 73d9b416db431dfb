"""A package that is not installed is an error that names its extra."""

import ast
import configparser
import functools
import pathlib
import subprocess
import sys

import pytest

from drp_jax import extras

_ROOT = pathlib.Path(__file__).parents[1]
_LIBRARY = sorted((_ROOT / 'drp_jax').rglob('*.py'))
_COMMANDS = sorted((_ROOT / 'experiments').glob('*.py'))
# What `pip install .` brings, what is a part of that, and what is a checkout of
# the user (third_party/README.md).
_ALWAYS = {'chex', 'flax', 'jax', 'ml_collections', 'numpy', 'optax'}
_ALWAYS |= {'absl', 'tapnet'}
_OURS = {'benchmarks', 'configs', 'drp_jax', 'experiments'}


@functools.cache
def _tree(path):
  return ast.parse(path.read_text('utf-8'))


def _imported(path):
  """Packages of extras that a file imports, wherever in it."""
  return _packages(_tree(path)) - _ALWAYS - _OURS - sys.stdlib_module_names


def _packages(tree):
  found = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name.partition('.')[0] for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      found.add(node.module.partition('.')[0])
  return found


def _texts(node):
  return {
    x.value
    for x in ast.walk(node)
    if isinstance(x, ast.Constant) and isinstance(x.value, str)
  }


def _required(paths):
  """All words in calls that check for packages, or in blocks that do."""
  return set().union(*map(_required_by, paths))


@functools.cache
def _required_by(path):
  nodes = list(ast.walk(_tree(path)))
  words = {
    text
    for node in nodes
    if isinstance(node, ast.Call)
    and ast.unparse(node.func) in ('extras.require', '_prepare_torch')
    for text in _texts(node)
  }
  for node in nodes:
    if isinstance(node, ast.With) and _checks(node):
      words |= _packages(node)
  return words


def _checks(node):
  """Whether a `with` statement names the extra of what its block imports."""
  call = node.items[0].context_expr
  return isinstance(call, ast.Call) and (
    ast.unparse(call.func) == 'extras.brings'
  )


def test_every_package_of_an_extra_is_asked_for_where_it_is_imported():
  """In its folder; `convert` reads weights as `preprocess` does."""
  for folder in {path.parent for path in _LIBRARY}:
    own = [path for path in _LIBRARY if path.parent == folder]
    required = _required(own)
    if folder.name == 'convert':
      required |= {'torch', 'safetensors'}
    for path in own:
      missing = _imported(path) - required
      assert not missing, f'{path}: add {missing} to extras.require(...).'
  required = _required([*_COMMANDS, *_LIBRARY])
  for path in _COMMANDS:
    missing = _imported(path) - required
    assert not missing, f'{path}: add {missing} to extras.require(...).'


def test_the_extras_that_are_named_exist():
  config = configparser.ConfigParser()
  config.read(_ROOT / 'setup.cfg')
  named = set()
  for path in (*_LIBRARY, *_COMMANDS):
    for node in ast.walk(_tree(path)):
      if not isinstance(node, ast.Call):
        continue
      place = {'extras.require': 1, 'extras.brings': 0}
      where = place.get(ast.unparse(node.func))
      if where is not None and isinstance(node.args[where], ast.Constant):
        named.add(node.args[where].value)
  assert named <= set(config['options.extras_require'])
  assert named == {
    'data',
    'hdf5',
    'dmc',
    'metaworld',
    'train',
    'figures',
    'onnx',
    'torch',
    'beam',
  }


_BACKENDS = (
  'from configs import extract; from drp_jax.preprocess import backends;'
  ' c = extract.get_config(); c.{} = {!r};'
  ' backends.make_backends(backends.Settings(**c.to_dict()))'
)


@pytest.mark.parametrize(
  ('extra', 'package', 'code'),
  [
    ('data', 'grain', 'import drp_jax.data.input_pipeline'),
    ('data', 'tensorflow_datasets', 'import drp_jax.data.tfds_records'),
    ('data', 'pyarrow', 'import drp_jax.data.lerobot'),
    (
      'hdf5',
      'h5py',
      'from drp_jax.data import hdf5; hdf5.hdf5_episodes("", "")',
    ),
    ('data', 'av', 'import drp_jax.preprocess.video'),
    ('data', 'cv2', 'import drp_jax.preprocess.flow'),
    (
      'data',
      'grain',
      'from experiments import run_pretrain; run_pretrain.main()',
    ),
    ('train', 'orbax', 'import drp_jax.train.pretrained'),
    ('train', 'matplotlib', 'import drp_jax.viz.curves'),
    ('train', 'gymnasium', 'import experiments.finetune_work'),
    ('dmc', 'gymnasium', 'import drp_jax.envs.driver'),
    ('dmc', 'mujoco', 'from drp_jax.envs import gl; gl.select_backend()'),
    (
      'dmc',
      'dm_control',
      'from drp_jax.envs import dmc; dmc.load("walker_run")',
    ),
    (
      'metaworld',
      'metaworld',
      'from drp_jax.envs import metaworld; metaworld.tasks()',
    ),
    (
      'figures',
      'sklearn',
      'from experiments import show_actions;'
      ' show_actions.show("", "", "", (), (), 1, "")',
    ),
    (
      'figures',
      'scipy',
      'from experiments import show_attention;'
      ' show_attention.show("", "", "", 1, "")',
    ),
    (
      'figures',
      'dm_pix',
      'from experiments import show_predictions;'
      ' show_predictions.show({}, "", "", 1, "", (), "")',
    ),
    ('torch', 'torch', _BACKENDS.format('flow', 'sea_raft')),
    (
      'grounded_sam',
      'transformers',
      _BACKENDS.format('mask', 'grounded_sam'),
    ),
    ('onnx', 'onnxruntime', _BACKENDS.format('mask', 'onnx')),
    ('tapir', 'einshape', _BACKENDS.format('tracker', 'tapir')),
    (
      'beam',
      'apache_beam',
      'from drp_jax.data import engines; engines.run_beam(print, 1, "x", ())',
    ),
  ],
)
def test_without_a_package_its_extra_is_named(extra, package, code):
  """In a process that cannot import the package."""
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      f'import sys; sys.modules[{package!r}] = None; {code}',
    ],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  last = done.stderr.strip().splitlines()[-1]
  assert (
    done.returncode == 1
    and f"pip install -c constraints.txt '.[{extra}]'" in last
  ), last
  assert last.startswith('drp_jax.extras.MissingExtra: ')
  assert f'needs {package}, which' in last and f'drp_jax[{extra}]' in last


def test_what_is_there_is_not_complained_about():
  extras.require('This test', 'data', 'numpy', 'jax')


def test_the_models_need_no_extra():
  """With nothing but what `pip install .` brings."""
  packages = set().union(*map(_imported, _LIBRARY))
  code = (
    f'import sys; sys.modules |= dict.fromkeys({sorted(packages)!r});'
    ' from drp_jax import models; print([getattr(models, n) and n'
    ' for n in models.__all__])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0 and "'DAE'" in done.stdout, done.stderr
