r"""Jobs of the processes of `benchmarks.accelerator`, one at a time.

  python -m benchmarks.accelerator_jobs '["device"]'
  python -m benchmarks.accelerator_jobs \
      '["differences", "pretrain", ["float32"]]'
  python -m benchmarks.accelerator_jobs \
      '["step", "pretrain", "nano", "drp", "bfloat16"]'

Each answers as described in benchmarks/servers.py. None of them uses the
compilation cache, because seconds to compile are measured.
"""

import dataclasses
import functools
import json
import platform
import sys
import time
from concurrent import futures
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import servers, steps
from drp_jax.runs import parallel

# Precision -> `config.compute_dtype` and JAX's precision of matrix products.
PRECISIONS = {
  'bfloat16': ('bfloat16', None),
  'float32': ('float32', None),
  'highest': ('float32', 'highest'),
}
_PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'chex', 'numpy', 'ml_collections'),
  *('jax-cuda12-pjrt', 'jax-cuda13-pjrt', 'libtpu', 'torch'),
)
_GIB = 2**30
_LONG = 0.01  # seconds of a matrix product that fills the device
_WIDEST = 16384  # largest side of a matrix


def device() -> dict[str, Any]:
  """Describes the device and measures its large matrix products.

  Returns:
    Names, versions, memory, and `matmul_flops` by precision: operations per
    second, the best of several products of random matrices.
  """
  found, versions = jax.local_devices()[0], {}
  for name in _PACKAGES:
    try:
      versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  stats = found.memory_stats() or {}
  return {
    'device': found.device_kind,
    'platform': found.platform,
    'devices': jax.local_device_count(),
    'memory_gib': stats.get('bytes_limit', 0) / _GIB or None,
    'versions': {'python': platform.python_version(), **versions},
    'matmul_flops': {
      name: _matmul_flops(*PRECISIONS[name]) for name in PRECISIONS
    },
  }


def _matmul_flops(dtype: str, precision: str | None) -> float:
  """Measures a matrix product, doubling the matrices until it takes long."""
  multiply = jax.jit(functools.partial(jnp.matmul, precision=precision))
  size, seconds = 512, 0.0
  while seconds < _LONG and size < _WIDEST:
    size *= 2
    a, b = jax.random.normal(jax.random.key(0), (2, size, size), dtype)
    multiply(a, b).block_until_ready()
    seconds = min(_seconds(lambda: multiply(a, b)) for _ in range(5))  # noqa: B023
  return 2.0 * size**3 / seconds


def _seconds(function) -> float:
  begin = time.perf_counter()
  jax.block_until_ready(function())
  return time.perf_counter() - begin


def differences(stage: str, precisions: list[str]) -> list[dict[str, Any]]:
  """Compares a debug step on the device with the CPU backend of the host.

  Both take the same state, batch and noise. The reference is the CPU's step in
  float32.

  Args:
    stage: one of `steps.STAGES`.
    precisions: keys of `PRECISIONS`.

  Returns:
    For each precision: `loss`, the largest difference of a loss relative to its
    value; `gradient`, the largest difference of a gradient relative to the
    largest value of its array and 0.02 times the norm of its parameter set
    (some are zero except for rounding), as in tests/runs/parallel_test.py; and
    the names of both.
  """
  names = jax.config.jax_platforms
  if names and 'cpu' not in names.split(','):
    jax.config.update('jax_platforms', f'{names},cpu')
  cpu, here = jax.devices('cpu')[0], jax.local_devices()[0]
  step = steps.make_step(stage, 'float32', 'debug')
  with jax.default_device(cpu):
    state = jax.device_get(step.init())
  with futures.ThreadPoolExecutor() as pool:
    # Both compile at the same time.
    reference = pool.submit(_recorded, stage, 'highest', state, cpu)
    found = {name: _recorded(stage, name, state, here) for name in precisions}
    losses, gradients = reference.result()
  return [
    {
      'stage': stage,
      'precision': name,
      **largest('loss', own[0], losses),
      **largest('gradient', own[1], gradients),
    }
    for name, own in found.items()
  ]


def _recorded(stage, precision, state, where):
  """Computes losses and gradients of a debug step, by name."""
  dtype, matmul = PRECISIONS[precision]
  step = steps.make_step(stage, dtype, 'debug')
  learner = step.learner()
  optimizers = {
    field.name
    for field in dataclasses.fields(learner)
    if field.name.endswith('tx')
  }
  learner = dataclasses.replace(
    learner, **dict.fromkeys(optimizers, _recorder())
  )
  policy = {'actor', 'critic'} & state.params.keys()
  parts = {'opt_state': state.params}
  if optimizers != {'tx'}:
    parts = {
      'model_opt': {k: v for k, v in state.params.items() if k not in policy},
      'behavior_opt': {k: state.params[k] for k in policy},
    }
  state = state.replace(**jax.tree.map(np.zeros_like, parts))
  inputs = state, steps.random_batch(step), jax.random.key(1)
  with jax.default_matmul_precision(matmul):
    after, metrics = jax.jit(learner.update)(*jax.device_put(inputs, where))
  after, metrics = jax.device_get((after, metrics))
  gradients = {
    jax.tree_util.keystr(path, simple=True, separator='/'): leaf
    for name in parts
    for path, leaf in jax.tree.leaves_with_path(getattr(after, name))
  }
  losses = {k: v for k, v in metrics.items() if k.startswith('loss/')}
  return losses, gradients


def _recorder() -> optax.GradientTransformation:
  """Makes an optimizer without updates, whose state is the last gradient."""

  def update(gradients, state, params=None):
    del state, params
    return jax.tree.map(jnp.zeros_like, gradients), gradients

  return optax.GradientTransformation(lambda params: params, update)


def largest(
  kind: str, found: dict[str, Any], expected: dict[str, Any]
) -> dict[str, Any]:
  """Finds the largest relative difference of arrays.

  Args:
    kind: 'loss', or 'gradient' of parameters 'set/...'.
    found: arrays by name.
    expected: arrays by name.

  Returns:
    {kind: difference, kind_of: name}.
  """
  squares, rows = {}, []
  for name, array in expected.items():
    part = name.partition('/')[0]
    squares[part] = squares.get(part, 0.0) + float(np.square(array).sum())
  for name, array in expected.items():
    scale = np.abs(array).max()
    if kind == 'gradient':
      scale += 0.02 * squares[name.partition('/')[0]] ** 0.5
    difference = np.abs(found[name] - array).max()
    # If both are zero, there is no difference.
    rows.append((float(difference / max(scale, 1e-30)), name))
  # NaN is larger than any number.
  value, name = max(rows, key=lambda row: (row[0] != row[0], row))
  return {kind: value, f'{kind}_of': name}


class TimedStep:
  """A training step on the first device, compiled, that can be timed."""

  def __init__(self, stage: str, preset: str, agent: str, precision: str):
    dtype, matmul = PRECISIONS[precision]
    jax.config.update('jax_default_matmul_precision', matmul)
    step = steps.make_step(stage, dtype, preset, agent)
    learner = step.learner(parallel.AXIS)
    first, self._traces = jax.local_devices()[:1], 0

    def counted(*args):
      self._traces += 1
      return learner.update(*args)

    self._step = parallel.pmap_step(counted, first)
    batch = parallel.shard(steps.random_batch(step), 1)
    self._state = parallel.replicate(step.init(), first)
    # Batches on the host, as in a run, and batches already on the device.
    self._batches = {'host': batch, 'device': jax.device_put(batch, first[0])}
    self._key = jax.random.key(0)
    begin = time.monotonic()
    lowered = self._step.lower(self._state, batch, self._key)
    traced = time.monotonic()
    compiled = lowered.compile()
    self.about = {
      'batch': list(step.example.image.shape[:2]),
      'steps': step.steps,
      'parameters': sum(x.size for x in jax.tree.leaves(step.state.params)),
      'trace_seconds': traced - begin,
      'compile_seconds': time.monotonic() - traced,
      **_plan(compiled),
    }

  def answer(self, question: Any) -> Any:
    """Answers one question.

    Args:
      question: ['host' or 'device', steps], the origin of batches; or ['end'].

    Returns:
      Seconds that the steps took; or at the end `peak_gib` of the device, None
      if unknown, and `traces`, which are more than one if arguments of the step
      changed their types.
    """
    kind, *count = question
    if kind == 'end':
      stats = jax.local_devices()[0].memory_stats() or {}
      peak = stats.get('peak_bytes_in_use')
      return {
        'peak_gib': None if peak is None else peak / _GIB,
        'traces': self._traces,
      }
    begin = time.perf_counter()
    for _ in range(count[0]):
      self._state, _ = self._step(self._state, self._batches[kind], self._key)
    jax.block_until_ready(self._state)
    return time.perf_counter() - begin


def _plan(compiled) -> dict[str, Any]:
  """Returns memory planned and operations counted by XLA, loops once."""
  plan, cost = compiled.memory_analysis(), compiled.cost_analysis()
  held = (
    plan.argument_size_in_bytes
    + plan.output_size_in_bytes
    + plan.temp_size_in_bytes
    - plan.alias_size_in_bytes
  )
  return {'plan_gib': held / _GIB, 'xla_flops': (cost or {}).get('flops')}


def main() -> None:
  job, *arguments = json.loads(sys.argv[1])
  jax.config.update('jax_enable_compilation_cache', False)

  def start():
    if job == 'step':
      step = TimedStep(*arguments)
      return step.about, step.answer
    done = {'device': device, 'differences': differences}[job]
    return done(*arguments), lambda _: None

  servers.serve(start)


if __name__ == '__main__':
  main()
