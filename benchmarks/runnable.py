"""Which back-ends a benchmark can measure with the settings it was given."""

from collections.abc import Mapping
from typing import Any

from drp_jax.preprocess import backends

KINDS = {
  'flow': backends.FLOWS,
  'mask': backends.MASKS,
  'tracker': backends.TRACKERS,
}


def names(kind: str, settings: Mapping[str, Any]) -> list[str]:
  """Names of back-ends without weights, and of those whose paths are set.

  Args:
    kind: one of `KINDS`.
    settings: `config.extract`.
  """
  return [
    name
    for name in KINDS[kind]
    if name != 'sim'  # the truth itself, which real videos have not
    and all(value != '' for value in settings.get(name, {}).values())
  ]
