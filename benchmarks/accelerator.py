r"""Measures the training steps on one GPU or TPU.

  python -m benchmarks.accelerator                  # in under ten minutes
  python -m benchmarks.accelerator --minutes=8 --checkout=../ContextWM \
      --out=benchmarks/results/accelerator.json
  python -m benchmarks.accelerator --check          # equations, golden arrays

It needs only jax, flax, optax, chex, numpy and ml_collections, and torch for
--checkout. Without an accelerator it measures the CPU.

The output begins with the device, its large matrix products, and a comparison
of losses and gradients of a debug-size step with the CPU backend on the same
host. Then every row is a training step of one device in a separate process, the
most informative rows first. Times are medians of windows of steps whose batches
come from the host, as in a run. Operations are counted in the traced step with
its loops unrolled, matrix products and convolutions only, and are given as a
share of what a large matrix product reaches in the same precision. (XLA's own
count, which counts the body of a loop once, is in the JSON.) Rows for which
--minutes leaves no time are dropped from the end. A row that fails or does not
fit is reported, and the next one follows.

If --checkout names a folder of the official ContextWM, the row of IPV, which
has the same networks and losses, takes turns with it: `float32` with torch's
default, `bfloat16` with ContextWM's own mixed precision. A ratio above 1 means
that ours is faster.
"""

import dataclasses
import itertools
import json
import math
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
from absl import app, flags

from benchmarks import plain_tests, record, servers, steps, work
from configs import base

# By how much a value of a row lowers its importance.
_RANKS = {
  'preset': {'paper': 0, 'nano': 3, 'small': 4, 'debug': 5},
  'agent': {'drp': 0, 'ipv': 1, 'dreamerv3': 2},
  'stage': {'pretrain': 0, 'dmcr': 0, 'metaworld': 2},
  'precision': {'bfloat16': 0, 'float32': 0, 'highest': 4},
}
AGENTS = tuple(_RANKS['agent'])
PRECISIONS = tuple(_RANKS['precision'])
_WINDOWS = 7
_WINDOW_SECONDS = 0.4
_MOST_STEPS = 50  # maximum in a window
_WARM_UP = 2  # windows of one step
_OUT_OF_MEMORY = ('RESOURCE_EXHAUSTED', 'out of memory', 'OutOfMemory')
_COMPARED = ('pretrain', 'dmcr')  # stages of ContextWM in our sizes


@dataclasses.dataclass(frozen=True)
class Row:
  """A step to measure.

  Attributes:
    stage: one of `steps.STAGES`.
    preset: preset of configs/base.py.
    agent: `config.agent`.
    precision: one of the keys of `accelerator_jobs.PRECISIONS`.
  """

  stage: str
  preset: str
  agent: str
  precision: str

  @property
  def rank(self) -> int:
    """Rank of the row, small for important rows."""
    values = dataclasses.asdict(self)
    return sum(ranks[values[name]] for name, ranks in _RANKS.items())


def rows(
  stages: Sequence[str],
  presets: Sequence[str],
  agents: Sequence[str],
  precisions: Sequence[str],
) -> list[Row]:
  """Lists all rows of the sweep, the most informative ones first."""
  found = [
    Row(*values)
    for values in itertools.product(stages, presets, agents, precisions)
  ]
  # DreamerV3 has no pre-training.
  found = [
    row for row in found if (row.stage, row.agent) != ('pretrain', 'dreamerv3')
  ]
  return sorted(found, key=lambda row: row.rank)


def _server(module: str, job: Sequence[Any], **env: str) -> servers.Server:
  command = [sys.executable, '-m', f'benchmarks.{module}', json.dumps(job)]
  return servers.Server(command, {**env, **os.environ})


def do(job: Sequence[Any], deadline: float) -> Any:
  """Runs one job of `accelerator_jobs` in a process, and returns its answer."""
  server = _server('accelerator_jobs', job)
  try:
    return server.answer(deadline)
  finally:
    server.close()


def measure(row: Row, checkout: str, deadline: float) -> dict[str, Any]:
  """Compiles and times the step of a row.

  Args:
    row: row to measure.
    checkout: folder of ContextWM; '' for none.
    deadline: time by `time.monotonic`.

  Returns:
    The row; the first and the last answer of `accelerator_jobs.TimedStep`; `ms`
    per step by window with batches from the host, `device_ms` with batches on
    the device; `flops` per step and per second; `hours` of a run; and for
    ContextWM `contextwm_ms`, `contextwm_peak_gib` and `ratios`, turn by turn.
    Or `failure`, and whether it ran `out_of_memory`.

  Raises:
    TimeoutError: if the deadline passed first.
  """
  found = dataclasses.asdict(row)
  sides = {}
  try:
    found |= _timed(row, checkout, deadline, sides)
  except servers.Failure as failure:
    text = str(failure)
    found['failure'] = text
    found['out_of_memory'] = out_of_memory(text)
  finally:
    for server in sides.values():
      server.close()
  return found


def out_of_memory(failure: str) -> bool:
  """Returns whether a failure of JAX or torch is a lack of memory."""
  return any(word in failure for word in _OUT_OF_MEMORY)


def _timed(row, checkout, deadline, sides) -> dict[str, Any]:
  compared = bool(checkout) and row.agent == 'ipv'
  compared &= row.stage in _COMPARED and row.precision != 'highest'
  # Two processes share the memory.
  env = {'XLA_PYTHON_CLIENT_PREALLOCATE': 'false'} if compared else {}
  sides['ours'] = _server(
    'accelerator_jobs', ['step', *dataclasses.astuple(row)], **env
  )
  step = steps.make_step(row.stage, 'float32', row.preset, row.agent)
  flops = work.of_step(step, step.example).flops  # while the other compiles
  about = sides['ours'].answer(deadline)
  if compared:
    job = [checkout, row.stage, row.preset, row.precision]
    sides['contextwm'] = _server('accelerator_contextwm', job)
    sides['contextwm'].answer(deadline)

  counts = {}
  for name, server in sides.items():
    for _ in range(_WARM_UP):
      seconds = server.ask(['host', 1], deadline)
    count = math.ceil(_WINDOW_SECONDS / seconds)
    counts[name] = max(1, min(_MOST_STEPS, count))
  times = {'ours': [], 'contextwm': [], 'device': []}
  for _ in range(_WINDOWS):
    for name, server in sides.items():
      seconds = server.ask(['host', counts[name]], deadline)
      times[name].append(1e3 * seconds / counts[name])
    seconds = sides['ours'].ask(['device', counts['ours']], deadline)
    times['device'].append(1e3 * seconds / counts['ours'])
  ms = statistics.median(times['ours'])
  found = {
    **about,
    'ms': times['ours'],
    'device_ms': times['device'],
    **sides['ours'].ask(['end'], deadline),
    'flops': flops,
    'flops_per_second': 1e3 * flops / ms,
    'hours': about['steps'] * ms / 3.6e6,
  }
  if compared:
    pairs = zip(times['contextwm'], times['ours'], strict=True)
    end = sides['contextwm'].ask(['end'], deadline)
    found |= {
      'contextwm_ms': times['contextwm'],
      'contextwm_peak_gib': end['peak_gib'],
      'ratios': [theirs / ours for theirs, ours in pairs],
    }
  return found


HEADER = (
  '| step | batch | trace, compile: s | ms a step, least to most | batch on the'
  ' device, ms | peak, planned: GiB | TFLOP/s (of a product) | a run, hours |'
  ' ContextWM: ms, GiB, ratio |\n|---|---|---|---|---|---|---|---|---|'
)


def line(row: dict[str, Any], matmul_flops: dict[str, float]) -> str:
  """Formats a row of the table in Markdown."""
  names = ('stage', 'preset', 'agent', 'precision')
  what = ', '.join(row[name] for name in names)
  if 'failure' in row:
    why = 'out of memory' if row['out_of_memory'] else row['failure'][:60]
    return f'| {what} | {why.replace("|", "/")} |' + ' |' * 7
  rate = row['flops_per_second']
  theirs = ''
  if 'ratios' in row:
    theirs = (
      f'{_spread(row["contextwm_ms"])}, {_gib(row["contextwm_peak_gib"])},'
      f' {_spread(row["ratios"])}'
    )
  return (
    f'| {what} | {" x ".join(map(str, row["batch"]))} |'
    f' {row["trace_seconds"]:.0f}, {row["compile_seconds"]:.0f} |'
    f' {_spread(row["ms"])} | {statistics.median(row["device_ms"]):.3g} |'
    f' {_gib(row["peak_gib"])}, {row["plan_gib"]:.1f} | {rate / 1e12:.3g}'
    f' ({100 * rate / matmul_flops[row["precision"]]:.1f} %) |'
    f' {row["hours"]:.1f} | {theirs} |'
  )


def _gib(value: float | None) -> str:
  return '-' if value is None else f'{value:.1f}'


def _spread(values: Sequence[float]) -> str:
  return (
    f'{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})'
  )


def introduction(found: dict[str, Any]) -> str:
  """Describes the device, the versions and the speed of matrix products."""
  versions = ', '.join(f'{k} {v}' for k, v in found['versions'].items())
  products = ', '.join(
    f'{name} {rate / 1e12:.3g}' for name, rate in found['matmul_flops'].items()
  )
  return (
    f'{found["devices"]} x {found["device"]} ({found["platform"]},'
    f' {_gib(found["memory_gib"])} GiB)\n{versions}\n'
    f'Large matrix products, TFLOP/s: {products}.'
  )


def beside_cpu(found: dict[str, Any]) -> str:
  """Describes how a step on the device differs from the CPU backend's."""
  what = f'Beside the CPU, {found["stage"]}'
  if 'failure' in found:
    return f'{what}: {found["failure"]}'
  return (
    f'{what}, {found["precision"]}: losses within {found["loss"]:.1e}'
    f' ({found["loss_of"]}), gradients within {found["gradient"]:.1e}'
    f' ({found["gradient_of"]}).'
  )


def differences(stage: str, deadline: float) -> list[dict[str, Any]]:
  """Runs `accelerator_jobs.differences`; returns a failure if it fails."""
  try:
    return do(['differences', stage, _PRECISION.value], deadline)
  except servers.Failure as failure:
    return [{'stage': stage, 'failure': str(failure)}]


def sweep(deadline: float) -> None:
  """Measures the device and all rows, and writes results as they come."""
  # Other processes use the device exclusively; this one only asks them.
  jax.config.update('jax_platforms', 'cpu')
  report = {'minutes': _MINUTES.value, 'differences': [], 'rows': []}
  checkout = os.path.expanduser(_CHECKOUT.value)
  left = rows(_STAGE.value, _PRESET.value, _AGENT.value, _PRECISION.value)
  try:
    report |= do(['device'], deadline)
    print(introduction(report), flush=True)
    for stage in _COMPARED:
      if stage in _STAGE.value:
        for found in differences(stage, deadline):
          print(beside_cpu(found), flush=True)
          report['differences'].append(found)
    print(f'\n{HEADER}', flush=True)
    while left:
      row = measure(left[0], checkout, deadline)
      left.pop(0)
      report['rows'].append(row)
      print(line(row, report['matmul_flops']), flush=True)
      record.save(report)
  except TimeoutError:
    print(f'\n--minutes={_MINUTES.value:g} left no time for {len(left)} rows.')
  report['dropped'] = [dataclasses.asdict(row) for row in left]
  record.finish(report)


def check(deadline: float) -> None:
  """Runs the tests that matter on a device; exits with 1 if one fails."""
  found = []
  for name, result, seconds in plain_tests.run(deadline):
    found.append({'test': name, 'result': result, 'seconds': seconds})
    print(f'{seconds:6.1f} s  {result:7}  {name}', flush=True)
    record.save({'checks': found})
  counts = {
    what: sum(x['result'].startswith(what) for x in found)
    for what in ('passed', 'failed', 'not run')
  }
  print(', '.join(f'{count} {what}' for what, count in counts.items()))
  record.finish({'checks': found})
  if counts['failed']:
    sys.exit(1)


def main(argv: Sequence[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Unknown argument {argv[1]!r}.')
  checkout = pathlib.Path(os.path.expanduser(_CHECKOUT.value))
  if _CHECKOUT.value and not (checkout / 'wmlib').is_dir():
    raise app.UsageError(f'--checkout={_CHECKOUT.value} holds no wmlib.')
  deadline = time.monotonic() + 60 * _MINUTES.value
  if _CHECK.value:
    check(deadline)
    return
  try:
    sweep(deadline)
  except servers.Failure as failure:
    sys.exit(f'Error: the device could not be measured: {failure}')


if __name__ == '__main__':
  _CHECK = flags.DEFINE_bool('check', False, 'Run tests instead of timing.')
  _CHECKOUT = flags.DEFINE_string(
    'checkout', '', 'Checkout of thuml/ContextWM to take turns with.'
  )
  _MINUTES = flags.DEFINE_float('minutes', 8.0, 'Time limit in minutes.', 0.0)
  _STAGE = flags.DEFINE_multi_enum(
    'stage', steps.STAGES, steps.STAGES, 'Stage; may be repeated.'
  )
  _PRESET = flags.DEFINE_multi_enum(
    'preset',
    ('paper', 'small', 'nano'),
    base.PRESETS,
    'Preset; may be repeated.',
  )
  _AGENT = flags.DEFINE_multi_enum(
    'agent', AGENTS, AGENTS, 'System; may be repeated.'
  )
  _PRECISION = flags.DEFINE_multi_enum(
    'precision', PRECISIONS, PRECISIONS, 'Precision; may be repeated.'
  )
  app.run(main)
