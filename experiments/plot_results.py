r"""Curves and tables of studies, beside the paper's numbers, on one page.

  python -m experiments.plot_results --workdir=runs/studies

reads the workdirs of the runs that experiments/study.py began there, finished
or not, and writes into `results/` below it, or into --out,

  report.html                  everything on one page, with nothing beside it
  <study>-<preset>*.png, .svg  its pictures
  <study>_evaluations.csv      one row per run and evaluation
  <study>_scores.csv           one row per run

A score is that of a run's last evaluation, the mean of its episodes; beside it
stands the mean of the last three evaluations (E8). Only runs that came to their
end have one. Standard deviations are over seeds.
"""

import csv
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags
from matplotlib import figure

from configs.studies import paper, systems, table1, table2, table3, table4
from drp_jax.viz import learning_curves, plot_style, report
from experiments import (
  launch,
  score_statistics,
  study_index,
  study_results,
)

_DASH = '-'
_UNITS = {
  'dmc': 'episode return',
  'dmcr': 'episode return',
  'metaworld': 'success, %',
}
_TABLES = (table1, table2, table3, table4)

Results = Sequence[study_results.Result]


def write(root: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """Writes the page, the pictures and the CSV files.

  Args:
    root: workdir of studies.
    out: folder for them, made if missing.

  Returns:
    The path of the page.

  Raises:
    ValueError: if no study was begun in `root`.
  """
  studies = study_index.read(root)
  if not studies:
    raise ValueError(
      f'--workdir={str(root)!r} holds no study; experiments.study begins one.'
    )
  out.mkdir(parents=True, exist_ok=True)
  found = {study['name']: study_results.read(study, root) for study in studies}
  sections = [_summary(studies, found)]
  for study in studies:
    results = found[study['name']]
    _write_csvs(out, study['name'], results)
    for preset in dict.fromkeys(row['preset'] for row in study['runs']):
      rows = [row for row in study['runs'] if row['preset'] == preset]
      chosen = [result for result in results if result.preset == preset]
      sections.append(_study(study, preset, rows, chosen, out))
  sections += [
    _not_begun(module.get_config())
    for module in _TABLES
    if module.get_config().name not in found
  ]
  path = out / 'report.html'
  report.write_report(
    path,
    'drp_jax: studies',
    sections,
    "Every run that was evaluated, and the paper's numbers where it prints"
    ' them.',
  )
  return path


def _summary(
  studies: Sequence[Mapping[str, Any]], found: Mapping[str, Results]
) -> report.Section:
  rows = []
  for study in studies:
    results = found[study['name']]
    rows.append(
      (
        study['title'],
        ', '.join(dict.fromkeys(row['preset'] for row in study['runs'])),
        str(len(study['runs'])),
        str(len(results)),
        str(sum(result.complete for result in results)),
      )
    )
  return report.Section(
    'What there is',
    [
      report.Table(
        ['study', 'presets', 'fine-tunings', 'evaluated', 'complete'], rows
      ),
      report.Text(
        'Lines are means over seeds and bands one standard deviation, as in'
        ' the paper. A score is that of the last evaluation of a run that came'
        ' to its end, by the mean of its episodes; beside it stands the mean'
        f' of the last {study_results.LAST} evaluations. Of interquartile'
        ' means (IQM) and chances of improvement, intervals hold 95 % of a'
        ' bootstrap that draws seeds within each task.'
        "\n\nOnly the preset 'paper' can be compared with the paper's numbers."
      ),
    ],
  )


def _study(
  study: Mapping[str, Any],
  preset: str,
  rows: Sequence[Mapping[str, Any]],
  results: Results,
  out: pathlib.Path,
) -> report.Section:
  """Curves, intervals and table of one study at one preset."""
  name = f'{study["name"]}-{preset}'
  labels = tuple(dict.fromkeys(row['label'] for row in rows))
  tasks = tuple(dict.fromkeys(row['task'] for row in rows))
  items = []
  if results:
    panels = _panels(results, labels, tasks)
    fig = learning_curves.draw_curves(panels, labels, 'environment steps')
    items.append(
      _picture(
        fig,
        out / name,
        'Learning curves of every system on every task',
        'Mean and standard deviation over'
        f' {_seeds(results)}. A curve goes on while one of its runs does.',
      )
    )
  else:
    items.append(report.Text('No run was evaluated yet.'))
  items += _robust(results, labels, tasks, out / name)
  places = dict.fromkeys((row['system'], row['task']) for row in rows)
  items += _tables(study['name'], tuple(places), results)
  return report.Section(f'{study["title"]}, preset {preset}', items)


def _not_begun(study: ml_collections.ConfigDict) -> report.Section:
  places = [(s, t) for s in study.systems for t in study.tasks]
  return report.Section(
    study.title,
    [
      report.Text("Not begun here: the paper's numbers alone."),
      *_tables(study.name, places, []),
    ],
  )


def _panels(
  results: Results, labels: Sequence[str], tasks: Sequence[str]
) -> list[learning_curves.Panel]:
  """One a task, and their average where all are scored alike."""
  panels = [
    learning_curves.Panel(
      _task_title(task),
      _UNITS[task.partition('/')[0]],
      {
        label: _mean_and_std(*study_results.on_common_steps(chosen))
        for label in labels
        if (chosen := _chosen(results, label, task))
      },
    )
    for task in tasks
  ]
  suites = {task.partition('/')[0] for task in tasks}
  if len(tasks) > 1 and len(suites) == 1:
    averages = {}
    for label in labels:
      matrix = _matrix(_chosen(results, label), tasks)
      if matrix:
        averages[label] = _mean_and_std(*_averaged(matrix))
    panels.append(
      learning_curves.Panel('Average', _UNITS[suites.pop()], averages)
    )
  return panels


def _robust(
  results: Results,
  labels: Sequence[str],
  tasks: Sequence[str],
  path: pathlib.Path,
) -> list[report.Item]:
  """IQM along the curves and at their end, and chances of improvement.

  Of every suite by itself; of the systems with two seeds or more on all of its
  tasks.
  """
  panels, groups = [], []
  for suite in dict.fromkeys(task.partition('/')[0] for task in tasks):
    own = [task for task in tasks if task.startswith(f'{suite}/')]
    matrices = {
      label: _matrix(_chosen(results, label), own) for label in labels
    }
    curves = {
      label: _iqm_curve(matrix)
      for label, matrix in matrices.items()
      if len(matrix) > 1
    }
    name = f'{suite}, {len(own)} task{"s" if len(own) > 1 else ""}'
    if curves:
      panels.append(
        learning_curves.Panel(name, 'IQM of normalised scores', curves)
      )
    groups += _intervals(name, matrices, labels[0])
  items = []
  if panels:
    items.append(
      _picture(
        learning_curves.draw_curves(panels, labels, 'environment steps'),
        path.with_name(f'{path.name}-iqm'),
        'Interquartile means over steps, with intervals',
        'Interquartile mean over seeds and tasks with its 95 % interval, of'
        ' the seeds that were evaluated on all tasks, as far as all of them'
        ' have come. Scores are divided by the largest possible return;'
        ' success is from 0 to 1.',
      )
    )
  if groups:
    items.append(
      _picture(
        learning_curves.draw_intervals(groups, labels),
        path.with_name(f'{path.name}-intervals'),
        'Scores of complete runs with intervals',
        'Complete runs: interquartile mean of the last evaluation, and the'
        f' chance that a run of {labels[0]} scores higher than one of another'
        ' system, with 95 % intervals. Beyond the dashed line more often than'
        ' not.',
      )
    )
  return items


def _intervals(
  name: str,
  matrices: Mapping[str, Sequence[Results]],
  ours: str,
) -> list[learning_curves.Intervals]:
  scores = {}
  for label, matrix in matrices.items():
    whole = [row for row in matrix if all(result.complete for result in row)]
    if len(whole) > 1:
      scores[label] = np.array(
        [[result.normalised[-1] for result in row] for row in whole]
      )
  groups = []
  if scores:
    groups.append(
      learning_curves.Intervals(
        f'IQM, {name}',
        {label: score_statistics.iqm(x) for label, x in scores.items()},
      )
    )
  chances = {
    label: score_statistics.improvement(scores[ours], x)
    for label, x in scores.items()
    if ours in scores and label != ours
  }
  if chances:
    groups.append(
      learning_curves.Intervals(f'P({ours} better), {name}', chances, line=0.5)
    )
  return groups


def _tables(
  name: str, places: Sequence[tuple[str, str]], results: Results
) -> list[report.Table]:
  """Scores of every system and task; in Tables 1 to 4 beside the paper's.

  Args:
    name: of the study.
    places: system and task of every cell, in order.
    results: of one preset.
  """
  printed = paper.TABLES.get(name, {})
  places = (*printed, *places)
  tasks = tuple(dict.fromkeys(task for _, task in places))
  columns = ['paper'] if printed else []
  columns += ['ours', f'last {study_results.LAST}', 'seeds']
  header = [
    'system',
    *(f'{_task_title(t)}: {c}' for t in tasks for c in columns),
  ]
  rows = []
  for system in dict.fromkeys(system for system, _ in places):
    row = [systems.SYSTEMS[system].label]
    for task in tasks:
      if printed:
        row.append(_paper_cell(printed.get((system, task))))
      row += _our_cells(_complete(results, system, task))
    rows.append(row)
  tables = [
    report.Table(
      header,
      rows,
      'Scores, mean ± standard deviation over seeds; - is not run.',
    )
  ]
  if name == 'table1':
    tables.append(_drops(tasks, results))
  return tables


def _drops(tasks: Sequence[str], results: Results) -> report.Table:
  """By how much less the systems reach without their dynamics model."""
  rows = []
  for (whole, without), drops in paper.DROPS.items():
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
    f'{_task_title(t)}: {who}' for t in tasks for who in ('paper', 'ours')
  ]
  return report.Table(
    ['system', *header], rows, 'Δ dyn.: how far the mean score falls.'
  )


def _paper_cell(printed: tuple[float, float] | None) -> str:
  return f'{printed[0]} ± {printed[1]}' if printed else _DASH


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


def _chosen(
  results: Results, label: str, task: str | None = None
) -> list[study_results.Result]:
  return [
    result
    for result in results
    if result.label == label and task in (None, result.task)
  ]


def _complete(
  results: Results, system: str, task: str
) -> list[study_results.Result]:
  return [
    result
    for result in results
    if result.complete and (result.system, result.task) == (system, task)
  ]


def _matrix(results: Results, tasks: Sequence[str]) -> list[Results]:
  """Rows of one result per task, of the seeds that have them all."""
  by_seed = {}
  for result in results:
    by_seed.setdefault(result.seed, {})[result.task] = result
  return [
    [row[task] for task in tasks]
    for _, row in sorted(by_seed.items())
    if all(task in row for task in tasks)
  ]


def _averaged(matrix: Sequence[Results]) -> tuple[np.ndarray, np.ndarray]:
  """Steps [n] and means over tasks [seeds, n], where all tasks have values."""
  grid, values = study_results.on_common_steps(
    [result for row in matrix for result in row]
  )
  values = values.reshape(len(matrix), -1, len(grid)).mean(1)
  kept = np.isfinite(values).any(0)
  return grid[kept], values[:, kept]


def _mean_and_std(
  grid: np.ndarray, values: np.ndarray
) -> learning_curves.Curve:
  mean, std = np.nanmean(values, 0), np.nanstd(values, 0)
  return learning_curves.Curve(grid, mean, mean - std, mean + std)


def _iqm_curve(matrix: Sequence[Results]) -> learning_curves.Curve:
  grid, values = study_results.on_common_steps(
    [result for row in matrix for result in row], normalised=True
  )
  kept = np.isfinite(values).all(0)
  values = values[:, kept].reshape(len(matrix), len(matrix[0]), -1)
  ends = score_statistics.iqm_curve(values)
  return learning_curves.Curve(grid[kept], *ends.T)


def _picture(
  fig: figure.Figure, path: pathlib.Path, alt: str, caption: str
) -> report.Figure:
  """Writes both files of a picture, and puts it on the page."""
  svg = plot_style.svg(fig)
  path.with_name(f'{path.name}.svg').write_bytes(svg)
  path.with_name(f'{path.name}.png').write_bytes(plot_style.png(fig))
  return report.Figure(svg, alt, caption)


def _write_csvs(out: pathlib.Path, name: str, results: Results) -> None:
  _write_csv(
    out / f'{name}_evaluations.csv',
    (
      {
        **_place(result),
        'agent_step': step,
        'env_step': env_step,
        'episodes': episodes,
        'return': f'{mean:.3f}',
        'return_std': f'{std:.3f}',
        'success': f'{success:.3f}',
      }
      for result in results
      for step, env_step, episodes, mean, std, success in zip(
        result.steps,
        result.env_steps,
        result.episodes,
        result.returns,
        result.return_stds,
        result.successes,
        strict=True,
      )
    ),
  )
  _write_csv(
    out / f'{name}_scores.csv',
    (
      {
        **_place(result),
        'agent_steps': result.steps[-1],
        'complete': int(result.complete),
        'last': f'{result.score:.3f}',
        f'mean_of_last_{study_results.LAST}': f'{result.smooth_score:.3f}',
        'folder': result.folder,
      }
      for result in results
    ),
  )


def _place(result: study_results.Result) -> dict[str, Any]:
  return {
    'preset': result.preset,
    'task': result.task,
    'system': result.system,
    'seed': result.seed,
  }


def _write_csv(path: pathlib.Path, rows: Iterable[dict[str, Any]]) -> None:
  rows = list(rows)
  with open(path, 'w', newline='', encoding='utf-8') as file:
    if rows:
      writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)


def _seeds(results: Results) -> str:
  counts = {}
  for result in results:
    place = result.task, result.system
    counts[place] = counts.get(place, 0) + 1
  low, high = min(counts.values()), max(counts.values())
  number = str(low) if low == high else f'{low} to {high}'
  return f'{number} seed{"" if high == 1 else "s"}'


def _task_title(task: str) -> str:
  """'Walker Run' of 'dmcr/walker_run'."""
  name = task.partition('/')[2]
  return name.replace('_', ' ').replace('-', ' ').title()


def main() -> None:
  root = pathlib.Path(_WORKDIR.value)
  print(write(root, pathlib.Path(_OUT.value or root / 'results')))


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string(
    'workdir', 'runs/studies', 'Of experiments.study.'
  )
  _OUT = flags.DEFINE_string(
    'out', '', 'Folder; empty is results in --workdir.'
  )
  launch.run(main)
