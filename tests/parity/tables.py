"""Tables of differences, and golden arrays."""

import importlib.metadata
import json
import pathlib
import subprocess
from collections.abc import Iterable
from typing import Any

import numpy as np

from tests.parity import arguments
from tests.parity import contextwm_ours as ours

TOLERANCE = 1e-4  # of an array's largest value
_LARGEST_MOVED = 300  # numbers of an array whose moves are kept

Table = Iterable[tuple[str, Iterable[tuple[str, float]]]]


def report(sizes: arguments.Sizes, table: Table) -> float:
  """Prints a table.

  Args:
    sizes: of what was compared, printed above the table.
    table: rows, each with its arrays' names and differences.

  Returns:
    The largest difference of all.
  """
  worst = 0.0
  print(sizes)
  print(f'{"what":58} largest difference')
  for row, pairs in table:
    name, largest = max(pairs, key=lambda pair: pair[1])
    worst = max(worst, largest)
    print(f'{row:58} {largest:.1e} {name}')
  print(f'largest {worst:.1e}, allowed {TOLERANCE:.0e}')
  return worst


def write(
  path: pathlib.Path,
  checkout: pathlib.Path,
  cases: dict[str, Any],
  worst: float,
  about: dict[str, str],
  packages: tuple[str, ...] = ('torch', 'jax'),
) -> None:
  """Writes golden arrays, and where they are from.

  Args:
    path: of the JSON file; arrays lie beside it.
    checkout: of the original.
    cases: by system.
    worst: largest difference of all.
    about: what the original is, and how the arrays were made.
    packages: whose versions are written down.
  """
  folder = path.parent
  folder.mkdir(parents=True, exist_ok=True)
  for agent, case in cases.items():
    for row, arrays in case['rows'].items():
      if row.startswith('optimizer'):  # large ones move as small ones do
        case['rows'][row] = {
          name: x for name, x in arrays.items() if x.size <= _LARGEST_MOVED
        }
    np.savez_compressed(folder / f'{agent}.npz', **ours.pack(case))
  commit = subprocess.run(
    ['git', 'rev-parse', 'HEAD'],
    cwd=checkout,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()
  about = {
    **about,
    'commit': commit,
    **{name: importlib.metadata.version(name) for name in packages},
    'largest_difference': float(f'{worst:.1e}'),
  }
  path.write_text(json.dumps(about, indent=2) + '\n')
