r"""Times our whole training loop of DreamerV3 beside the official one.

  python -m benchmarks.speed_vs_dreamerv3 --checkout=DIR --python=PYTHON
  python -m benchmarks.speed_vs_dreamerv3 --checkout=DIR --python=PYTHON \
      --json --out=benchmarks/results/speed_vs_dreamerv3.json

DIR is a checkout of github.com/danijar/dreamerv3. PYTHON is the interpreter of
an environment with the versions of its requirements.txt, because DreamerV3 does
not run with the JAX that we need. Both train `size1m` in float32 on walker_walk
of the DMC suite, with batches of the same size and one update every four agent
steps of two frames. The commands run one after the other, each as a user would
start it, until their logs have reported a speed several times. Earlier reports
contain compilation and are left out.
"""

import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from absl import flags

from benchmarks import record
from drp_jax.runs import logger
from experiments import launch

TASK = 'walker_walk'
BATCH, LENGTH = 8, 32
_TRAIN_EVERY = 4  # agent steps
_PATIENCE = 1200  # seconds until a command must have reported its speed


def ours(folder: pathlib.Path) -> list[str]:
  """Returns our command."""
  return [
    *(sys.executable, '-m', 'experiments.run_dmcr'),
    '--config=configs/finetune_dmcr.py:nano',
    '--config.agent=dreamerv3',
    '--config.env.suite=dmc',
    f'--config.task={TASK}',
    f'--config.replay.batch_size={BATCH}',
    f'--config.replay.segment_length={LENGTH}',
    f'--config.finetune.train_every={_TRAIN_EVERY}',
    '--config.finetune.initial_updates=1',
    '--config.finetune.prefill=500',
    '--config.finetune.eval_every=1000000',
    '--config.finetune.num_steps=1000000',
    '--config.finetune.log_every=10',
    f'--workdir={folder}',
  ]


def theirs(folder: pathlib.Path, checkout: str, python: str) -> list[str]:
  """Returns the official command for the same training."""
  return [
    *(python, str(pathlib.Path(checkout, 'dreamerv3', 'main.py'))),
    *('--configs', 'dmc_vision', 'size1m'),
    *('--task', f'dmc_{TASK}', '--env.dmc.repeat', '2'),
    *('--batch_size', str(BATCH), '--batch_length', str(LENGTH)),
    *('--run.train_ratio', str(BATCH * LENGTH / _TRAIN_EVERY)),
    *('--run.envs', '1', '--run.log_every', '30'),
    *('--jax.platform', 'cpu', '--jax.compute_dtype', 'float32'),
    *('--logger.outputs', 'jsonl', '--logdir', str(folder)),
  ]


NAMES = {'ours': 'time/agent_steps_per_second', 'theirs': 'fps/policy'}


def speeds(path: pathlib.Path, name: str) -> list[float]:
  """Reads agent steps per second from all lines of metrics that have them."""
  if not path.exists():
    return []
  lines = path.read_text('utf-8').split('\n')[:-1]  # the last may be partial
  rows = [json.loads(line) for line in lines]
  return [row[name] for row in rows if name in row]


def measure(side: str, command: list[str], folder: pathlib.Path, count: int):
  """Runs a command until it has reported its speed often enough.

  Args:
    side: one of NAMES.
    command: command to run.
    folder: folder of its `metrics.jsonl`.
    count: number of speeds to measure.

  Returns:
    Agent steps per second, the last `count` reports.

  Raises:
    RuntimeError: if it ends, or takes too long.
  """
  folder.mkdir(parents=True, exist_ok=True)
  output = folder / 'output.txt'
  with output.open('w') as file:
    process = subprocess.Popen(
      command,
      stdout=file,
      stderr=subprocess.STDOUT,
      start_new_session=True,
      env={**os.environ, 'MUJOCO_GL': os.environ.get('MUJOCO_GL', 'egl')},
    )
  deadline = time.monotonic() + _PATIENCE
  try:
    while process.poll() is None and time.monotonic() < deadline:
      time.sleep(5)
      found = speeds(folder / 'metrics.jsonl', NAMES[side])
      # The first windows contain compilation, and episodes without learning.
      if len(found) >= 2 + count:
        return found[-count:]
  finally:
    if process.poll() is None:
      os.killpg(process.pid, signal.SIGKILL)
      process.wait()
  raise RuntimeError(
    f'{side}: no speed after {_PATIENCE} s, or ended with code'
    f' {process.returncode}; its last words: {output.read_text()[-2000:]}'
  )


def table(found: dict[str, list[float]]) -> str:
  """Formats the results as a table in Markdown."""
  lines = ['| | agent steps/s, median | least to most |', '|---|---|---|']
  lines += [
    f'| {side} | {statistics.median(x):.2f} | {min(x):.2f} to {max(x):.2f} |'
    for side, x in found.items()
  ]
  ratio = statistics.median(found['ours']) / statistics.median(found['theirs'])
  return '\n'.join([*lines, f'| ratio | {ratio:.2f} | |'])


def main() -> None:
  checkout = os.path.abspath(_CHECKOUT.value)
  if not pathlib.Path(checkout, 'dreamerv3', 'main.py').exists():
    raise ValueError(f'--checkout={checkout} holds no dreamerv3/main.py.')
  found = {side: [] for side in NAMES}
  with tempfile.TemporaryDirectory() as scratch:
    jobs = [(i, side) for i in range(_ROUNDS.value) for side in NAMES]
    for i, side in logger.progress(jobs, 'DreamerV3', 'command'):
      folder = pathlib.Path(scratch, f'{side}{i}')
      command = ours(folder)
      if side == 'theirs':
        command = theirs(folder, checkout, _PYTHON.value)
      found[side] += measure(side, command, folder, _COUNT.value)
  print(table(found))
  record.finish(
    {
      'batch': [BATCH, LENGTH],
      'agent_steps_per_second': found,
    }
  )


if __name__ == '__main__':
  _CHECKOUT = flags.DEFINE_string(
    'checkout', None, 'Checkout of danijar/dreamerv3.'
  )
  _PYTHON = flags.DEFINE_string(
    'python', sys.executable, 'Interpreter for the official code.'
  )
  _ROUNDS = flags.DEFINE_integer('rounds', 2, 'Runs of each command.', 1)
  _COUNT = flags.DEFINE_integer('count', 3, 'Reports used of each run.', 1)
  flags.mark_flag_as_required('checkout')
  launch.run(main)
