"""Lists the back-ends that a benchmark can measure with its settings."""

from collections.abc import Mapping
from typing import Any

from drp_jax.preprocess import backends

KINDS = {
  'flow': backends.FLOWS,
  'mask': backends.MASKS,
  'tracker': backends.TRACKERS,
}


def names(kind: str, settings: Mapping[str, Any]) -> list[str]:
  """Lists back-ends without weights, and those whose paths are set.

  Args:
    kind: one of `KINDS`.
    settings: `config.extract`.
  """
  return [
    name
    for name in KINDS[kind]
    if name != 'sim'  # the truth itself, which real videos lack
    and all(value != '' for value in settings.get(name, {}).values())
  ]
