"""Index file of the runs of a study, written beside them.

With it, results can be read without the settings that made them.
"""

import json
import pathlib
import re
from typing import Any

import ml_collections

from configs.studies import systems
from drp_jax import files
from experiments import study_runs

_FOLDER = 'index'


def write(study: ml_collections.ConfigDict, root: pathlib.Path) -> None:
  """Writes `index/<name>.json`, or updates its rows.

  Args:
    study: configs/studies/base.py.
    root: workdir of the study. Rows of the file that are not in this study,
      such as those of another preset, stay.
  """
  path = root / _FOLDER / f'{study.name}.json'
  path.parent.mkdir(parents=True, exist_ok=True)
  rows = {}
  if path.exists():
    rows = {_place(row): row for row in json.loads(path.read_text())['runs']}
  for cell in study_runs.cells(study):
    row = {
      'preset': cell.preset,
      'task': cell.task,
      'system': cell.system,
      'label': systems.SYSTEMS[cell.system].label,
      'seed': cell.seed,
      'folder': cell.run.folder,
    }
    rows[_place(row)] = row
  content = {
    'name': study.name,
    'title': study.title,
    'runs': list(rows.values()),
  }
  files.write_json(path, content)


def read(root: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the index files of all studies, in the order of their names."""
  return [
    json.loads(path.read_text('utf-8'))
    for path in sorted((root / _FOLDER).glob('*.json'), key=_natural)
  ]


def _natural(path: pathlib.Path) -> tuple[str, int, str]:
  """Sorts files of studies: fig4, fig5a, fig12."""
  word, number, rest = re.fullmatch(r'(\D*)(\d*)(.*)', path.stem).groups()
  return word, int(number or 0), rest


def _place(row: dict[str, Any]) -> tuple[Any, ...]:
  return row['preset'], row['task'], row['system'], row['seed']
