r"""Times our whole training loop of DreamerV3 beside the official one.

  python -m benchmarks.speed_vs_dreamerv3 --checkout=DIR --python=PYTHON
  python -m benchmarks.speed_vs_dreamerv3 --checkout=DIR --python=PYTHON \
      --json --out=benchmarks/results/speed_vs_dreamerv3.json

DIR is a checkout of github.com/danijar/dreamerv3, PYTHON the interpreter of an
environment with what its requirements.txt pins: it does not run with the JAX
that we need. Both train `size1m` in float32 on walker_walk of the DMC suite:
the same batches, one update every four agent steps of two frames. Each command
runs alone, one after the other, as a user would start it, until its own log has
told its speed a few times; what came before the last of these is compilation,
and is left out.
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
from drp_jax.train import logger
from experiments import launch

TASK = 'walker_walk'
BATCH, LENGTH = 8, 32
_TRAIN_EVERY = 4  # agent steps
_PATIENCE = 1200  # seconds until a command must have told its speed


def ours(folder: pathlib.Path) -> list[str]:
  """Our command."""
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
  """The official command for the same."""
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
  """Agent steps a second, one of each line of metrics that tells them."""
  if not path.exists():
    return []
  lines = path.read_text('utf-8').split('\n')[:-1]  # the last may be half one
  rows = [json.loads(line) for line in lines]
  return [row[name] for row in rows if name in row]


def measure(side: str, command: list[str], folder: pathlib.Path, count: int):
  """Runs a command until it has told its speed often enough.

  Args:
    side: of NAMES.
    command: to run.
    folder: where it writes `metrics.jsonl`.
    count: how many speeds are wanted.

  Returns:
    Agent steps a second, the last `count` of what it told.

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
      # The first windows hold compilation, and episodes without learning.
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
  """The results as a table in Markdown."""
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
  _CHECKOUT = flags.DEFINE_string('checkout', None, 'Of danijar/dreamerv3.')
  _PYTHON = flags.DEFINE_string('python', sys.executable, 'For theirs.')
  _ROUNDS = flags.DEFINE_integer('rounds', 2, 'Runs of each command.', 1)
  _COUNT = flags.DEFINE_integer('count', 3, 'Speeds taken of each run.', 1)
  flags.mark_flag_as_required('checkout')
  launch.run(main)
