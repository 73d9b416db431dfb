r"""Measures the memory of the training steps, of every preset.

  python -m benchmarks.memory                      # a table
  python -m benchmarks.memory --json               # and one line of JSON
  python -m benchmarks.memory --preset=paper --stage=metaworld
  python -m benchmarks.memory --preset=paper --compile_only

The table gives XLA's plan for one device: the state, and beside it the batch,
results and temporaries. It also gives the peak of a separate process in RAM
after the steps. On CPUs the two differ by the memory of Python, the libraries
and the compiler. Each step is measured with and without rematerialization
(`config.remat`), with its seconds. For a step that does not fit only the plan
is shown.
"""

import json
import resource
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import record, steps
from configs import base
from drp_jax.runs import logger, parallel
from experiments import launch

_STEPS = 3  # the first two fill caches; the last is timed
_GIB = 2**30


def measure(
  stage: str, preset: str, remat: bool, compile_only: bool
) -> dict[str, Any]:
  """Compiles a step for one device, and optionally takes a few steps.

  Args:
    stage: one of `steps.STAGES`.
    preset: preset of configs/base.py.
    remat: `config.remat`.
    compile_only: whether to stop before the first step.

  Returns:
    `state_gib` and `step_gib` of XLA's plan; `batch` (B, T); `rss_gib`, the
    peak of this process, and `step_seconds`, both None if only compiled.
  """
  step = steps.make_step(stage, 'float32', preset)
  step.config.remat = remat
  pmapped = parallel.pmap_step(
    step.learner(parallel.AXIS).update, jax.local_devices()[:1]
  )
  # Zeros take as much memory as other values.
  state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), step.state)
  batch = parallel.shard(step.example, 1)
  key = jax.random.key(0)
  compiled = pmapped.lower(state, batch, key).compile()
  plan = compiled.memory_analysis()
  held = sum(x.nbytes for x in jax.tree.leaves(state))
  beside = (
    plan.argument_size_in_bytes
    + plan.output_size_in_bytes
    + plan.temp_size_in_bytes
    - plan.alias_size_in_bytes
    - held
  )
  rss, seconds = None, None
  if not compile_only:
    for _ in range(_STEPS):
      begin = time.perf_counter()
      state, metrics = pmapped(state, batch, key)
      jax.block_until_ready((state, metrics))
      seconds = time.perf_counter() - begin
    # Kilobytes on Linux, bytes on macOS.
    unit = 1 if sys.platform == 'darwin' else 1024
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB
  return {
    'stage': stage,
    'preset': preset,
    'remat': remat,
    'batch': list(step.example.image.shape[:2]),
    'state_gib': held / _GIB,
    'step_gib': beside / _GIB,
    'rss_gib': rss,
    'step_seconds': seconds,
  }


def measure_in_process(
  stage: str, preset: str, remat: bool, compile_only: bool
) -> dict[str, Any]:
  """Runs `measure` in a separate process, whose peak is that of `measure`."""
  output = subprocess.run(
    [
      *(sys.executable, '-m', 'benchmarks.memory', '--child'),
      f'--stage={stage}',
      f'--preset={preset}',
      f'--remat={str(remat).lower()}',
      f'--compile_only={compile_only}',
    ],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout
  return json.loads(output.splitlines()[-1])


def table(rows: list[dict[str, Any]]) -> str:
  """Formats all results as a table in Markdown."""
  lines = [
    '| step, preset | batch | state, GiB | beside it, GiB | peak of the'
    ' process, GiB | seconds |',
    '|---|---|---|---|---|---|',
  ]
  for row in rows:
    B, T = row['batch']
    remat = ', remat' if row['remat'] else ''
    numbers = ' | '.join(
      '-' if row[name] is None else f'{row[name]:.2f}'
      for name in ('state_gib', 'step_gib', 'rss_gib', 'step_seconds')
    )
    lines.append(
      f'| {row["stage"]}, {row["preset"]}{remat} | {B} x {T} | {numbers} |'
    )
  return '\n'.join(lines)


def main() -> None:
  remats = [value == 'true' for value in _REMAT.value]
  jobs = [
    (stage, preset, remat, _COMPILE_ONLY.value)
    for preset in _PRESET.value
    for stage in _STAGE.value
    for remat in remats
  ]
  if _CHILD.value:
    print(json.dumps(measure(*jobs[0])))
    return
  rows = []
  for job in logger.progress(jobs, 'memory', 'step'):
    try:
      rows.append(measure_in_process(*job))
    except subprocess.CalledProcessError as error:
      if _COMPILE_ONLY.value:
        raise
      # A step that does not fit on this machine still has a plan.
      print(f'{job[:3]}: no step ({error}).', file=sys.stderr)
      rows.append(measure_in_process(*job[:3], compile_only=True))
    record.save({'results': rows})
  print(table(rows))
  record.finish({'results': rows})


if __name__ == '__main__':
  _STAGE = flags.DEFINE_multi_enum(
    'stage', steps.STAGES, steps.STAGES, 'Stage; may be repeated.'
  )
  _PRESET = flags.DEFINE_multi_enum(
    'preset', base.PRESETS, base.PRESETS, 'Preset; may be repeated.'
  )
  _REMAT = flags.DEFINE_multi_enum(
    'remat',
    ('false', 'true'),
    ('false', 'true'),
    'Value of config.remat; may be repeated.',
  )
  _COMPILE_ONLY = flags.DEFINE_bool(
    'compile_only', False, 'Compile and take no steps.'
  )
  _CHILD = flags.DEFINE_bool(
    'child', False, 'Measure one step in this process; internal.'
  )
  launch.run(main)
