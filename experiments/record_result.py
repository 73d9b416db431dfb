"""Records a finished fine-tuning: its curve and how it was made.

  python -m experiments.record_result --workdir=runs/walker_stand \
      --name=nano_walker_stand

writes `<name>.csv` (one row per evaluation) and `<name>.json` (commit,
hardware, hours, all settings with their changes during the run, and a random
policy's returns) into experiments/results.
"""

import csv
import json
import pathlib
from typing import Any

import ml_collections
import numpy as np
from absl import flags

from configs import base
from drp_jax import files
from drp_jax.runs import logger
from drp_jax.runs import workdir as workdir_lib
from drp_jax.train import evaluate
from experiments import finetune_work, launch

_RESULTS = pathlib.Path(__file__).parent / 'results'
_STOPPED = 600.0  # seconds without a line that count as a stop
_COLUMNS = ('return', 'return_std', 'return_min', 'return_max', 'success')


def record(workdir: str, name: str, random_episodes: int = 10) -> pathlib.Path:
  """Writes the record of one run.

  Args:
    workdir: workdir of a fine-tuning.
    name: name of the two files.
    random_episodes: number of evaluation episodes of a random policy.

  Returns:
    The path of the CSV.

  Raises:
    ValueError: if the run has not been evaluated.
  """
  folder = pathlib.Path(workdir)
  lines = logger.read_metrics(folder)
  rows = [line for line in lines if 'eval/return' in line]
  if not rows:
    raise ValueError(f'--workdir={workdir!r} holds no evaluation.')
  config = json.loads(workdir_lib.read_config(folder).to_json())
  updates = {x['step']: int(x['updates']) for x in lines if 'updates' in x}
  # Without paths of this machine.
  config['init_from'] = pathlib.Path(config['init_from']).name
  path = _RESULTS / f'{name}.csv'
  with (
    files.replacing(path) as partial,
    open(partial, 'w', newline='', encoding='utf-8') as file,
  ):
    writer = csv.writer(file)
    writer.writerow(
      ['agent_step', 'env_step', 'updates_logged', 'hours', *_COLUMNS]
    )
    for row in rows:
      writer.writerow(
        [
          row['step'],
          row['step'] * config['env']['action_repeat'],
          max(
            (n for step, n in updates.items() if step <= row['step']), default=0
          ),
          round(_hours(lines, row), 3),
          *(round(row[f'eval/{column}'], 2) for column in _COLUMNS),
        ]
      )
  # Keys that are newer than the run have their defaults.
  known = json.loads(base.get_config().to_json())
  known |= {**config, 'env': {**known['env'], **config['env']}}
  env = finetune_work.make_env(ml_collections.ConfigDict(known), draw=False)
  returns = evaluate.random_returns(env, random_episodes)
  files.write_json(
    path.with_suffix('.json'),
    {
      'run': json.loads((folder / 'run.json').read_text()),
      'hours': _hours(lines, lines[-1]),
      'random_policy': {
        'episodes': random_episodes,
        'mean': float(np.mean(returns)),
        'std': float(np.std(returns)),
      },
      'config': config,
      'changes': workdir_lib.read_changes(folder),
    },
  )
  return path


def _hours(lines: list[dict[str, Any]], end: dict[str, Any]) -> float:
  """Computes the hours until the line `end`, without those of stops."""
  times = [line['wall_time'] for line in lines]
  times = [time for time in times if time <= end['wall_time']]
  gaps = np.diff(times)
  return float(gaps[gaps < _STOPPED].sum() / 3600)


def main() -> None:
  print(record(flags.FLAGS.workdir, flags.FLAGS.name))


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, 'Workdir of a finished fine-tuning.')
  flags.DEFINE_string('name', None, 'Name of the record.')
  flags.mark_flags_as_required(['workdir', 'name'])
  launch.run(main)
