"""Makes the official ContextWM code importable in this environment.

`wmlib`, of ContextWM and of its descendant PreLAR, imports packages for
annotations (torchtyping, typeguard), for augmentations that the paper's
settings leave out (kornia, torchvision) and for logs (wandb). Where one of them
is not installed, a stand-in takes its place. Using the stand-in for more raises
an error. The learning-rate schedule of `wmlib` passes on an argument that torch
2.7 removed; the argument is dropped. Nothing in the checkout is changed.
"""

import importlib.machinery
import importlib.util
import inspect
import pathlib
import re
import sys
import types
from typing import Any

import torch
import yaml
from torch.optim import lr_scheduler

_ABSENT = ('kornia', 'torchtyping', 'torchvision', 'typeguard', 'wandb')

# Numbers such as 1e-4, which YAML 1.1 takes for text.
_FLOAT = re.compile(r'^[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$')


class _StandIn(types.ModuleType):
  """A module that is not installed, and that nothing is asked of."""

  def __init__(self, name: str):
    super().__init__(name)
    self.__spec__ = importlib.machinery.ModuleSpec(name, None)
    self.__path__ = []

  def __getattr__(self, name: str) -> Any:
    if name.startswith('__'):
      raise AttributeError(name)
    raise ImportError(
      f'The official code uses {self.__name__}.{name}, but {self.__name__} is'
      ' not installed.'
    )


class _TensorType:
  """Of torchtyping: `TensorType['batch', 'time']` in annotations."""

  def __class_getitem__(cls, shape: Any) -> type:
    del shape
    return torch.Tensor


def prepare(checkout: pathlib.Path) -> None:
  """Lets `import wmlib` find the checkout and what it imports.

  Args:
    checkout: of github.com/thuml/ContextWM, or of PreLAR.

  Raises:
    ValueError: if it holds no wmlib.
  """
  if not (checkout / 'wmlib').is_dir():
    raise ValueError(f'--checkout={str(checkout)!r} holds no wmlib.')
  if str(checkout) not in sys.path:
    sys.path.insert(0, str(checkout))
  stand_in(*_ABSENT)
  scheduler = lr_scheduler._LRScheduler
  if 'verbose' not in inspect.signature(scheduler.__init__).parameters:
    lr_scheduler._LRScheduler = _with_verbose(scheduler)


def stand_in(*names: str) -> None:
  """Puts stand-ins in place of those packages that are not installed."""
  for name in names:
    if name not in sys.modules and importlib.util.find_spec(name) is None:
      _stand_in(name)


def _stand_in(name: str) -> None:
  module = sys.modules[name] = _StandIn(name)
  if name == 'torchtyping':
    module.TensorType = _TensorType
    module.patch_typeguard = lambda: None
  elif name == 'typeguard':
    module.typechecked = lambda function: function
  elif name == 'torchvision':
    module.transforms = _StandIn('torchvision.transforms')
    sys.modules['torchvision.transforms'] = module.transforms
  elif name == 'wandb':
    module.log = lambda values: values


def _with_verbose(scheduler: type) -> type:
  class LRScheduler(scheduler):
    def __init__(self, optimizer, last_epoch=-1, verbose=False):
      del verbose
      super().__init__(optimizer, last_epoch)

  return LRScheduler


def read_settings(path: pathlib.Path) -> dict[str, Any]:
  """Reads a YAML file of a checkout as its own reader (YAML 1.2) does."""

  class Loader(yaml.SafeLoader):
    pass

  Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in found if 'float' not in tag]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
  }
  # After whole numbers, which match too.
  Loader.add_implicit_resolver(
    'tag:yaml.org,2002:float', _FLOAT, list('-+.0123456789')
  )
  return yaml.load(path.read_text('utf-8'), Loader)
