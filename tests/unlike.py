"""Processes unlike each other, for what has to be the same in all of them."""

import os
import subprocess
import sys

import numpy as np


def run(program: str, seed: int, *arguments: str) -> None:
  """Runs Python in a process with its own memory and number of cores.

  Args:
    program: text of Python, which finds `arguments` in `sys.argv[1:]`.
    seed: of what the memory holds. If it is odd, the process has one core.
    *arguments: texts.
  """
  begin = f'import unlike; unlike.become({seed})\n'
  path = [*sys.path, os.environ.get('PYTHONPATH', '')]
  subprocess.run(
    [sys.executable, '-c', begin + program, *arguments],
    env={**os.environ, 'PYTHONPATH': os.pathsep.join(path)},
    check=True,
  )


def become(seed: int) -> None:
  """Leaves random numbers in the memory that is allocated next."""
  if seed % 2:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
  rng = np.random.default_rng(seed)
  kept = [rng.bytes(size) for size in rng.integers(1, 100_000, 500)]
  del kept[::2]  # with holes
