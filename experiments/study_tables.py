"""Tables of a study, beside the paper's numbers if it prints them."""

from collections.abc import Sequence

import numpy as np

from configs.studies import printed, systems
from drp_jax.viz import report
from experiments import study_results

_DASH = '-'

Results = Sequence[study_results.Result]


def tables(
  name: str, places: Sequence[tuple[str, str]], results: Results
) -> list[report.Table]:
  """Makes tables of scores; Tables 1 to 4 show the paper's beside ours.

  Args:
    name: name of the study.
    places: system and task of every cell, in order.
    results: results of one preset.
  """
  known = printed.TABLES.get(name, {})
  places = (*known, *places)
  tasks = tuple(dict.fromkeys(task for _, task in places))
  columns = ['paper'] if known else []
  columns += ['ours', f'last {study_results.LAST}', 'seeds']
  header = [
    'system',
    *(f'{study_results.task_title(t)}: {c}' for t in tasks for c in columns),
  ]
  rows = []
  for system in dict.fromkeys(system for system, _ in places):
    row = [systems.SYSTEMS[system].label]
    for task in tasks:
      if known:
        row.append(_paper_cell(known.get((system, task))))
      row += _our_cells(_complete(results, system, task))
    rows.append(row)
  found = [
    report.Table(
      header,
      rows,
      'Scores, mean ± standard deviation over seeds; - is not run.',
    )
  ]
  if name == 'table1':
    found.append(_drops(tasks, results))
  return found


def _drops(tasks: Sequence[str], results: Results) -> report.Table:
  """Computes how much the systems lose without their dynamics model."""
  rows = []
  for (whole, without), drops in printed.DROPS.items():
    row = [systems.SYSTEMS[without].label]
    for task in tasks:
      row.append(f'{drops[task]:.1f} %' if task in drops else _DASH)
      pair = [
        [result.score for result in _complete(results, system, task)]
        for system in (whole, without)
      ]
      row.append(
        f'{100 * (1 - np.mean(pair[1]) / np.mean(pair[0])):.1f} %'
        if all(pair)
        else _DASH
      )
    rows.append(row)
  header = [
    f'{study_results.task_title(t)}: {who}'
    for t in tasks
    for who in ('paper', 'ours')
  ]
  return report.Table(
    ['system', *header], rows, 'Δ dyn.: decrease of the mean score.'
  )


def _paper_cell(number: tuple[float, float] | None) -> str:
  return f'{number[0]} ± {number[1]}' if number else _DASH


def _our_cells(results: Results) -> list[str]:
  if not results:
    return [_DASH, _DASH, _DASH]
  cells = []
  for scores in (
    [result.score for result in results],
    [result.smooth_score for result in results],
  ):
    spread = f' ± {np.std(scores):.0f}' if len(scores) > 1 else ''
    cells.append(f'{np.mean(scores):.0f}{spread}')
  return [*cells, str(len(results))]


def _complete(
  results: Results, system: str, task: str
) -> list[study_results.Result]:
  return [
    result
    for result in results
    if result.complete and (result.system, result.task) == (system, task)
  ]
