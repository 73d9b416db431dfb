r"""Draws curves and tables of studies, beside the paper's numbers, on one page.

  python -m experiments.plot_results --workdir=runs/studies

reads the workdirs of the runs of experiments/study.py, finished or not, and
writes into `results/` below it, or into --out,

  report.html                  everything on one self-contained page
  <study>-<preset>*.png, .svg  its pictures
  <study>_evaluations.csv      one row per run and evaluation
  <study>_scores.csv           one row per run

A score is the mean over the episodes of a run's last evaluation; beside it
stands the mean of the last three evaluations (E8). Only complete runs have a
score. Standard deviations are over seeds.
"""

import csv
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags

from configs.studies import paper, printed
from drp_jax import files
from drp_jax.viz import report
from experiments import (
  launch,
  study_figures,
  study_index,
  study_results,
  study_tables,
)

Results = Sequence[study_results.Result]


def write(root: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
  """Writes the page, the pictures and the CSV files.

  Args:
    root: workdir of studies.
    out: folder for them, created if missing.

  Returns:
    The path of the page.

  Raises:
    ValueError: if `root` holds no study.
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
    _not_begun(paper.get_config(name))
    for name in printed.TABLES
    if name not in found
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
        ' the paper. A score is the mean over the episodes of the last'
        ' evaluation of a complete run; beside it stands the mean of the last'
        f' {study_results.LAST} evaluations. Interquartile means (IQM) and'
        ' probabilities of improvement have 95 % intervals of a bootstrap that'
        ' draws seeds within each task.'
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
  """Makes curves, intervals and table of one study at one preset."""
  name = f'{study["name"]}-{preset}'
  labels = tuple(dict.fromkeys(row['label'] for row in rows))
  tasks = tuple(dict.fromkeys(row['task'] for row in rows))
  items = []
  if results:
    items.append(study_figures.curves(results, labels, tasks, out / name))
  else:
    items.append(report.Text('No run was evaluated yet.'))
  items += study_figures.robust(results, labels, tasks, out / name)
  places = dict.fromkeys((row['system'], row['task']) for row in rows)
  items += study_tables.tables(study['name'], tuple(places), results)
  return report.Section(f'{study["title"]}, preset {preset}', items)


def _not_begun(study: ml_collections.ConfigDict) -> report.Section:
  places = [(s, t) for s in study.systems for t in study.tasks]
  return report.Section(
    study.title,
    [
      report.Text("Not begun here: the paper's numbers alone."),
      *study_tables.tables(study.name, places, []),
    ],
  )


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
  with (
    files.replacing(path) as partial,
    open(partial, 'w', newline='', encoding='utf-8') as file,
  ):
    if rows:
      writer = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
      writer.writeheader()
      writer.writerows(rows)


def main() -> None:
  root = pathlib.Path(_WORKDIR.value)
  print(write(root, pathlib.Path(_OUT.value or root / 'results')))


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string(
    'workdir', 'runs/studies', 'Workdir of experiments.study.'
  )
  _OUT = flags.DEFINE_string(
    'out', '', 'Folder to write to; empty is results in --workdir.'
  )
  launch.run(main)
