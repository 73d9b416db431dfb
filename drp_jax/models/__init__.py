"""Networks: flax.linen modules, pure functions of their parameters.

A module is imported when one of its names is asked for, so that `from drp_jax
import models` costs nothing. The package holds what two or more systems share
and all of DRP. Networks of one other system are in its own place, and offered
here by name: `models.DreamerV3Model`. Those that have the names of others are
in their own modules only: `drp_jax.systems.dreamerv3.rssm.RSSM`.
"""

import importlib
import pkgutil
from typing import Any

# Name -> the module that it is from, below `drp_jax`.
_NAMES = {
  'Adapter': 'models.adapter',
  'AtomicActionTokens': 'models.tokens',
  'CNNDecoder': 'systems.dreamerv2',
  'CNNEncoder': 'systems.dreamerv2',
  'DAE': 'models.dae',
  'Deconstruction': 'models.deconstruction',
  'DisWMModel': 'systems.diswm.networks',
  'DreamerV3Model': 'systems.dreamerv3.networks',
  'DualAttentionBlock': 'models.dae',
  'GlobalFlow': 'models.global_flow',
  'ImageDecoder': 'models.image_decoder',
  'ImageEncoder': 'models.image_encoder',
  'LatentActionModel': 'systems.prelar.networks',
  'MAEDecoder': 'models.mae_decoder',
  'MLPProjection': 'models.adapter',
  'PolicyHead': 'models.heads',
  'RSSM': 'models.rssm',
  'ScalarHead': 'models.heads',
  'SingleModel': 'systems.dreamerv2',
  'StackedModel': 'models.stacked_model',
}
_MODULES = tuple(module.name for module in pkgutil.iter_modules(__path__))

__all__ = sorted((*_NAMES, *_MODULES))


def __getattr__(name: str) -> Any:
  """Imports a network when it is first used (PEP 562)."""
  if name in _MODULES:
    return importlib.import_module(f'{__name__}.{name}')
  if name in _NAMES:
    module = importlib.import_module(f'drp_jax.{_NAMES[name]}')
    return getattr(module, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return __all__
