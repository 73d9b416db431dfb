"""Names the extra of setup.cfg that brings a package which is not installed."""

import importlib.util


class MissingExtra(ModuleNotFoundError, ValueError):
  """An extra of drp_jax is not installed."""


def require(what: str, extra: str, *packages: str) -> None:
  """Checks that packages of an extra are installed, without importing them.

  Args:
    what: needs them; begins the message.
    extra: of setup.cfg.
    packages: as they are imported.

  Raises:
    MissingExtra: naming the packages and the extra.
  """
  missing = [p for p in packages if importlib.util.find_spec(p) is None]
  if missing:
    raise MissingExtra(
      f'{what} needs {", ".join(missing)}, which is not installed. The extra'
      f' drp_jax[{extra}] brings it; in the folder of the project:'
      f" pip install -c constraints.txt '.[{extra}]'"
    )
