"""Loads what official code computed, and compares our results with it."""

import functools
import pathlib

import jax
import numpy as np

from tests.parity import contextwm_ours

TOLERANCE = 1e-4  # of the largest value of each array
# Of gradients: on another machine, a ReLU may fall to the other side.
_GRADIENT_TOLERANCE = 1e-3
_FOLDER = pathlib.Path(__file__).parent / 'golden'


@functools.cache
def case(name):
  """Reads weights, inputs and rows of `tests/golden/<name>.npz`."""
  with np.load(_FOLDER / f'{name}.npz') as file:
    return contextwm_ours.unpack(dict(file))


def check(name, found, as_ours):
  """Compares rows: all arrays, of moves those that are kept.

  Args:
    name: of the file.
    found: row -> tree of arrays, by our code.
    as_ours: turns a row of the file into such a tree.
  """
  for row, arrays in found.items():
    expected = as_ours(case(name)['rows'][row])
    if not row.startswith('optimizer'):
      assert jax.tree.structure(arrays) == jax.tree.structure(expected), row
    limit = _GRADIENT_TOLERANCE if 'gradients' in row else TOLERANCE
    for array, difference in contextwm_ours.differences(arrays, expected):
      assert difference < limit, f'{name}, {row}: {array} by {difference:.1e}'
