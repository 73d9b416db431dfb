"""Names the extra of setup.cfg that installs a missing package."""

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
    what: the part that needs them; begins the message.
    extra: name of the extra in setup.cfg.
    packages: names under which they are imported.

  Raises:
    MissingExtra: names the packages and the extra.
  """
  missing = [p for p in packages if importlib.util.find_spec(p) is None]
  if missing:
    raise _missing(what, extra, missing)


@contextlib.contextmanager
def brings(extra: str, what: str) -> Iterator[None]:
  """Names the extra if an import in this block does not find a package.

  Use it in modules whose folder also has modules with fewer requirements, which
  `require` in its `__init__` would block too.

  Args:
    extra: name of the extra in setup.cfg.
    what: the module that needs the packages; `__name__`.

  Raises:
    MissingExtra: names the package and the extra.
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
