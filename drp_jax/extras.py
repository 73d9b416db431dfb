"""Names the extra of setup.cfg that brings a package which is not installed."""

import contextlib
import importlib.util
import sys
from collections.abc import Iterator

# dm_control requires labmaze, which has no wheel for newer Pythons. Only its
# mazes, which we do not use, import it. setup.cfg lists its other requirements.
_LAST_WITH_LABMAZE = (3, 12)


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
    raise _missing(what, extra, missing)


@contextlib.contextmanager
def brings(extra: str, what: str) -> Iterator[None]:
  """Names the extra if an import in this block finds a package missing.

  For files of a package that has lighter files beside them, which `require` in
  its `__init__` would close too.

  Args:
    extra: of setup.cfg.
    what: needs the packages; `__name__`.

  Raises:
    MissingExtra: naming the package and the extra.
  """
  try:
    yield
  except MissingExtra:
    raise
  except ModuleNotFoundError as error:
    package = (error.name or '').partition('.')[0]
    raise _missing(what, extra, [package]) from error


def _missing(what: str, extra: str, packages: list[str]) -> MissingExtra:
  pip = 'pip install -c constraints.txt'
  command = f"{pip} '.[{extra}]'"
  if 'dm_control' in packages and sys.version_info[:2] > _LAST_WITH_LABMAZE:
    command += f' && {pip} --no-deps dm_control'
  return MissingExtra(
    f'{what} needs {", ".join(packages)}, which is not installed. The extra'
    f' drp_jax[{extra}] brings it; in the folder of the project: {command}'
  )
