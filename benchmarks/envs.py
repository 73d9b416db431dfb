r"""Measures milliseconds of resets, steps and frames of the environments.

  python -m benchmarks.envs             # a table
  python -m benchmarks.envs --json      # and one line of JSON

One process opens one environment at a time. It compares a reset in place with a
new environment, which DMC Remastered makes in every episode; a step without a
frame with the frame; and shadow maps and textures of several sizes.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import gymnasium
from absl import flags

from benchmarks import record
from drp_jax.envs import looks, make
from drp_jax.runs import logger
from experiments import launch


@dataclasses.dataclass(frozen=True)
class Subject:
  """An environment to measure.

  Attributes:
    suite: 'dmc', 'dmcr' or 'metaworld'.
    task: its name in the suite.
    shadow_size: side of the shadow map in texels.
    texture_size: side of sky and floor in texels (dmcr).
  """

  suite: str
  task: str
  shadow_size: int
  texture_size: int = 256


SUBJECTS = (
  *(Subject('dmcr', 'walker_run', size) for size in (2048, 1024, 512)),
  *(Subject('dmcr', 'walker_run', 512, size) for size in (128, 512)),
  Subject('dmcr', 'hopper_stand', 512),
  Subject('dmcr', 'cheetah_run', 512),
  Subject('dmc', 'walker_run', 512),
  *(Subject('metaworld', 'drawer-open', size) for size in (4096, 1024, 512)),
)
COLUMNS = {
  'new': 'new environment and its first frame',
  'reset': 'reset and its first frame',
  'step': 'control step',
  'frame': 'frame',
}


def measure(
  subject: Subject, repeats: int, new_repeats: int
) -> dict[str, dict[str, float]]:
  """Times one environment.

  Args:
    subject: environment to measure.
    repeats: number of resets, steps and frames.
    new_repeats: number of times that the environment is opened.

  Returns:
    For each of COLUMNS the medians of 'wall' and 'cpu' time in milliseconds;
    CPU time includes all threads.
  """

  def start_anew() -> gymnasium.Env:
    env = _open(subject)
    env.reset(seed=0)
    return env

  start_anew().close()  # imports, textures from disk, OpenGL
  samples = {name: [] for name in COLUMNS}
  for _ in range(new_repeats):
    env = _timed(start_anew, samples['new'])
    env.close()
  env = start_anew()
  env.action_space.seed(0)
  inner = env.unwrapped  # has separate steps and frames
  for _ in range(repeats):
    _timed(env.reset, samples['reset'])
    action = env.action_space.sample()
    _timed(lambda action=action: inner.advance(action), samples['step'])
    _timed(inner.render, samples['frame'])
  env.close()
  return {
    name: {
      kind: 1e3 * statistics.median(sample[kind] for sample in taken)
      for kind in ('wall', 'cpu')
    }
    for name, taken in samples.items()
  }


def table(rows: list[dict[str, Any]]) -> str:
  """Formats results in Markdown: wall milliseconds, with CPU in brackets."""
  lines = [
    f'| | shadow | texture | {" | ".join(COLUMNS.values())} |',
    '|---' * (3 + len(COLUMNS)) + '|',
  ]
  for row in rows:
    cells = [
      f'{row[name]["wall"]:.3g} ({row[name]["cpu"]:.3g})' for name in COLUMNS
    ]
    texture = row['texture_size'] if row['suite'] == 'dmcr' else '-'
    lines.append(
      f'| {row["suite"]} {row["task"]} | {row["shadow_size"]} | {texture}'
      f' | {" | ".join(cells)} |'
    )
  return '\n'.join(lines)


def _open(subject: Subject) -> gymnasium.Env:
  settings = make.Settings(
    subject.suite,
    action_repeat=1,
    shadow_size=subject.shadow_size,
    factors=looks.FACTORS,
    texture_size=subject.texture_size,
  )
  return make.make_env(settings, subject.task)


def _timed(do: Callable[[], Any], into: list[dict[str, float]]) -> Any:
  """Calls `do`, adds its seconds to `into`, and returns its result."""
  wall, cpu = time.perf_counter(), time.process_time()
  result = do()
  into.append(
    {
      'wall': time.perf_counter() - wall,
      'cpu': time.process_time() - cpu,
    }
  )
  return result


def main() -> None:
  rows = [
    {
      **dataclasses.asdict(subject),
      **measure(subject, _REPEATS.value, _NEW_REPEATS.value),
    }
    for subject in logger.progress(SUBJECTS, 'environments', 'subject')
  ]
  print(table(rows))
  record.finish(
    {
      'milliseconds': rows,
      'repeats': _REPEATS.value,
      'new_repeats': _NEW_REPEATS.value,
    }
  )


if __name__ == '__main__':
  _REPEATS = flags.DEFINE_integer('repeats', 40, 'Resets and steps.', 1)
  _NEW_REPEATS = flags.DEFINE_integer('new_repeats', 5, 'New environments.', 1)
  launch.run(main)
