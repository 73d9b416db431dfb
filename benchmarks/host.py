r"""Measures whether the host keeps up: data, replay, and the time to start.

  python -m benchmarks.host --shards_dir=runs/demo/shards
  python -m benchmarks.host --shards_dir=runs/demo/shards --json

Batches come from real shards (of `make demo` or experiments.run_preprocess) and
from a replay buffer on disk. The command times batches alone, the step alone,
and both as in training; the important number is how long a step waits for its
batch. The start-up time is that of a process after its imports, with an empty
compilation cache and with the cache that the first start filled.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from benchmarks import record, steps
from configs import base
from drp_jax.data import input_pipeline, replay, schema
from drp_jax.runs import logger, parallel
from drp_jax.train import batches
from experiments import launch

_EPISODES, _LENGTH = 10, 200  # episodes in the replay buffer, steps of each


def clips(step: steps.Step, shards_dir: str, folder: str) -> Iterator[Any]:
  """Yields batches of pre-training."""
  del folder
  c = step.config
  iterator = input_pipeline.make_iterator(
    shards_dir,
    'train',
    c.data.clip_length,
    c.data.batch_size,
    step.learner().num_keypoints,
    c.seed,
  )
  return map(batches.video_batch, iterator)


def segments(step: steps.Step, shards_dir: str, folder: str) -> Iterator[Any]:
  """Yields batches of fine-tuning, from episodes of random numbers."""
  del shards_dir
  c, rng = step.config, np.random.default_rng(0)
  fields = schema.replay_fields(
    step.learner().start.num_keypoints, step.action_size
  )
  buffer = replay.Replay(
    pathlib.Path(folder), fields, c.replay.capacity, c.replay.flow_dtype
  )
  for _ in range(_EPISODES):
    episode = {
      name: rng.uniform(0, 60, (_LENGTH, *field.shape)).astype(field.dtype)
      for name, field in fields.items()
    }
    episode['is_first'] = np.arange(_LENGTH) == 0
    episode['is_last'] = np.arange(_LENGTH) == _LENGTH - 1
    episode['is_terminal'] = np.zeros(_LENGTH, bool)
    buffer.add_episode(episode)
  while True:
    yield batches.replay_batch(
      buffer.sample(rng, c.replay.batch_size, c.replay.segment_length)
    )


BATCHES = {'pretrain': clips, 'dmcr': segments}


def measure(
  stage: str, preset: str, shards_dir: str, turns: int
) -> dict[str, float]:
  """Times batches and steps of a stage on one device, alone and together.

  Returns:
    Medians in milliseconds: `batch` alone; `step` alone; `both`, a step with
    its wait for a batch, without reading results in between; `waited`, the
    wait.
  """
  step = steps.make_step(stage, 'float32', preset)
  state = parallel.replicate(step.init())
  key = jax.random.key(0)
  pmapped = parallel.pmap_step(
    step.learner(parallel.AXIS).update, jax.local_devices()[:1]
  )
  with tempfile.TemporaryDirectory() as folder:
    source = BATCHES[stage](step, shards_dir, folder)
    batch = parallel.shard(next(source), 1)
    state, _ = jax.block_until_ready(pmapped(state, batch, key))
    alone, together, waited = [], [], []
    fetched = [_seconds(lambda: next(source)) for _ in range(turns)]
    for _ in range(turns):
      begin = time.perf_counter()
      state, _ = jax.block_until_ready(pmapped(state, batch, key))
      alone.append(time.perf_counter() - begin)
    for _ in range(turns):
      begin = time.perf_counter()
      batch = parallel.shard(next(source), 1)
      waited.append(time.perf_counter() - begin)
      # The previous step is computed in the meantime.
      jax.block_until_ready(state)
      state, _ = pmapped(state, batch, key)
      together.append(time.perf_counter() - begin)
    jax.block_until_ready(state)
  found = dict(batch=fetched, step=alone, both=together, waited=waited)
  return {name: 1e3 * statistics.median(x) for name, x in found.items()}


def _seconds(function: Callable[[], Any]) -> float:
  begin = time.perf_counter()
  function()
  return time.perf_counter() - begin


def start(stage: str, preset: str, cache: str) -> float:
  """Times a process that takes the three steps of benchmarks/memory.py."""
  begin = time.perf_counter()
  subprocess.run(
    [
      *(sys.executable, '-m', 'benchmarks.memory', '--child'),
      *(f'--stage={stage}', f'--preset={preset}', '--remat=false'),
    ],
    env={**os.environ, 'JAX_COMPILATION_CACHE_DIR': cache},
    stdout=subprocess.DEVNULL,
    check=True,
  )
  return time.perf_counter() - begin


def table(rows: list[dict[str, Any]]) -> str:
  """Formats all results as a table in Markdown."""
  lines = [
    '| what | batch alone, ms | step alone, ms | both, ms (waits) |'
    ' first steps, empty cache, s | filled, s |',
    '|---|---|---|---|---|---|',
  ]
  lines += [
    f'| {row["stage"]}, {row["preset"]} | {row["batch"]:.1f} |'
    f' {row["step"]:.0f} | {row["both"]:.0f} ({row["waited"]:.1f}) |'
    f' {row["start_empty"]:.0f} | {row["start_filled"]:.0f} |'
    for row in rows
  ]
  return '\n'.join(lines)


def main() -> None:
  rows = []
  jobs = [(s, p) for p in _PRESET.value for s in _STAGE.value]
  for stage, preset in logger.progress(jobs, 'host', 'step'):
    row = measure(stage, preset, _SHARDS.value, _TURNS.value)
    with tempfile.TemporaryDirectory() as cache:
      row['start_empty'] = start(stage, preset, cache)
      row['start_filled'] = start(stage, preset, cache)
    rows.append({'stage': stage, 'preset': preset, **row})
  print(table(rows))
  record.finish({'turns': _TURNS.value, 'results': rows})


if __name__ == '__main__':
  _SHARDS = flags.DEFINE_string('shards_dir', None, 'Shards of real clips.')
  _TURNS = flags.DEFINE_integer('turns', 30, 'Number of timed steps.', 2)
  _STAGE = flags.DEFINE_multi_enum(
    'stage', list(BATCHES), list(BATCHES), 'Stage; may be repeated.'
  )
  _PRESET = flags.DEFINE_multi_enum(
    'preset', ('nano',), base.PRESETS, 'Preset; may be repeated.'
  )
  flags.mark_flag_as_required('shards_dir')
  launch.run(main)
