r"""Measures the cost of checking every step for non-finite values (N24).

  python -m benchmarks.guard
  python -m benchmarks.guard --json --out=benchmarks/results/guard.json

Steps with and without `bad_steps.guard` take turns.
"""

import contextlib
import statistics
import time
from typing import Any
from unittest import mock

import jax
from absl import flags

from benchmarks import record, steps
from configs import base
from drp_jax.runs import bad_steps, parallel
from experiments import launch

STAGES = ('pretrain', 'dmcr')


def measure(stage: str, preset: str, turns: int) -> dict[str, Any]:
  """Times a stage's step.

  Returns:
    Median seconds `guarded` and `bare`, and `ratio` of the two: median, minimum
    and maximum of the turns.
  """
  step = steps.make_step(stage, 'float32', preset)
  key, runs, seconds = jax.random.key(0), {}, {}
  batch = parallel.shard(step.example, 1)
  for side in ('guarded', 'bare'):
    bare = mock.patch.object(bad_steps, 'guard', lambda new, _, m: (new, m))
    with bare if side == 'bare' else contextlib.nullcontext():
      function = parallel.pmap_step(
        step.learner(parallel.AXIS).update, jax.local_devices()[:1]
      )
      state = step.init()
      state, _ = function(parallel.replicate(state), batch, key)
    runs[side], seconds[side] = (function, state), []
  for _ in range(turns):
    for side, (function, state) in runs.items():
      jax.block_until_ready(state)
      begin = time.perf_counter()
      state, _ = jax.block_until_ready(function(state, batch, key))
      seconds[side].append(time.perf_counter() - begin)
      runs[side] = function, state
  pairs = zip(seconds['guarded'], seconds['bare'], strict=True)
  ratios = [guarded / bare for guarded, bare in pairs]
  return {
    'stage': stage,
    'preset': preset,
    **{side: statistics.median(found) for side, found in seconds.items()},
    'ratio': [statistics.median(ratios), min(ratios), max(ratios)],
  }


def table(rows: list[dict[str, Any]]) -> str:
  """Formats the results as a table in Markdown."""
  lines = [
    '| step | guarded, ms | bare, ms | ratio | of turns |',
    '|---|---|---|---|---|',
  ]
  for row in rows:
    ratio, least, most = row['ratio']
    lines.append(
      f'| {row["stage"]}, {row["preset"]} | {1000 * row["guarded"]:.0f} |'
      f' {1000 * row["bare"]:.0f} | {ratio:.3f} | {least:.2f} to {most:.2f} |'
    )
  return '\n'.join(lines)


def main() -> None:
  rows = [measure(stage, _PRESET.value, _TURNS.value) for stage in STAGES]
  print(table(rows))
  record.finish({'turns': _TURNS.value, 'results': rows})


if __name__ == '__main__':
  _PRESET = flags.DEFINE_enum(
    'preset', 'nano', base.PRESETS, 'Preset of sizes.'
  )
  _TURNS = flags.DEFINE_integer('turns', 15, 'Pairs of steps.', 2)
  launch.run(main)
