"""Which values of a config are possible, before anything is made of them.

`ranges.py` has the smallest and the largest value of every number, and here is
what several numbers have to do with each other. What has to be one of several
names, and the numbers of one system alone, are checked by
`systems/registry.py`.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from drp_jax.runs import ranges

Ranges = Mapping[str, tuple[float, float]]


def check(
  config: ml_collections.ConfigDict,
  table: Ranges,
  prefix: str = 'config',
) -> None:
  """Checks that every number of a config is finite and in its range.

  Args:
    config: any config. Rows of `table` that it lacks are not looked at, since
      older runs have configs with fewer keys.
    table: of `ranges.py`: key to smallest and largest value.
    prefix: stands before the key in errors.

  Raises:
    ValueError: naming the key, its value and what is possible.
  """
  for key, value in leaves(config):
    numbers = value if isinstance(value, tuple | list) else (value,)
    if key not in table and not any(isinstance(x, float) for x in numbers):
      continue  # names, switches, folders
    low, high = table.get(key, (-math.inf, math.inf))
    named = f'{prefix}.{key}={value!r}'
    for number in numbers:
      # A config takes None, and True for an integer, whatever its type is.
      if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f'{named} must be a number.')
      # Not `number < low or number > high`, which is false for NaN.
      if not low <= number <= high or math.isinf(number):
        raise ValueError(f'{named} must be {_allowed(low, high)}.')


def check_run(
  config: ml_collections.ConfigDict,
  prefix: str = 'config',
  systems: Ranges | None = None,
) -> None:
  """Checks every number of configs/base.py, and what fits together.

  Args:
    config: configs/base.py.
    prefix: stands before the key in errors.
    systems: ranges of the numbers that systems have (`registry.ranges`); None
      for commands that build no system.

  Raises:
    ValueError: as `check`.
  """
  check(config, {**ranges.BASE, **(systems or {})}, prefix)
  _check_colors(config, prefix)
  c, named = config, Named(config, prefix)
  if 2 * c.image.depth % c.image.num_heads:
    raise ValueError(
      f'{named("image.num_heads")} must divide twice {named("image.depth")}.'
    )
  for key, limit in (
    ('intrinsic.neighbours', 'intrinsic.queue_size'),
    ('replay.segment_length', 'replay.capacity'),
  ):
    if named.value(key) > named.value(limit):
      raise ValueError(f'{named(key)} must not exceed {named(limit)}.')
  T = c.replay.segment_length
  if T <= c.intrinsic.window:
    raise ValueError(
      f'{named("replay.segment_length")} must exceed'
      f' {named("intrinsic.window")}.'
    )


def check_preprocessing(
  config: ml_collections.ConfigDict, prefix: str = 'config'
) -> None:
  """Checks every number of configs/preprocess.py, and what fits together.

  Args:
    config: configs/preprocess.py.
    prefix: stands before the key in errors.

  Raises:
    ValueError: as `check`.
  """
  check(config, ranges.PREPROCESS, prefix)
  _check_colors(config, prefix)
  named, T = Named(config, prefix), config.data.clip_length
  read = ['data.max_frames']
  if config.source in ('embedded', 'sim'):  # which render so many
    read.append(f'{config.source}.frames')
  for key in read:
    if named.value(key) < T:
      raise ValueError(
        f'{named(key)} must be at least {named("data.clip_length")}.'
      )
  if config.data.fps and config.source in ('frames', 'tfds', 'hdf5'):
    raise ValueError(
      f'{named("data.fps")} needs the times of frames, which'
      f' {named("source")} has not; it must be 0.'
    )
  back_ends = (config.extract[key] for key in ('flow', 'mask', 'tracker'))
  if config.data.fps and 'sim' in back_ends:
    raise ValueError(
      f"{named('data.fps')} must be 0 with the back-ends 'sim', which need"
      ' every frame of the simulator.'
    )


def leaves(
  config: Mapping[str, Any] | ml_collections.ConfigDict, parent: str = ''
) -> Iterator[tuple[str, Any]]:
  """Yields the dotted key and the value of every setting."""
  for name, value in config.items():
    if isinstance(value, Mapping | ml_collections.ConfigDict):
      yield from leaves(value, f'{parent}{name}.')
    else:
      yield parent + name, value


def _check_colors(config: ml_collections.ConfigDict, prefix: str) -> None:
  named = Named(config, prefix)
  for key in ('extract.onnx.mean', 'extract.onnx.scale'):
    if len(named.value(key)) != 3:
      raise ValueError(f'{named(key)} must be three numbers: of R, G and B.')


class Named:
  """Writes a setting as errors name it."""

  def __init__(self, config: ml_collections.ConfigDict, prefix: str):
    """Reads all settings.

    Args:
      config: any config.
      prefix: stands before the key.
    """
    self._values, self._prefix = dict(leaves(config)), prefix

  def value(self, key: str) -> Any:
    """Returns the value of a dotted key."""
    return self._values[key]

  def __call__(self, key: str) -> str:
    """Returns the key with its value, as on the command line."""
    return f'{self._prefix}.{key}={self.value(key)!r}'


def _allowed(low: float, high: float) -> str:
  if low == -math.inf:  # there is no row
    return 'finite'
  first, last = (x if isinstance(x, int) else f'{x:g}' for x in (low, high))
  return f'at least {first}' if last == 'inf' else f'in {first}..{last}'
