"""The record of evaluations: one row per episode, `eval.csv` in the workdir.

Survives a kill at any moment: the rows of an evaluation are appended in one
write, and `resume` takes back what a restarted run will write again.
"""

import csv
import io
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
  rows = read(workdir) if path.exists() else []
  header = dict(zip(COLUMNS, COLUMNS, strict=True))
  kept = [row for row in rows if int(row['step']) <= step]
  files.write(path, _encode([header, *kept]))


def read(workdir: pathlib.Path) -> list[dict[str, str]]:
  """Reads all rows, but not a last one that a kill has torn."""
  text = (workdir / FILE).read_text('utf-8')
  whole = text[: text.rfind('\n') + 1]
  return list(csv.DictReader(io.StringIO(whole)))


def _encode(rows: Iterable[Mapping[str, Any]]) -> bytes:
  text = io.StringIO()
  writer = csv.DictWriter(text, COLUMNS, lineterminator='\n')
  writer.writerows(rows)
  return text.getvalue().encode('utf-8')
