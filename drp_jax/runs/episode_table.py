"""The record of evaluations: one row per episode, `eval.csv` in the workdir.

Survives a kill at any moment: the rows of an evaluation are appended in one
write, and `resume` takes back what a restarted run will write again. A row that
is damaged on the disk keeps its bytes, and readers leave it out with a warning.
"""

import csv
import io
import logging
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from drp_jax import files

FILE = 'eval.csv'
COLUMNS = (
  'step',  # agent steps taken before
  'env_step',  # control steps of the environment
  'episode',  # 0, 1, ...; the same number has the same seed every time
  'seed',  # of the environment
  'return',  # sum of rewards
  'success',  # 1 if the task was solved at any step, else 0
  'length',  # agent steps of the episode
)


_log = logging.getLogger(__name__)

# The columns that are whole numbers.
_COUNTS = ('step', 'env_step', 'episode', 'seed', 'length')


def append(workdir: pathlib.Path, rows: Iterable[Mapping[str, Any]]) -> None:
  """Appends rows with all of `COLUMNS`."""
  descriptor = os.open(workdir / FILE, os.O_WRONLY | os.O_APPEND)
  try:
    os.write(descriptor, _encode(rows))
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def resume(workdir: pathlib.Path, step: int) -> None:
  """Makes the file, or drops the rows of it that a restarted run repeats.

  Args:
    workdir: of the run.
    step: agent steps of the checkpoint the run goes on from; -1 drops all.
  """
  path = workdir / FILE
  kept = _encode([dict(zip(COLUMNS, COLUMNS, strict=True))])
  if step >= 0:
    for line in _lines(path):
      row = _row(line)
      if row is None or int(row['step']) <= step:
        kept += line + b'\n'
  files.write(path, kept)


def read(workdir: pathlib.Path) -> list[dict[str, str]]:
  """Reads all rows, but not a last one that a kill has torn.

  Rows that are damaged are left out with a warning.
  """
  path = workdir / FILE
  rows = []
  for number, line in enumerate(_lines(path), 2):  # below the header
    row = _row(line)
    if row is None:
      _log.warning(
        '%s, line %d is damaged and left out: %r', path, number, line[:200]
      )
    else:
      rows.append(row)
  return rows


def _lines(path: pathlib.Path) -> list[bytes]:
  """The lines below the header; none if there is no file."""
  return path.read_bytes().split(b'\n')[1:-1] if path.exists() else []


def _row(line: bytes) -> dict[str, str] | None:
  """Reads a row; None if it is damaged."""
  values = line.decode('utf-8', 'replace').split(',')
  row = dict(zip(COLUMNS, values, strict=False))
  try:
    for name in COLUMNS:
      number = float(row[name])
      if name in _COUNTS and (number < 0 or int(row[name]) != number):
        return None
  except (KeyError, ValueError):
    return None
  return row if len(values) == len(COLUMNS) else None


def _encode(rows: Iterable[Mapping[str, Any]]) -> bytes:
  text = io.StringIO()
  writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
  writer.writerows(rows)
  return text.getvalue().encode('utf-8')
