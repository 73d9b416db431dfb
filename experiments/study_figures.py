"""Draws learning curves of a study, and scores with intervals."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import figure

from drp_jax import files
from drp_jax.viz import learning_curves, plot_style, report
from experiments import score_statistics, study_results

Results = Sequence[study_results.Result]


def curves(
  results: Results,
  labels: Sequence[str],
  tasks: Sequence[str],
  path: pathlib.Path,
) -> report.Figure:
  """Draws learning curves, one panel per task, and their average.

  Args:
    results: results of one preset; at least one.
    labels: labels of the systems, in order.
    tasks: tasks such as 'dmcr/walker_run', in order.
    path: path of the files, without suffix.
  """
  panels = _panels(results, labels, tasks)
  return _picture(
    learning_curves.draw_curves(panels, labels, 'environment steps'),
    path,
    'Learning curves of every system on every task',
    'Mean and standard deviation over'
    f' {_seeds(results)}. A curve ends with the longest of its runs.',
  )


def robust(
  results: Results,
  labels: Sequence[str],
  tasks: Sequence[str],
  path: pathlib.Path,
) -> list[report.Item]:
  """Draws IQM along the curves and at their end, and chances of improvement.

  Each suite is drawn separately, with the systems that have two seeds or more
  on all its tasks. Arguments are those of `curves`.
  """
  panels, groups = [], []
  for suite in dict.fromkeys(task.partition('/')[0] for task in tasks):
    own = [task for task in tasks if task.startswith(f'{suite}/')]
    matrices = {
      label: _matrix(_chosen(results, label), own) for label in labels
    }
    iqms = {
      label: _iqm_curve(matrix)
      for label, matrix in matrices.items()
      if len(matrix) > 1
    }
    name = f'{suite}, {len(own)} task{"s" if len(own) > 1 else ""}'
    if iqms:
      panels.append(
        learning_curves.Panel(name, 'IQM of normalized scores', iqms)
      )
    groups += _intervals(name, matrices, labels[0])
  items = []
  if panels:
    items.append(
      _picture(
        learning_curves.draw_curves(panels, labels, 'environment steps'),
        path.with_name(f'{path.name}-iqm'),
        'Interquartile means over steps, with intervals',
        'Interquartile mean over seeds and tasks with its 95 % interval. It'
        ' includes seeds that were evaluated on all tasks, up to the step that'
        ' all of them have reached. Scores are divided by the largest possible'
        ' return; success is from 0 to 1.',
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
        ' system, with 95 % intervals. The dashed line marks even chances.',
      )
    )
  return items


def _panels(
  results: Results, labels: Sequence[str], tasks: Sequence[str]
) -> list[learning_curves.Panel]:
  """Makes one panel per task, and an average if tasks are scored alike."""
  panels = [
    learning_curves.Panel(
      study_results.task_title(task),
      _unit(task.partition('/')[0]),
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
      learning_curves.Panel('Average', _unit(suites.pop()), averages)
    )
  return panels


def _unit(suite: str) -> str:
  """Returns the unit of `Result.values`."""
  return 'success, %' if suite == 'metaworld' else 'episode return'


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
        [[result.normalized[-1] for result in row] for row in whole]
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


def _chosen(
  results: Results, label: str, task: str | None = None
) -> list[study_results.Result]:
  return [
    result
    for result in results
    if result.label == label and task in (None, result.task)
  ]


def _matrix(results: Results, tasks: Sequence[str]) -> list[Results]:
  """Returns rows of one result per task, for seeds that have all tasks."""
  by_seed = {}
  for result in results:
    by_seed.setdefault(result.seed, {})[result.task] = result
  return [
    [row[task] for task in tasks]
    for _, row in sorted(by_seed.items())
    if all(task in row for task in tasks)
  ]


def _averaged(matrix: Sequence[Results]) -> tuple[np.ndarray, np.ndarray]:
  """Averages over tasks, at steps that all reached: [n] and [seeds, n]."""
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
    [result for row in matrix for result in row], normalized=True
  )
  kept = np.isfinite(values).all(0)
  values = values[:, kept].reshape(len(matrix), len(matrix[0]), -1)
  ends = score_statistics.iqm_curve(values)
  return learning_curves.Curve(grid[kept], *ends.T)


def _picture(
  fig: figure.Figure, path: pathlib.Path, alt: str, caption: str
) -> report.Figure:
  """Writes both files of a picture, and returns it for the page."""
  svg = plot_style.svg(fig)
  files.write(path.with_name(f'{path.name}.svg'), svg)
  files.write(path.with_name(f'{path.name}.png'), plot_style.png(fig))
  return report.Figure(svg, alt, caption)


def _seeds(results: Results) -> str:
  counts = {}
  for result in results:
    place = result.task, result.system
    counts[place] = counts.get(place, 0) + 1
  low, high = min(counts.values()), max(counts.values())
  number = str(low) if low == high else f'{low} to {high}'
  return f'{number} seed{"" if high == 1 else "s"}'
