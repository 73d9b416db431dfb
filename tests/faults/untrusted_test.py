"""No file that is read can bring code with it, or name where it is written."""

import ast
import pathlib

import pytest

_ROOT = pathlib.Path(__file__).parents[2]
_FILES = sorted(
  path
  for folder in ('drp_jax', 'experiments', 'benchmarks', 'configs')
  for path in (_ROOT / folder).rglob('*.py')
)
# Processes of our own send each other functions and answers.
_OWN_PIPES = (
  'drp_jax/envs/driver.py',
  'drp_jax/envs/worker.py',
  'drp_jax/preprocess/isolated.py',
)


def _calls(path):
  """(dotted name, keywords) of all calls in a file."""
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Call):
      keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
      yield ast.unparse(node.func), keywords


@pytest.mark.parametrize('path', _FILES, ids=lambda p: p.stem)
def test_what_is_loaded_is_data(path):
  for name, keywords in _calls(path):
    if name == 'torch.load':
      assert keywords.get('weights_only') == 'True'
    if name == 'np.load':
      assert keywords.get('allow_pickle', 'False') == 'False'
    if path.relative_to(_ROOT).as_posix() not in _OWN_PIPES:
      assert name.partition('.')[0] not in ('pickle', 'cloudpickle'), name
    assert name not in ('eval', 'exec')
    # Members of archives are read by exact name, and written where we say.
    assert name.rpartition('.')[2] not in ('extractall', 'unpack_archive')
