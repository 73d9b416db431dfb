"""The official ContextWM code, imported with little more than torch."""

import pathlib
import subprocess
import sys

import bare
import pytest

pytest.importorskip('torch')

_ROOT = pathlib.Path(__file__).parents[1]
_WMLIB = """
import kornia
import torchvision.transforms as T
from torch.optim.lr_scheduler import _LRScheduler
from torchtyping import TensorType, patch_typeguard
from typeguard import typechecked

@typechecked
def double(x: TensorType['batch', 'time']) -> TensorType['batch']:
  return 2 * x

def crop():
  return kornia.augmentation.RandomCrop(3)

def flip():
  return T.RandomHorizontalFlip()

class Constant(_LRScheduler):
  def __init__(self, optimizer):
    super().__init__(optimizer, -1, False)

  def get_lr(self):
    return [0.5]
"""
_SETTINGS = """
defaults:
  lr: 1e-4
  steps: 1e8
  wd: 2.5e-6
  size: 64
  minus: -1
  half: .5
  sizes: [3, 4]
  name: none
  task: 0_walk
  debug: True
"""
_USE = """
import pathlib, sys
from third_party import contextwm_imports
checkout = pathlib.Path(sys.argv[1])
contextwm_imports.prepare(checkout)
contextwm_imports.prepare(checkout)
import torch, wmlib
assert wmlib.double(torch.ones(1)) == 2
uses = (wmlib.crop, 'kornia.augmentation'), (wmlib.flip, 'Horizontal')
for use, name in uses:
  try:
    use()
  except ImportError as error:
    assert name in str(error) and 'is not installed' in str(error), error
  else:
    raise AssertionError(name)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 1.0)
wmlib.Constant(optimizer)
assert optimizer.param_groups[0]['lr'] == 0.5
print(contextwm_imports.read_settings(checkout / 'settings.yaml')['defaults'])
"""


def test_a_checkout_without_what_it_imports(tmp_path):
  checkout = tmp_path / 'checkout'
  (checkout / 'wmlib').mkdir(parents=True)
  (checkout / 'wmlib' / '__init__.py').write_text(_WMLIB)
  (checkout / 'settings.yaml').write_text(_SETTINGS)
  done = subprocess.run(
    [sys.executable, '-c', _USE, str(checkout)],
    cwd=_ROOT,
    env=bare.environment(tmp_path, *bare.TORCH),
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-3000:]
  assert eval(done.stdout) == {
    'lr': 1e-4,
    'steps': 1e8,
    'wd': 2.5e-6,
    'size': 64,
    'minus': -1,
    'half': 0.5,
    'sizes': [3, 4],
    'name': 'none',
    'task': '0_walk',
    'debug': True,
  }


def test_a_folder_without_the_code_is_an_error(tmp_path):
  from third_party import contextwm_imports

  with pytest.raises(ValueError, match='holds no wmlib'):
    contextwm_imports.prepare(tmp_path)
