r"""Measures the replay buffer beside those of DreamerV3 and ContextWM.

  python -m benchmarks.replay           # tables for people
  python -m benchmarks.replay --json    # and one line for machines
  python -m benchmarks.replay --dreamerv3=CHECKOUT --contextwm=CHECKOUT

First what int8 loses of flow, on robots that are filmed here. Then time, memory
and disk, with frames of those films, each buffer in a process of its own. The
code of the others is read from the user's checkouts (danijar/dreamerv3, which
needs `pip install elements`, and thuml/ContextWM, which needs torch); without
them they are left out. For Linux, which tells a process of its memory.
"""

import concurrent.futures
import ctypes
import functools
import gc
import multiprocessing
import os
import pathlib
import re
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import flags

from benchmarks import record, replay_buffers
from configs import extract as extract_config
from drp_jax.data import replay as replay_lib
from drp_jax.data import schema
from drp_jax.envs import make, renders
from drp_jax.preprocess import backends
from drp_jax.preprocess import flow as flow_lib
from drp_jax.runs import logger
from experiments import launch

TASKS = {
  'walker': ('dmc', 'walker_run'),
  'cheetah': ('dmc', 'cheetah_run'),
  'walker, textured': ('dmcr', 'walker_run'),
  'hopper, textured': ('dmcr', 'hopper_hop'),
  'arm': ('metaworld', 'drawer-open'),
}
FRAMES = 101  # of a film
BATCHES = (16, 50)  # segments: DMC Remastered, Meta-World      [Table 5]
DRAWS = 15  # batches, of which the median counts
_EPISODE = 501  # entries, with the first                       [D14]

Steps = replay_buffers.Steps
LENGTH, CAPACITY = replay_buffers.LENGTH, replay_buffers.CAPACITY


def film(suite: str, task: str, frames: int = FRAMES) -> Steps:
  """Frames of a robot that moves at random, and the flow between them.

  Args:
    suite: 'dmc', 'dmcr' or 'metaworld'.
    task: its name there.
    frames: T.

  Returns:
    image: [T, 64, 64, 3] uint8.
    flow: [T, 64, 64, 2] float16, by the default back-end.
  """
  settings = extract_config.get_config('robot').to_dict()
  how = make.Settings(suite, renders.ACTION_REPEAT, shadow_size=512)
  env = make.make_env(how, task)
  image, _ = renders.rollout(env, frames, np.random.default_rng(0))
  env.close()
  flow = backends.make_backends(backends.Settings(**settings)).flow
  return {
    'image': image,
    'flow': flow_lib.over_clip(flow, schema.Footage(image)),
  }


def episode(clip: Steps, length: int, motion: bool) -> Steps:
  """An episode with the frames of a film, over and over.

  Args:
    clip: from `film`.
    length: T, entries.
    motion: with what the extractor adds, or images alone.

  Returns:
    The fields of `schema.replay_fields`, [T, ...].
  """
  rng = np.random.default_rng(0)
  again = np.arange(length) % len(clip['image'])
  steps = {
    name: clip[name][again]
    if name in clip
    else rng.uniform(0, 60, (length, *field.shape)).astype(field.dtype)
    for name, field in replay_buffers.fields(motion).items()
  }
  steps['is_first'] = np.arange(length) == 0
  steps['is_last'] = np.arange(length) == length - 1
  steps['is_terminal'] = np.zeros(length, bool)
  return steps


def flow_errors(clip: Steps, folder: pathlib.Path) -> dict[str, float]:
  """What flow loses in a buffer with int8.

  Args:
    clip: from `film`.
    folder: empty.

  Returns:
    rms: of flow, pixels per frame and component.
    rms_error: of what comes back.
    relative: of these, error over flow.
    saturated: share of components beyond the range of int8.
    lost: share of vectors longer than 1/16 pixel that come back as zero.
  """
  length = len(clip['image'])
  replay = replay_lib.Replay(
    folder, replay_buffers.fields(True), length, 'int8'
  )
  replay.add_episode(episode(clip, length, True))
  stored = replay.sample(np.random.default_rng(0), 1, length)['flow'][0, 1:]
  true = clip['flow'][1:].astype(np.float64)
  rms, error = _rms(true), _rms(stored - true)
  long = np.linalg.norm(true, axis=-1) > 1 / 16
  return {
    'rms': rms,
    'rms_error': error,
    'relative': error / rms,
    'saturated': float((np.abs(true) > 127 / 8).mean()),
    'lost': float((~stored.any(-1))[long].mean()),
  }


def _rms(array: np.ndarray) -> float:
  return float(np.sqrt(np.square(array).mean()))


def measure(
  make_buffer: Callable[..., replay_buffers.Buffer],
  arguments: tuple[Any, ...],
  clips: list[Steps],
  motion: bool,
  num_steps: int,
  scratch: str | None,
) -> dict[str, float | None]:
  """Fills a buffer and draws from it, in this process.

  Args:
    make_buffer: one of the classes of replay_buffers.py.
    arguments: of it, after the folder.
    clips: from `film`; episodes are made of them in turn.
    motion: with flow and points, or images alone.
    num_steps: to add.
    scratch: folder for files that are deleted at the end; None is the system's.

  Returns:
    add_us: to add a step and save it.
    ms_16, ms_50: to draw a batch of so many segments, the median.
    cold_ms_16: the same when the page cache holds no step; None if the buffer
      reads no files.
    memory: bytes that the process grows by with each step of the second half,
      batches drawn; the page cache is not in it.
    disk: bytes per step.
    restart: seconds from files, none of them in the page cache, to a batch.
  """
  half = max(1, num_steps // _EPISODE // 2)  # episodes
  stops = (0, half - 1, 2 * half - 1)  # what happens once happens at the first
  seconds, memory = 0.0, []
  with tempfile.TemporaryDirectory(dir=scratch) as name:
    folder = pathlib.Path(name)
    buffer = make_buffer(folder, *arguments)
    draw = {size: functools.partial(buffer.batch, size) for size in BATCHES}
    for number in range(2 * half):
      steps = episode(clips[number % len(clips)], _EPISODE, motion)
      start = time.perf_counter()
      buffer.add(steps)
      if number in stops:
        buffer.save()
      seconds += time.perf_counter() - start
      if number in stops:
        times = {f'ms_{size}': _median_ms(draw[size]) for size in BATCHES}
        memory.append(_memory())
    cold = None
    if isinstance(buffer, replay_buffers.Ours):
      cold = _median_ms(draw[BATCHES[0]], lambda: _leave_page_cache(folder))
    size = sum(path.stat().st_size for path in folder.iterdir())
    _leave_page_cache(folder)
    start = time.perf_counter()
    buffer.restart()
    buffer.batch(BATCHES[0])
    return {
      'add_us': 1e6 * seconds / (2 * half * _EPISODE),
      **times,
      'cold_ms_16': cold,
      'memory': (memory[-1] - memory[-2]) / (half * _EPISODE),
      'disk': size / (2 * half * _EPISODE),
      'restart': time.perf_counter() - start,
    }


def _median_ms(
  draw: Callable[[], Any], prepare: Callable[[], None] = lambda: None
) -> float:
  """Median of DRAWS times, after two that do not count."""
  times = []
  for _ in range(DRAWS + 2):
    prepare()
    start = time.perf_counter()
    draw()
    times.append(time.perf_counter() - start)
  return 1e3 * float(np.median(times[2:]))


def _memory() -> int:
  """Bytes that this process has in RAM.

  Without what malloc keeps for later, and without pages of files such as
  libraries, which the kernel drops and reads again as it likes.
  """
  gc.collect()
  trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)  # glibc only
  if trim:
    trim(0)
  status = pathlib.Path('/proc/self/status').read_text(encoding='utf-8')
  return 1024 * int(re.search(r'RssAnon:\s+(\d+) kB', status)[1])


def _leave_page_cache(folder: pathlib.Path) -> None:
  """Asks the kernel to keep nothing of some files in RAM."""
  for path in folder.iterdir():
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def contestants(
  checkouts: dict[str, str],
) -> dict[str, tuple[type[replay_buffers.Buffer], tuple[Any, ...], bool]]:
  """What is compared: with images alone, and with motion.

  Args:
    checkouts: 'dreamerv3' and 'contextwm' to folders, '' to leave them out.

  Returns:
    Name to the arguments of `measure` that differ: class, arguments, motion.
  """
  found = {}
  for motion in (False, True):
    content = 'images and motion' if motion else 'images'
    for flow_dtype in replay_lib.FLOW_DTYPES if motion else ('float16',):
      name = f'ours, {content}' + (f', {flow_dtype}' if motion else '')
      found[name] = replay_buffers.Ours, (motion, flow_dtype), motion
    for kind in (replay_buffers.DreamerV3, replay_buffers.ContextWM):
      checkout = checkouts[kind.__name__.lower()]
      if checkout:
        found[f'{kind.__name__}, {content}'] = kind, (checkout,), motion
  return found


def compare(
  buffers: dict[str, tuple[type[replay_buffers.Buffer], tuple[Any, ...], bool]],
  clips: list[Steps],
  num_steps: int,
  scratch: str | None,
) -> dict[str, dict[str, float | None]]:
  """Measures buffers, each in a process of its own.

  Args:
    buffers: from `contestants`.
    clips: from `film`.
    num_steps: to add to each.
    scratch: see `measure`.

  Returns:
    Name to what `measure` gives; what cannot be run is left out, and said.
  """
  rows = {}
  context = multiprocessing.get_context('spawn')
  for name in logger.progress(list(buffers), 'replay', 'buffer'):
    make_buffer, arguments, motion = buffers[name]
    with concurrent.futures.ProcessPoolExecutor(1, context) as pool:
      run = pool.submit(
        measure, make_buffer, arguments, clips, motion, num_steps, scratch
      )
      try:
        rows[name] = run.result()
      except ImportError as error:
        print(f'{name}: left out, {error}.')
  return rows


def flow_table(errors: dict[str, dict[str, float]]) -> str:
  """What int8 loses, in Markdown."""
  lines = [
    '| flow in int8 | RMS, px | RMS error | of RMS | saturated | lost |',
    '|---' * 6 + '|',
  ]
  for name, e in errors.items():
    lines.append(
      f'| {name} | {e["rms"]:.3f} | {e["rms_error"]:.4f} | {e["relative"]:.1%}'
      f' | {e["saturated"]:.3%} | {e["lost"]:.2%} |'
    )
  return '\n'.join(lines)


def table(rows: dict[str, dict[str, float | None]]) -> str:
  """Buffers, in Markdown; memory and disk for CAPACITY steps."""
  lines = [
    f'| replay | add, us a step | {BATCHES[0]}x{LENGTH}, ms '
    f'| {BATCHES[1]}x{LENGTH}, ms | {BATCHES[0]}x{LENGTH} from disk, ms '
    '| RAM at 10^6 steps, GB | disk, GB | restart, s |',
    '|---' * 8 + '|',
  ]
  for name, row in rows.items():
    cold = row['cold_ms_16']
    lines.append(
      f'| {name} | {row["add_us"]:.0f} | {row["ms_16"]:.1f}'
      f' | {row["ms_50"]:.1f} | {"-" if cold is None else f"{cold:.1f}"}'
      f' | {row["memory"] * CAPACITY / 1e9:.2f}'
      f' | {row["disk"] * CAPACITY / 1e9:.1f} | {row["restart"]:.2f} |'
    )
  return '\n'.join(lines)


def main() -> None:
  clips = {name: film(*task) for name, task in TASKS.items()}
  errors = {}
  for name, clip in clips.items():
    with tempfile.TemporaryDirectory() as scratch:
      errors[name] = flow_errors(clip, pathlib.Path(scratch))
  print(flow_table(errors))
  checkouts = {'dreamerv3': _DREAMERV3.value, 'contextwm': _CONTEXTWM.value}
  for name, checkout in checkouts.items():
    if not checkout:
      print(f'{name}: left out, --{name} names no checkout.')
  rows = compare(
    contestants(checkouts), list(clips.values()), _STEPS.value, _SCRATCH.value
  )
  print(table(rows))
  record.finish({'flow': errors, 'replays': rows, 'steps': _STEPS.value})


if __name__ == '__main__':
  _STEPS = flags.DEFINE_integer(
    'steps', 10_000, 'How many to add to each buffer.', 1
  )
  _DREAMERV3 = flags.DEFINE_string(
    'dreamerv3', '', 'Checkout of danijar/dreamerv3.'
  )
  _CONTEXTWM = flags.DEFINE_string(
    'contextwm', '', 'Checkout of thuml/ContextWM.'
  )
  _SCRATCH = flags.DEFINE_string(
    'scratch', None, "Folder on the disk to measure; else the system's."
  )
  launch.run(main)
