"""Results of the runs of a study, read from their workdirs."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from drp_jax.runs import episode_table, workdir

LAST = 3  # evaluations of the second score                      [E8]


@dataclasses.dataclass(frozen=True)
class Result:
  """Evaluations of one fine-tuning: means over their episodes.

  Attributes:
    preset: preset of configs/base.py.
    task: task, such as 'dmcr/walker_run'.
    system: name in configs/studies/systems.py.
    label: displayed name of the system.
    seed: seed of the run.
    folder: workdir of the run, below that of the study.
    steps: [n], agent steps before each evaluation, ascending.
    env_steps: [n], the same in control steps of the environment.
    episodes: [n], numbers of episodes.
    returns: [n], means of the sums of rewards.
    return_stds: [n], standard deviations over the episodes.
    successes: [n], shares of the episodes.
    max_return: upper limit of returns.
    complete: whether the last evaluation is at the end of the run.
  """

  preset: str
  task: str
  system: str
  label: str
  seed: int
  folder: str
  steps: np.ndarray
  env_steps: np.ndarray
  episodes: np.ndarray
  returns: np.ndarray
  return_stds: np.ndarray
  successes: np.ndarray
  max_return: float
  complete: bool

  @property
  def suite(self) -> str:
    """The part of the task's name in front of the slash."""
    return self.task.partition('/')[0]

  @property
  def values(self) -> np.ndarray:
    """Scores of the suite, [n]: returns, or success in percent."""
    if self.suite == 'metaworld':
      return 100 * self.successes
    return self.returns

  @property
  def normalized(self) -> np.ndarray:
    """Scores between 0 and 1, [n]."""
    if self.suite == 'metaworld':
      return self.successes
    return self.returns / self.max_return

  @property
  def score(self) -> float:
    """The last evaluation (E8)."""
    return float(self.values[-1])

  @property
  def smooth_score(self) -> float:
    """The mean of the last three evaluations (E8)."""
    return float(self.values[-LAST:].mean())


def read(study: dict[str, Any], root: pathlib.Path) -> list[Result]:
  """Reads the runs of a study that were evaluated at least once.

  Args:
    study: from `study_index.read`.
    root: workdir of the study.

  Returns:
    Results in the order of the matrix.
  """
  results = []
  for row in study['runs']:
    folder = root / row['folder']
    if (folder / episode_table.FILE).exists():
      result = _read_run(row, folder)
      if len(result.steps):
        results.append(result)
  return results


def _read_run(row: dict[str, Any], folder: pathlib.Path) -> Result:
  config = workdir.read_config(folder)
  rows = episode_table.read(folder)
  returns = np.array([float(r['return']) for r in rows])
  successes = np.array([float(r['success']) for r in rows])
  every = np.array([int(r['step']) for r in rows], np.int64)
  steps = np.unique(every)
  groups = [np.flatnonzero(every == step) for step in steps]
  env = config['env']
  return Result(
    **{
      name: row[name]
      for name in ('preset', 'task', 'system', 'label', 'seed', 'folder')
    },
    steps=steps,
    env_steps=steps * env['action_repeat'],
    episodes=np.array([len(group) for group in groups]),
    returns=np.array([returns[group].mean() for group in groups]),
    return_stds=np.array([returns[group].std() for group in groups]),
    successes=np.array([successes[group].mean() for group in groups]),
    max_return=env['episode_length'] * env['action_repeat'],
    complete=bool((steps >= config['finetune']['num_steps']).any()),
  )


def on_common_steps(
  results: Sequence[Result], normalized: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """Interpolates curves that were measured at different steps.

  Args:
    results: at least one.
    normalized: whether to return values between 0 and 1.

  Returns:
    All environment steps [n] of an evaluation, and interpolated values
    [len(results), n]; NaN before a run's first evaluation and after its last.
  """
  grid = np.unique(np.concatenate([result.env_steps for result in results]))
  values = [
    np.interp(
      grid,
      result.env_steps,
      result.normalized if normalized else result.values,
      np.nan,
      np.nan,
    )
    for result in results
  ]
  return grid, np.stack(values)


def task_title(task: str) -> str:
  """Returns a title: 'Walker Run' for 'dmcr/walker_run'."""
  name = task.partition('/')[2]
  return name.replace('_', ' ').replace('-', ' ').title()
