"""Lists all systems by name, and builds the one that a config names."""

import ml_collections

from drp_jax.runs import limits
from drp_jax.systems import definition, dreamerv2, ipv, parts
from drp_jax.systems.diswm import diswm
from drp_jax.systems.dreamerv3 import dreamerv3
from drp_jax.systems.drp import drp
from drp_jax.systems.prelar import prelar

# `config.agent` names the system.
SYSTEMS: dict[str, definition.Definition] = {
  'drp': drp.DEFINITION,
  'ipv': ipv.DEFINITION,
  'apv': ipv.DEFINITION,  # without contexts
  'dreamerv2': dreamerv2.DEFINITION,
  'dreamerv3': dreamerv3.DEFINITION,
  'prelar': prelar.DEFINITION,
  'diswm': diswm.DEFINITION,
}


def build(
  config: ml_collections.ConfigDict,
  action_size: int,
  axis_name: str | None,
) -> definition.Built:
  """Builds the system that `config.agent` names, and all a loop needs of it.

  Args:
    config: configs/base.py.
    action_size: A; any positive number serves pre-training.
    axis_name: device axis of the training step, or None.

  Raises:
    ValueError: for an unknown name, and for values that do not fit each other;
      names the key.
  """
  _check_values(config, 'config')
  built = SYSTEMS[config.agent].build(config, action_size, axis_name)
  if config.init_from and not built.system.pretrained:
    raise ValueError(
      f'config.agent={config.agent!r} has no pre-training, so there is nothing'
      f' to load from config.init_from={config.init_from!r}.'
    )
  return built


def check(config: ml_collections.ConfigDict, prefix: str = 'config') -> None:
  """Checks all settings of a run, before it writes or loads anything.

  Args:
    config: configs/base.py.
    prefix: stands before the key in errors.

  Raises:
    ValueError: for unknown names, impossible numbers and values that do not fit
      each other; names the key, the value and what is allowed.
  """
  _check_values(config, prefix)
  # What leaves everything out needs nothing to leave it out of (E6).
  pretrained = build(config, 1, None).system.pretrained
  none = pretrained and set(pretrained) <= set(config.init_without)
  for key in ('init_without', 'init_zero'):
    if config[key] and not config.init_from and not none:
      raise ValueError(
        f'{prefix}.{key}={config[key]} is about what is loaded, but'
        f" {prefix}.init_from='' must name a pre-training then."
      )


def ranges() -> dict[str, tuple[float, float]]:
  """Returns the ranges of all systems' own numbers."""
  found = {}
  for system in SYSTEMS.values():
    found |= system.ranges
  return found


def _check_values(config, prefix):
  choices = {'agent': tuple(SYSTEMS), 'compute_dtype': tuple(parts.DTYPES)}
  for system in SYSTEMS.values():
    choices |= system.choices
  values = dict(limits.leaves(config))
  for key, allowed in choices.items():
    if values[key] not in allowed:
      raise ValueError(
        f'{prefix}.{key}={values[key]!r} must be one of {allowed}.'
      )
  limits.check_run(config, prefix, ranges())
  for system in dict.fromkeys(SYSTEMS.values()):
    system.check(config, prefix)
