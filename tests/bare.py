"""A machine with what `pip install .` brings, and nothing of extras."""

import os
import pathlib

_ROOT = pathlib.Path(__file__).parents[1]

# First what setup.cfg names, then what that imports.
PACKAGES = (
  *('chex', 'flax', 'jax', 'jaxlib', 'ml_collections', 'numpy', 'optax'),
  *('absl', 'ml_dtypes', 'msgpack', 'opt_einsum', 'rich', 'scipy', 'toolz'),
  *('typing_extensions', 'yaml', '_yaml'),
)

# Of extras, and what they import.
ORBAX = (
  *('orbax', 'tensorstore', 'etils', 'humanize', 'nest_asyncio', 'fsspec'),
  *(
    'google',
    'aiofiles',
    'simplejson',
    'psutil',
    'importlib_resources',
    'zipp',
  ),
)
TORCH = (
  *('torch', 'torchgen', 'functorch', 'sympy', 'mpmath', 'networkx', 'jinja2'),
  *('markupsafe', 'filelock', 'fsspec', 'setuptools'),
)

_HOOK = """
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
  @classmethod
  def find_spec(cls, name, path=None, target=None):
    spec = super().find_spec(name, path, target)
    if spec is None or path is not None or name in {packages}:
      return spec
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    if any('site-packages' in str(place) for place in places):
      return None
    return spec

sys.meta_path[:] = [
  Finder if finder is importlib.machinery.PathFinder else finder
  for finder in sys.meta_path
]
"""


def environment(folder: pathlib.Path, *more: str) -> dict[str, str]:
  """Environment variables of processes on such a machine.

  Args:
    folder: for a file that Python runs at every start.
    *more: packages that are installed as well.
  """
  hook = _HOOK.format(packages={*PACKAGES, *more})
  (folder / 'sitecustomize.py').write_text(hook)
  path = os.pathsep.join([str(folder), str(_ROOT)])
  return {**os.environ, 'PYTHONPATH': path}
