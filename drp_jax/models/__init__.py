"""Networks: flax.linen modules, pure functions of their parameters.

A module of this package is imported when one of its names is asked for, so that
`from drp_jax import models` costs nothing. Networks of DreamerV3 and DisWM that
have the names of others are in their own modules, `models.dreamerv3_rssm.RSSM`.
"""

import importlib
import pkgutil
from typing import Any

# Name -> the module that it is from.
_NAMES = {
  'Adapter': 'adapter',
  'AtomicActionTokens': 'tokens',
  'CNNDecoder': 'cnn',
  'CNNEncoder': 'cnn',
  'DAE': 'dae',
  'Deconstruction': 'deconstruction',
  'DisWMModel': 'diswm_model',
  'DreamerV3Model': 'dreamerv3_model',
  'DualAttentionBlock': 'dae',
  'GlobalFlow': 'global_flow',
  'ImageDecoder': 'image_decoder',
  'ImageEncoder': 'image_encoder',
  'LatentActionModel': 'latent_action_model',
  'MAEDecoder': 'mae_decoder',
  'MLPProjection': 'adapter',
  'PolicyHead': 'heads',
  'RSSM': 'rssm',
  'ScalarHead': 'heads',
  'SingleModel': 'single_model',
  'StackedModel': 'stacked_model',
}
_MODULES = tuple(module.name for module in pkgutil.iter_modules(__path__))

__all__ = sorted((*_NAMES, *_MODULES))


def __getattr__(name: str) -> Any:
  """Imports a network when it is first used (PEP 562)."""
  if name in _MODULES:
    return importlib.import_module(f'{__name__}.{name}')
  if name in _NAMES:
    module = importlib.import_module(f'{__name__}.{_NAMES[name]}')
    return getattr(module, name)
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return __all__
