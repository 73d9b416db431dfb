r"""Measures how fast agents act: rendering, extraction and policy, no learning.

  python -m benchmarks.acting             # a table
  python -m benchmarks.acting --json      # and one line of JSON
  python -m benchmarks.acting --preset=paper --steps=100

The table gives steps of all environments per second, for 1, 2 and 4 of them, in
DMC Remastered and in Meta-World; the parts of this time; and the cost of a step
of streaming extraction on one core. Agents are untrained, which does not change
the time.
"""

import contextlib
import functools
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags

from benchmarks import record
from configs import base, finetune_dmcr, finetune_metaworld
from drp_jax.runs import logger
from drp_jax.systems import registry
from drp_jax.train import rollout
from experiments import finetune_work, launch

NUM_ENVS = (1, 2, 4)
PARTS = ('environments', 'extraction', 'policy')
_REPEATS = 5


def config_of(suite: str, preset: str, steps: int) -> ml_collections.ConfigDict:
  """Makes the config for 'dmcr' or 'metaworld', with episodes of `steps`."""
  if suite == 'dmcr':
    config = finetune_dmcr.get_config(preset)
    config.task = 'walker_run'
  else:
    config = finetune_metaworld.get_config(preset)
    config.task = 'reach'
  config.env.episode_length = steps
  return config


def act(
  config: ml_collections.ConfigDict,
  make_envs: Callable[[], rollout.Environments],
) -> tuple[dict[str, float], np.ndarray]:
  """Plays two rounds and measures the second.

  Args:
    config: configs/base.py.
    make_envs: opens `config.env.num_envs` environments.

  Returns:
    'steps_per_second' of all environments together; milliseconds of a step of
    all of them in each of PARTS (medians); 'worker_mb', the memory of one
    process; and the frames [T, 64, 64, 3] of an episode.
  """
  spent = {part: [] for part in PARTS}
  with contextlib.closing(make_envs()) as envs:
    built = registry.build(config, envs.action_size, None)
    state = built.finetuning.init()
    variables = {'params': state.params, **state.collections}
    actor = rollout.PolicyActor(
      built.system,
      envs.num_envs,
      built.num_keypoints,
      jax.random.key(0),
      explore=True,
    )
    extractor = finetune_work.make_extractor(config, 0)
    extractor.step = _timed(extractor.step, spent['extraction'])
    envs.receive = _timed(envs.receive, spent['environments'])
    policy = _timed(functools.partial(actor, variables), spent['policy'])
    for number in range(2):
      numbers = range(number * envs.num_envs, (number + 1) * envs.num_envs)
      actor.begin(numbers)
      begin = []

      def choose(steps, begin=begin):
        begin.append(time.perf_counter())
        return policy(steps)

      episodes = rollout.play_round(envs, extractor, choose, 0, numbers)
      seconds = time.perf_counter() - begin[0]
      count = sum(episode.length for episode in episodes)
      if number == 0:  # compiles, fills caches
        for times in spent.values():
          times.clear()
    memory = _resident_megabytes(envs.pids[0])
  parts = {part: 1e3 * float(np.median(spent[part])) for part in PARTS}
  return (
    {'steps_per_second': count / seconds, **parts, 'worker_mb': memory},
    episodes[0].steps['image'],
  )


def extraction_overhead(
  config: ml_collections.ConfigDict, frames: np.ndarray
) -> dict[str, float]:
  """Measures the cost of streaming extraction for a step, on one core.

  Args:
    config: configs/base.py.
    frames: [T, 64, 64, 3] of an episode.

  Returns:
    Milliseconds: medians of wall-clock time, 'wall', and of CPU time, 'cpu';
    mean and maximum of CPU time, which occurs in steps that choose points. All
    are from the fastest of _REPEATS episodes, because a shared core is slower
    at times.
  """
  with _one_core():
    repeats = [_overhead_of_an_episode(config, frames) for _ in range(_REPEATS)]
  return min(repeats, key=lambda repeat: repeat['cpu'])


def _overhead_of_an_episode(config, frames):
  extractor = finetune_work.make_extractor(config, 0)
  wall, cpu = [], []
  for t in range(len(frames)):
    begin = time.perf_counter(), time.process_time()
    extractor.step(frames[t : t + 1], [t == 0], [0])
    wall.append(time.perf_counter() - begin[0])
    cpu.append(time.process_time() - begin[1])
  cpu = cpu[1:]  # the first step only stores the frame
  return {
    'wall': 1e3 * float(np.median(wall[1:])),
    'cpu': 1e3 * float(np.median(cpu)),
    'cpu_mean': 1e3 * float(np.mean(cpu)),
    'cpu_max': 1e3 * float(np.max(cpu)),
  }


def table(results: dict[str, dict[str, Any]]) -> str:
  """Formats all results as tables in Markdown."""
  lines = [
    '| suite, environments | steps/s | wait for environments, ms | extraction,'
    ' ms | policy, ms | a process, MB |',
    '|---|---|---|---|---|---|',
  ]
  for suite, result in results.items():
    for count, speed in result['acting'].items():
      parts = ' | '.join(f'{speed[part]:.1f}' for part in PARTS)
      lines.append(
        f'| {suite}, {count} | {speed["steps_per_second"]:.1f} | {parts} |'
        f' {speed["worker_mb"]:.0f} |'
      )
  lines += [
    '',
    '| streaming extraction, ms per step, one core | wall, median | CPU, median'
    ' | CPU, mean | CPU, longest |',
    '|---|---|---|---|---|',
  ]
  for suite, result in results.items():
    cells = ' | '.join(f'{x:.1f}' for x in result['extraction'].values())
    lines.append(f'| {suite} | {cells} |')
  return '\n'.join(lines)


def _timed(function: Callable, into: list[float]) -> Callable:
  """Wraps a function to record the seconds of each call."""

  def timed(*args):
    begin = time.perf_counter()
    result = function(*args)
    into.append(time.perf_counter() - begin)
    return result

  return timed


@contextlib.contextmanager
def _one_core() -> Iterator[None]:
  """Pins this thread to one core, if the system supports it (Linux)."""
  if not hasattr(os, 'sched_setaffinity'):
    yield
    return
  cores = os.sched_getaffinity(0)
  os.sched_setaffinity(0, {min(cores)})
  try:
    yield
  finally:
    os.sched_setaffinity(0, cores)


def _resident_megabytes(pid: int) -> float:
  """Reads the resident memory of a process; NaN without /proc."""
  path = pathlib.Path(f'/proc/{pid}/status')
  if not path.exists():
    return float('nan')
  lines = path.read_text('utf-8').splitlines()
  [line] = [line for line in lines if line.startswith('VmRSS')]
  return int(line.split()[1]) / 1024


def main() -> None:
  results = {}
  for suite in logger.progress(('dmcr', 'metaworld'), 'acting', 'suite'):
    config = config_of(suite, _PRESET.value, _STEPS.value)
    speeds = {}
    for count in NUM_ENVS:
      config.env.num_envs = count
      make_envs = functools.partial(finetune_work.make_envs, config)
      speeds[count], frames = act(config, make_envs)
    overhead = extraction_overhead(config, frames)
    results[suite] = {'acting': speeds, 'extraction': overhead}
  print(table(results))
  record.finish(
    {
      'preset': _PRESET.value,
      'steps': _STEPS.value,
      'results': results,
    }
  )


if __name__ == '__main__':
  _PRESET = flags.DEFINE_enum(
    'preset', 'nano', base.PRESETS, 'Preset of sizes.'
  )
  _STEPS = flags.DEFINE_integer('steps', 150, 'Agent steps of a round.', 30)
  launch.run(main)
