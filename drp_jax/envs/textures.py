"""Skies and floors for DMC Remastered.

We may not ship the original's 119 photos and 383 floors. Our set consists of
images in packages (labmaze, dm_control, metaworld, always of one version, so a
seed means the same scene everywhere; see `drp_jax.envs.texture_files`) and of
skies drawn by `procedural_sky`. A user's folder replaces it, with the layout of
the original's `dmc_remastered/assets`:

  <folder>/skies/**/*.png    any size, stretched to a square
  <folder>/floors/**/*.png   (also .jpg, .jpeg, .webp)

Files are used in the order of their sorted relative paths (T8).
"""

import dataclasses
import functools
import pathlib

import numpy as np
from PIL import Image

from drp_jax.envs import texture_files

NUM_PROCEDURAL_SKIES = 96  # in total about as many as DMCR's 119  [ours]

_SUFFIXES = ('.png', '.jpg', '.jpeg', '.webp')
_NOT_FLOORS = ('height1', 'real_door', 'tennis')  # objects and a height map


@dataclasses.dataclass(frozen=True)
class Textures:
  """Images for skies and floors.

  Attributes:
    skies: [N, S, S, 3] uint8, rows from the zenith down.
    floors: [M, S, S, 3] uint8.
  """

  skies: np.ndarray
  floors: np.ndarray


@functools.cache
def load(size: int, folder: str = '') -> Textures:
  """Loads and scales all textures; later calls return the same object.

  Args:
    size: S, side in texels.
    folder: the user's images, or '' for our own set.

  Returns:
    The textures.

  Raises:
    ValueError: `folder` lacks images of one kind, or an image cannot be read.
      Leaving it out would change the scenes of all seeds.
    RuntimeError: images of our own set are not installed and cannot be
      downloaded.
  """
  if folder:
    sky_files, floor_files = _files(folder, 'skies'), _files(folder, 'floors')
    skies = [_read(file, size) for file in sky_files]
  else:
    sky_files, floor_files, wall_files = texture_files.find(
      texture_files.LABMAZE
    )
    (skybox,), grass = texture_files.find(texture_files.DM_CONTROL)
    metaworld = sum(texture_files.find(texture_files.METAWORLD), [])
    skies = [_read(file, size) for file in sky_files]
    skies += _cross_sides(skybox, size)
    skies += [procedural_sky(i, size) for i in range(NUM_PROCEDURAL_SKIES)]
    floor_files += wall_files + grass
    floor_files += [file for file in metaworld if file.stem not in _NOT_FLOORS]
  floors = [_read(file, size) for file in floor_files]
  return Textures(np.stack(skies), np.stack(floors))


def procedural_sky(index: int, size: int) -> np.ndarray:
  """Draws a sky: a gradient of three colors, clouds, a sun, and hills.

  Args:
    index: number of the sky; the image is a function of `index` and `size`.
    size: S, side in texels.

  Returns:
    [S, S, 3] uint8.
  """
  rng = np.random.default_rng([index, 7])  # 7 makes a separate stream
  y, x = np.mgrid[:size, :size] / (size - 1)

  zenith, middle, horizon, cloud, sun = rng.uniform(0, 1, [5, 3])
  w = y[..., None] * 2
  image = np.where(
    w < 1, zenith + w * (middle - zenith), middle + (w - 1) * (horizon - middle)
  )

  cover = np.clip(3 * (_noise(rng, size, 3) - rng.uniform(0.4, 0.8)), 0, 1)
  image += cover[..., None] * (cloud - image)

  center, radius = rng.uniform([0, 0], [1, 0.6]), rng.uniform(0.03, 0.2)
  distance = np.hypot(x - center[0], y - center[1])
  image += np.exp(-((distance / radius) ** 2))[..., None] * (sun - image)

  for base in np.sort(rng.uniform(0.4, 0.95, rng.integers(0, 4))):
    ridge = base + 0.4 * (_noise(rng, size, 2)[0] - 0.5)  # [S], its height
    color = rng.uniform(0, 1, 3) * rng.uniform(0.3, 1)
    shade = 0.7 + 0.6 * _noise(rng, size, 8)
    image = np.where((y > ridge)[..., None], color * shade[..., None], image)
  return (255 * np.clip(image, 0, 1)).astype(np.uint8)


def _noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
  """Draws smooth noise of four octaves, from `cells` on; [S, S] in [0, 1]."""
  total, weight = np.zeros([size, size]), 0.0
  for octave in range(4):
    side = cells * 2**octave + 1
    coarse = rng.uniform(0, 1, [side, side]).astype(np.float32)
    image = Image.fromarray(coarse).resize(
      [size, size], Image.Resampling.BICUBIC
    )
    total += np.asarray(image) / 2**octave
    weight += 1 / 2**octave
  return np.clip(total / weight, 0, 1)


def _read(file: pathlib.Path, size: int) -> np.ndarray:
  try:
    if not file.is_file():  # a dangling link; reading a pipe would block
      raise FileNotFoundError('no regular file')
    with Image.open(file) as image:
      return _scale(image, size)
  except Exception as error:  # decoders raise all sorts for a broken file
    raise ValueError(
      f'config.env.texture_folder: {str(file)!r} cannot be read as an image'
      f' ({type(error).__name__}: {error}). Replace it, or remove it; without'
      ' it every seed has another scene.'
    ) from error


def _scale(image: Image.Image, size: int) -> np.ndarray:
  image = image.convert('RGBA').convert('RGB')  # palettes warn when in one go
  return np.asarray(
    image.resize([size, size], Image.Resampling.BOX, reducing_gap=2.0)
  )


def _cross_sides(file: pathlib.Path, size: int) -> list[np.ndarray]:
  """Cuts the four sides out of a sky box stored as a cross of 4x3 squares."""
  image = Image.open(file)
  side = image.width // 4
  boxes = [(i * side, side, (i + 1) * side, 2 * side) for i in range(4)]
  return [_scale(image.crop(box), size) for box in boxes]


def _files(folder: str, kind: str) -> list[pathlib.Path]:
  root = pathlib.Path(folder) / kind
  files = [
    file
    for file in root.rglob('*')
    if file.suffix.lower() in _SUFFIXES and not file.is_dir()
  ]
  if not files:
    raise ValueError(
      f'config.env.texture_folder={folder!r} has no images in {kind}/; allowed '
      f'are {", ".join(_SUFFIXES)}.'
    )
  return sorted(files, key=lambda file: file.relative_to(root).as_posix())
