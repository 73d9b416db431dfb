r"""Compiles the training steps for accelerators that are not present.

  pip install --target=.libtpu libtpu==0.0.42.1   # Google's compiler for TPUs
  PYTHONPATH=.libtpu JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 \
      python -m benchmarks.aot_compile --topology=v5e:4x4      # a table
  ... --json --out=benchmarks/results/aot_compile.json         # and JSON

XLA's compiler for TPUs runs on any host. Its numbers for a program are exact:
memory, collectives, bytes (except for loops, whose bodies it counts once; see
work.py). Operations are counted in the traced step. The times are an
**estimate**: the time that a chip would take if its busiest part (arithmetic,
memory or network) never waited and hid the others (a roofline). Real steps are
slower, and latencies of collectives are not included.

One compilation for n chips serves all other numbers of chips: operations and
activations are proportional to the examples of a chip, parameters and gradients
are constant. The global batch is the config's; if there are more chips than
examples, it grows to one example per chip. An H100 is estimated for the same
program with its own rates.

Compiling convolutions takes libtpu minutes of CPU time. --effort=-1 (default)
makes it search less, which changes bytes by some 15 %; runs use --effort=0.
"""

import dataclasses
import math
import os
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags

from benchmarks import record, steps, work
from configs import base
from drp_jax.runs import parallel
from experiments import launch

DTYPES = ('bfloat16', 'float32')
COUNTS = (1, 4, 16, 64, 256)  # chips in the table

# Reads and writes of a parameter in a step: two passes; the gradient is written
# and read; Adam's two moments and the parameter are read and written.
_ACCESSES = 10


@dataclasses.dataclass(frozen=True)
class Chip:
  """Rates of an accelerator, from its data sheet.

  Attributes:
    name: name of the accelerator.
    flops: dense operations per second by `config.compute_dtype`; float32 means
      JAX's default precision, which is bfloat16 passes on TPUs and TF32 on
      H100.
    memory_bandwidth: bytes per second.
    network_bandwidth: bytes per second to other chips.
    memory: bytes.
  """

  name: str
  flops: dict[str, float]
  memory_bandwidth: float
  network_bandwidth: float
  memory: float


V5E = Chip('TPU v5e', dict(bfloat16=197e12, float32=197e12), 819e9, 200e9, 16e9)
H100 = Chip(
  'H100 SXM', dict(bfloat16=989e12, float32=495e12), 3.35e12, 450e9, 80e9
)


def _share(step: steps.Step, chips: int, *axes: int) -> Any:
  """Returns shapes of a batch, [*axes, b, ...], with b examples per chip."""
  b = examples_per_chip(step.batch_size, chips)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((*axes, b, *x.shape[1:]), x.dtype),
    step.example,
  )


def examples_per_chip(batch_size: int, chips: int) -> int:
  """Divides a batch among chips, rounding up."""
  return math.ceil(batch_size / chips)


def compile_step(
  step: steps.Step,
  devices: Sequence[Any],
  options: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Compiles a step for devices that need not exist.

  Args:
    step: step to compile.
    devices: devices of a topology, or real ones.
    options: options of the compiler.

  Returns:
    For one device: `xla_bytes` moved, with bodies of loops counted once;
    `state_bytes` kept from step to step; `step_bytes`, the maximum in addition
    to them within a step; `collectives`, the number of each kind, and
    `sent_bytes` of each; `compile_seconds` on this host.
  """
  pmapped = parallel.pmap_step(step.learner(parallel.AXIS).update, devices)
  key = jax.eval_shape(jax.random.key, 0)
  begin = time.monotonic()
  batch = _share(step, len(devices), len(devices))
  lowered = pmapped.lower(step.state, batch, key)
  compiled = lowered.compile(compiler_options=options)
  seconds = time.monotonic() - begin
  memory = compiled.memory_analysis()
  state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(step.state))
  counts, sent = collectives(compiled.as_text())
  return {
    'xla_bytes': compiled.cost_analysis()['bytes accessed'],
    'state_bytes': state,
    'step_bytes': memory.argument_size_in_bytes
    + memory.output_size_in_bytes
    + memory.temp_size_in_bytes
    - memory.alias_size_in_bytes
    - state,
    'collectives': counts,
    'sent_bytes': sent,
    'compile_seconds': seconds,
  }


def collectives(hlo: str) -> tuple[dict[str, int], dict[str, float]]:
  """Counts collectives, and the bytes of their results, by kind.

  Args:
    hlo: text of a compiled module.
  """
  counts, sent = {}, {}
  for shapes, kind in _COLLECTIVE.findall(re.sub(r'/\*.*?\*/', '', hlo)):
    counts[kind] = counts.get(kind, 0) + 1
    for dtype, shape in _ARRAY.findall(shapes):
      sizes = [int(n) for n in shape.split(',') if n]
      sent[kind] = sent.get(kind, 0) + _BYTES[dtype] * math.prod(sizes)
  return counts, sent


# `%x = (f32[8]{0}, f32[]) all-reduce(...)`. An asynchronous collective has two
# halves, `-start` and `-done`, of which only the second has the plain result.
_COLLECTIVE = re.compile(
  r'= (\(?[a-z0-9]+\[[^=]*?) '
  r'(all-reduce|all-gather|reduce-scatter|collective-permute)(?:-done)?\('
)
_ARRAY = re.compile(r'\b(pred|[a-z]+[0-9]+)\[([0-9,]*)\]')
_BYTES = {
  'pred': 1,
  's8': 1,
  'u8': 1,
  's16': 2,
  'u16': 2,
  'f16': 2,
  'bf16': 2,
  's32': 4,
  'u32': 4,
  'f32': 4,
  's64': 8,
  'u64': 8,
  'f64': 8,
}


def estimate(
  row: dict[str, Any], chip: Chip, chips: int
) -> dict[str, float | int | str]:
  """Estimates a step by its roofline, and a run of such steps.

  Args:
    row: numbers of a step compiled for some number of chips, see `measure`.
    chip: kind of chip.
    chips: number of chips.

  Returns:
    `chip` and `chips`; `examples` per chip; milliseconds that `arithmetic`,
    `memory` and `network` are busy; the `bound` among them; `gigabytes` that a
    chip holds and whether that `fits`; `chip_hours` and `hours` of the run.
  """
  examples = examples_per_chip(row['batch_size'], chips)
  scale = examples / row['examples']
  moved = row['xla_bytes'] + row['loop_bytes']
  # At most all of it, because parameters move less often if much fits on chip.
  fixed = min(_ACCESSES * 4 * row['parameters'] + row['loop_bytes'], moved)
  part = (chips - 1) / chips  # share of the result that a chip sends in a ring
  sent = sum(
    size * (2 if kind == 'all-reduce' else 1)
    for kind, size in row['sent_bytes'].items()
  )
  busy = {
    'arithmetic': scale * row['flops'] / chip.flops[row['dtype']],
    'memory': (fixed + scale * (moved - fixed)) / chip.memory_bandwidth,
    'network': part * sent / chip.network_bandwidth,
  }
  bound = max(busy, key=busy.get)
  held = row['state_bytes'] + scale * row['step_bytes']
  hours = row['steps'] * busy[bound] / 3600
  return {
    'chip': chip.name,
    'chips': chips,
    'examples': examples,
    **{name: 1e3 * seconds for name, seconds in busy.items()},
    'bound': bound,
    'gigabytes': held / 1e9,
    'fits': held <= chip.memory,
    'hours': hours,
    'chip_hours': chips * hours,
  }


def measure(
  stage: str,
  dtype: str,
  preset: str,
  devices: Sequence[Any],
  options: dict[str, Any] | None = None,
) -> dict[str, Any]:
  """Compiles a step and estimates it for `COUNTS` TPUs and one H100."""
  step = steps.make_step(stage, dtype, preset)
  params = jax.tree.leaves(step.state.params)
  row = {
    'stage': stage,
    'dtype': dtype,
    'preset': preset,
    'devices': len(devices),
    'batch_size': step.batch_size,
    'examples': examples_per_chip(step.batch_size, len(devices)),
    'steps': step.steps,
    'parameters': sum(x.size for x in params),
    **dataclasses.asdict(work.of_step(step, _share(step, len(devices)))),
    **compile_step(step, devices, options),
  }
  row['estimates'] = [
    *(estimate(row, V5E, chips) for chips in COUNTS),
    estimate(row, H100, 1),
  ]
  return row


def table(rows: list[dict[str, Any]]) -> str:
  """Formats all results as one table in Markdown."""
  lines = [
    '| step (GFLOP an example; exchanges) | chips x examples | arithmetic /'
    ' memory / network, ms | GB held | a run: hours, chip-hours |',
    '|---|---|---|---|---|',
  ]
  for row in rows:
    count = sum(row['collectives'].values())
    flops = row['flops'] / row['examples'] / 1e9
    name = f'{row["stage"]}, {row["dtype"]} ({flops:.1f}; {count})'
    for e in row['estimates']:
      parts = ' / '.join(
        f'**{e[part]:.2f}**' if part == e['bound'] else f'{e[part]:.2f}'
        for part in ('arithmetic', 'memory', 'network')
      )
      fits = '' if e['fits'] else ', does not fit'
      lines.append(
        f'| {name} | {e["chips"]} {e["chip"]} x {e["examples"]} | {parts} |'
        f' {e["gigabytes"]:.1f}{fits} | {e["hours"]:.1f}, {e["chip_hours"]:.1f}'
        ' |'
      )
      name = ''
  return '\n'.join(lines)


def main() -> None:
  if os.environ.get('TPU_SKIP_MDS_QUERY') != '1':
    raise ValueError('Set TPU_SKIP_MDS_QUERY=1: there is no TPU to ask.')
  from jax.experimental import topologies

  topology = topologies.get_topology_desc(
    platform='tpu', topology_name=_TOPOLOGY.value
  )
  options = {'exec_time_optimization_effort': _EFFORT.value}
  report = {
    'topology': _TOPOLOGY.value,
    'effort': _EFFORT.value,
    'results': [],
  }
  for stage in _STAGE.value:
    for dtype in _DTYPE.value:
      report['results'].append(
        measure(stage, dtype, _PRESET.value, topology.devices, options)
      )
      record.save(report)  # after each, because each takes long
  print(table(report['results']))
  record.finish(report)


if __name__ == '__main__':
  _TOPOLOGY = flags.DEFINE_string('topology', 'v5e:4x4', 'Slice of TPUs.')
  _STAGE = flags.DEFINE_multi_enum(
    'stage', steps.STAGES, steps.STAGES, 'Stage to compile; may be repeated.'
  )
  _DTYPE = flags.DEFINE_multi_enum(
    'dtype', DTYPES, DTYPES, 'Type to compute in; may be repeated.'
  )
  _PRESET = flags.DEFINE_enum(
    'preset', 'paper', base.PRESETS, 'Preset of sizes.'
  )
  _EFFORT = flags.DEFINE_float(
    'effort', -1.0, 'Effort of the compiler.', -1.0, 1.0
  )
  launch.run(main)
