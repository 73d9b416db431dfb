r"""Times a training step beside the same step of another commit.

  git worktree add ../before 0637e53
  python -m benchmarks.speed_vs_commit --checkout=../before
  python -m benchmarks.speed_vs_commit --checkout=../before --stage=pretrain \
      --preset=paper --agent=ipv --batch_size=8 --turns=5 --json

Each side runs in a separate process on all cores of this one (`taskset` gives
fewer). They take turns, one step each, so other load affects both. The table
gives medians, and the median of the ratio turn by turn; above 1 this commit is
faster. Temporaries are those of XLA's plan. The other commit must have
`Step.learner` in its benchmarks/steps.py.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import record, steps
from configs import base
from drp_jax.runs import logger
from experiments import launch

STAGES = ('pretrain', 'dmcr')
_ROOT = pathlib.Path(__file__).parents[1]
_WARM_UP = 2  # steps that fill caches


def serve(stage: str, preset: str, agent: str, batch_size: int | None) -> None:
  """Takes a step for every line, and answers with its seconds.

  The first answer is the temporaries of the step in GiB.
  """
  step = steps.make_step(stage, 'float32', preset, agent, batch_size)
  rng = np.random.default_rng(0)
  batch = step.example.replace(
    image=rng.integers(0, 256, step.example.image.shape, np.uint8)
  )
  state, key = step.init(), jax.random.key(0)
  update = jax.jit(step.learner().update, donate_argnums=0)
  compiled = update.lower(state, batch, key).compile()
  temporaries = compiled.memory_analysis().temp_size_in_bytes
  print(f'answer {temporaries / 2**30}', flush=True)
  for _ in sys.stdin:
    begin = time.perf_counter()
    state, _ = jax.block_until_ready(compiled(state, batch, key))
    print(f'answer {time.perf_counter() - begin}', flush=True)


class _Server:
  """A process that takes steps of one checkout, running this file."""

  def __init__(self, checkout, stage, preset, agent, batch_size):
    size = [] if batch_size is None else [f'--batch_size={batch_size}']
    self._process = subprocess.Popen(
      [
        *(sys.executable, str(pathlib.Path(__file__).resolve()), '--serve'),
        *(f'--stage={stage}', f'--preset={preset}', f'--agent={agent}', *size),
      ],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
      env={**os.environ, 'PYTHONPATH': str(checkout)},
    )

  def answer(self) -> float:
    for line in self._process.stdout:
      if line.startswith('answer '):
        return float(line.split()[1])
    raise RuntimeError(f'{self._process.args} ended.')

  def step(self) -> float:
    self._process.stdin.write('\n')
    self._process.stdin.flush()
    return self.answer()

  def close(self) -> None:
    self._process.stdin.close()
    self._process.wait()


def measure(
  checkout: str,
  stage: str,
  preset: str,
  agent: str,
  batch_size: int | None,
  turns: int,
) -> dict[str, Any]:
  """Times a step of both sides in turns.

  Returns:
    For `before` and `now`: median `seconds` and `temporaries_gib`; `ratio`
    (median of before / now, turn by turn) and `ratios`.
  """
  sides = {'before': pathlib.Path(checkout).resolve(), 'now': _ROOT}
  what = (stage, preset, agent, batch_size)
  servers, temporaries = {}, {}
  for side, path in sides.items():
    servers[side] = _Server(path, *what)
    temporaries[side] = servers[side].answer()
  for _ in range(_WARM_UP):
    for server in servers.values():
      server.step()
  found = [
    {side: server.step() for side, server in servers.items()}
    for _ in logger.progress(range(turns), ', '.join(what[:3]), 'turn')
  ]
  for server in servers.values():
    server.close()
  ratios = [turn['before'] / turn['now'] for turn in found]
  return {
    'stage': stage,
    'preset': preset,
    'agent': agent,
    'batch_size': batch_size,
    'seconds': {
      side: statistics.median(turn[side] for turn in found) for side in sides
    },
    'temporaries_gib': temporaries,
    'ratio': statistics.median(ratios),
    'ratios': ratios,
  }


def table(rows: list[dict[str, Any]]) -> str:
  """Formats the results as a table in Markdown."""
  lines = [
    '| step | before, now, s | ratio | of turns | temporaries, GiB |',
    '|---|---|---|---|---|',
  ]
  for row in rows:
    before, now = row['seconds'].values()
    least, most = min(row['ratios']), max(row['ratios'])
    held = ', '.join(f'{x:.2f}' for x in row['temporaries_gib'].values())
    lines.append(
      f'| {row["stage"]}, {row["preset"]} {row["agent"]} | {before:.3f},'
      f' {now:.3f} | {row["ratio"]:.2f} | {least:.2f} to {most:.2f} | {held} |'
    )
  return '\n'.join(lines)


def main() -> None:
  for stage in _STAGE.value if _SERVE.value else ():
    serve(stage, _PRESET.value, _AGENT.value, _BATCH_SIZE.value)
    return
  rows = [
    measure(
      _CHECKOUT.value,
      stage,
      _PRESET.value,
      _AGENT.value,
      _BATCH_SIZE.value,
      _TURNS.value,
    )
    for stage in _STAGE.value
  ]
  print(table(rows))
  record.finish({'turns': _TURNS.value, 'results': rows})


if __name__ == '__main__':
  _CHECKOUT = flags.DEFINE_string(
    'checkout', '', 'Checkout of the other commit.'
  )
  _STAGE = flags.DEFINE_multi_enum(
    'stage', STAGES, STAGES, 'Stage; may be repeated.'
  )
  _PRESET = flags.DEFINE_enum(
    'preset', 'nano', base.PRESETS, 'Preset of sizes.'
  )
  _AGENT = flags.DEFINE_enum('agent', 'drp', ('drp', 'ipv', 'apv'), 'System.')
  _BATCH_SIZE = flags.DEFINE_integer(
    'batch_size', None, 'Examples per step; by default that of the preset.', 1
  )
  _TURNS = flags.DEFINE_integer('turns', 15, 'Pairs of steps.', 1)
  _SERVE = flags.DEFINE_bool(
    'serve', False, 'Take steps in this process; internal.'
  )
  launch.run(main)
