"""Stand-ins for what official code imports and does not need."""

import importlib
import importlib.util
import sys

import pytest

pytest.importorskip('torch')

from third_party import contextwm_imports  # noqa: E402


def test_logs_go_nowhere(monkeypatch):
  """DisWM logs whatever it computes; nothing else of wandb is there."""
  monkeypatch.delitem(sys.modules, 'wandb', raising=False)
  if importlib.util.find_spec('wandb'):
    pytest.skip('wandb is installed.')
  contextwm_imports.stand_in('wandb')
  try:
    import wandb

    wandb.log({'loss': 1.0})
    with pytest.raises(ImportError, match='wandb.init, but wandb is not inst'):
      wandb.init()
  finally:
    sys.modules.pop('wandb', None)


def test_what_is_installed_stays():
  before = sys.modules['pytest']
  contextwm_imports.stand_in('pytest', 'tomllib')
  assert sys.modules['pytest'] is before
  assert hasattr(importlib.import_module('tomllib'), 'loads')


def test_numbers_in_settings_are_those_of_yaml_1_2(tmp_path):
  path = tmp_path / 'settings.yaml'
  path.write_text('defaults: {lr: 1e-4, steps: 1e8, size: 64, task: 0_walk}')
  found = contextwm_imports.read_settings(path)['defaults']
  assert found == dict(lr=1e-4, steps=1e8, size=64, task='0_walk')
  assert type(found['size']) is int


def test_a_folder_without_the_code_is_an_error(tmp_path):
  with pytest.raises(ValueError, match='holds no wmlib'):
    contextwm_imports.prepare(tmp_path)
