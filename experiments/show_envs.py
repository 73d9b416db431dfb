r"""Draws contact sheets of environments, like Figs. 10 and 11 of the paper.

  python -m experiments.show_envs --tasks=walker_run,hopper_stand --out=runs/see
  python -m experiments.show_envs --out=runs/see --tasks=all \
      --config=configs/finetune_metaworld.py

writes <task>.png for each: a row for every seed, with frames of the beginning
of an episode of smooth random actions, twice as wide as the agent sees them.
--config.env sets the suite and its looks.
"""

import pathlib
from collections.abc import Sequence

import gymnasium
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from drp_jax import files
from drp_jax.envs import dmcr, metaworld, renders
from drp_jax.runs import limits, logger
from drp_jax.viz import contact_sheet, overlay, video
from experiments import finetune_work, launch

TIMES = (0, 5, 10, 20, 40)  # agent steps
_SCALE = 2


def show(
  config: ml_collections.ConfigDict,
  tasks: Sequence[str],
  out: str,
  num_seeds: int,
) -> None:
  """Writes a contact sheet of every task.

  Args:
    config: config of fine-tuning; its task is ignored.
    tasks: names in `config.env.suite`.
    out: folder; created if missing.
    num_seeds: rows of a sheet.

  Raises:
    ValueError: unknown suite or task.
    RuntimeError: there is no OpenGL to render with.
  """
  config = config.copy_and_resolve_references()
  folder = pathlib.Path(out)
  for task in logger.progress(tasks, 'show', 'task'):
    config.task = task
    env = finetune_work.make_env(config)
    sheet = draw(env, num_seeds)
    env.close()
    files.write(folder / f'{task}.png', video.encode_png(sheet))


def draw(env: gymnasium.Env, num_seeds: int) -> np.ndarray:
  """Draws the contact sheet of one environment, [H, W, 3] uint8."""
  rows, titles = [], []
  for seed in range(num_seeds):
    rng = np.random.default_rng(seed)
    frames, _ = renders.rollout(env, TIMES[-1] + 1, rng)
    rows.append(overlay.upscale(frames, _SCALE))
    titles.append(f'seed {seed}, steps {", ".join(map(str, TIMES))}')
  return contact_sheet.contact_sheet(rows, titles, TIMES)


def task_names(suite: str) -> Sequence[str]:
  """Lists all tasks of a suite that draws a scene for every episode.

  Raises:
    ValueError: another suite.
    RuntimeError: there is no OpenGL to render with.
  """
  match suite:
    case 'dmcr':
      return dmcr.TASKS
    case 'metaworld':
      return metaworld.tasks()
  raise ValueError(
    "--tasks=all is for config.env.suite 'dmcr' or 'metaworld', not "
    f'{suite!r}: name the tasks.'
  )


def main() -> None:
  config = _CONFIG.value
  limits.check_run(config)
  tasks = _TASKS.value or [config.task]
  if tasks == ['all']:
    tasks = task_names(config.env.suite)
  show(config, tasks, _OUT.value, _SEEDS.value)
  print(f'Look into {_OUT.value}.')


if __name__ == '__main__':
  _CONFIG = config_flags.DEFINE_config_file(
    'config', 'configs/finetune_dmcr.py', 'Config file and preset, FILE:PRESET.'
  )
  _TASKS = flags.DEFINE_list(
    'tasks', None, 'Names, or all; the task of the config by default.'
  )
  _OUT = flags.DEFINE_string('out', 'runs/see', 'Folder to write to.')
  _SEEDS = flags.DEFINE_integer('seeds', 6, 'Number of rows of a sheet.', 1)
  launch.run(main)
