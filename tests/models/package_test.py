"""What `from drp_jax import models` offers, and what it costs."""

import importlib
import pathlib
import re
import subprocess
import sys

import flax.linen as nn
import pytest

from drp_jax import models

_ROOT = pathlib.Path(__file__).parents[2]


def _run(code):
  done = subprocess.run(
    [sys.executable, '-c', code],
    cwd=_ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout.splitlines()


def test_the_example_of_the_readme_runs_as_printed():
  text = (_ROOT / 'README.md').read_text('utf-8')
  (code,) = re.findall(r'```python\n(.*?)```', text, re.DOTALL)
  assert 'from drp_jax import models' in code
  assert _run(
    f'{code}\n'
    'import sys\n'
    'print(a_agg.shape, local.shape)\n'
    "print({'torch', 'tensorflow', 'cv2', 'grain'} & sys.modules.keys())"
  ) == ['(1, 25, 256) (1, 25, 16, 256)', 'set()']


def test_nothing_is_imported_before_it_is_asked_for():
  assert _run(
    'import sys\n'
    'from drp_jax import models\n'
    "print('flax' in sys.modules, 'DAE' in dir(models))\n"
    'models.DAE, models.rssm.RSSM\n'
    "print('drp_jax.models.adapter' in sys.modules)"
  ) == ['False True', 'False']


def test_every_name_is_there():
  assert set(models.__all__) >= {'DAE', 'MAEDecoder', 'RSSM', 'Adapter', 'dae'}
  # Networks of one system alone, which lie in its own place.
  assert set(models.__all__) >= {
    *('CNNDecoder', 'CNNEncoder', 'DisWMModel', 'DreamerV3Model'),
    *('LatentActionModel', 'SingleModel'),
  }
  for name in models.__all__:
    found = getattr(models, name)
    if name[0].isupper():
      assert issubclass(found, nn.Module) and found.__name__ == name
    else:
      assert found is importlib.import_module(f'drp_jax.models.{name}')


def test_what_is_not_there_is_an_attribute_error():
  with pytest.raises(AttributeError, match="no attribute 'DAEE'"):
    _ = models.DAEE
  with pytest.raises(ImportError, match='DAEE'):
    from drp_jax.models import DAEE  # noqa: F401
