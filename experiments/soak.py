r"""Fine-tunes for hours under injected faults, and reports whether it survives.

  python -m experiments.soak --workdir=runs/soak --minutes=120

Processes of environments are killed repeatedly, some episodes have an invalid
frame or reward, and in one minute of five another thread keeps the disk of the
workdir busy. At the end the run gets SIGTERM, as from a scheduler, and saves.
The workdir then holds soak.csv (memory and steps, every ten seconds), soak.png
and soak.json.
"""

import csv
import json
import os
import pathlib
import random
import signal
import threading
import time

import gymnasium
import ml_collections
import numpy as np
from absl import flags

from configs import finetune_dmcr
from drp_jax import files
from drp_jax.envs import gl
from experiments import finetune_work, launch

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_MINUTES = flags.DEFINE_float('minutes', 120.0, 'Minutes until SIGTERM.')
_KILL_SECONDS = flags.DEFINE_float(
  'kill_seconds', 180.0, 'Seconds between kills of an environment.'
)
_PRESET = flags.DEFINE_string(
  'preset', 'nano', 'Preset of configs/finetune_dmcr.py.'
)

_SAMPLE_SECONDS = 10.0
_BAD = 40  # one episode of this many has a bad frame, another a bad reward
_BAD_STEP = 10
_DISK_PERIOD, _DISK_BUSY = 300.0, 60.0  # seconds
_BLOCK = bytes(2**24)


class Faulty(gymnasium.Wrapper):
  """An environment with faults in episodes that are chosen by their seeds."""

  def reset(self, *, seed=None, options=None):
    """Begins the episode and chooses by its seed what goes wrong in it."""
    self._kind, self._count = seed % _BAD, 0
    return self.env.reset(seed=seed, options=options)

  def step(self, action):
    """Takes a step, whose image or reward may be of a wrong kind."""
    image, reward, *others = self.env.step(action)
    self._count += 1
    if self._count == _BAD_STEP and self._kind == 0:
      image = image.astype(np.float32)
    if self._count == _BAD_STEP and self._kind == 1:
      reward = float('nan')
    return image, reward, *others


def open_env(config: ml_collections.ConfigDict) -> gymnasium.Env:
  """Opens the environment of the soak test, in its own process."""
  return Faulty(finetune_work.open_suite(config))


class Troubles:
  """Threads that inject faults and measure, until `end`."""

  def __init__(self, workdir: pathlib.Path, seconds: float, kill: float):
    """Starts the threads.

    Args:
      workdir: folder of the run.
      seconds: seconds until this process gets SIGTERM.
      kill: seconds between kills.
    """
    self._workdir = workdir
    self._over = threading.Event()
    self._start = time.monotonic()
    self.kills = 0
    self.samples = []  # seconds, MB of this process, MB of its children
    self._threads = [
      threading.Thread(target=target, args=args, daemon=True)
      for target, args in (
        (self._sample, ()),
        (self._kill, (kill,)),
        (self._disk, ()),
        (self._stop, (seconds,)),
      )
    ]
    for thread in self._threads:
      thread.start()

  def end(self) -> None:
    """Waits for the threads."""
    self._over.set()
    for thread in self._threads:
      thread.join()

  def _sample(self) -> None:
    while not self._over.wait(_SAMPLE_SECONDS):
      children = [_megabytes(pid) for pid in _children()]
      seconds = time.monotonic() - self._start
      self.samples.append((seconds, _megabytes(os.getpid()), sum(children)))

  def _kill(self, every: float) -> None:
    rng = random.Random(0)
    while not self._over.wait(every):
      pids = [pid for pid in _children() if 'drp_jax.envs' in _command(pid)]
      if pids:
        os.kill(rng.choice(pids), signal.SIGKILL)
        self.kills += 1

  def _disk(self) -> None:
    path = self._workdir / 'soak.tmp'
    while not self._over.wait(_DISK_PERIOD - _DISK_BUSY):
      end = time.monotonic() + _DISK_BUSY
      while time.monotonic() < end and not self._over.is_set():
        with open(path, 'wb') as file:
          file.write(_BLOCK)
          file.flush()
          os.fsync(file.fileno())
      path.unlink(missing_ok=True)

  def _stop(self, seconds: float) -> None:
    if not self._over.wait(seconds):
      os.kill(os.getpid(), signal.SIGTERM)


def summary(workdir: pathlib.Path, troubles: Troubles) -> dict:
  """Summarizes the run.

  Returns:
    Steps per second and megabytes in each tenth of the time, injected faults,
    episodes kept and dropped; `steps_in_order`, whether the steps of the
    metrics increase and no episode is missing; `saved_step`, step of the newest
    checkpoint.
  """
  from drp_jax.runs import checkpoint, logger
  from drp_jax.runs import workdir as workdir_lib

  lines = logger.read_metrics(workdir)
  episodes = [line for line in lines if 'episode/number' in line]
  rates = [
    line['time/agent_steps_per_second']
    for line in lines
    if 'time/agent_steps_per_second' in line
  ]
  steps = [line['step'] for line in lines]
  saved = checkpoint.Checkpoints(workdir)
  dropped = int(episodes[-1]['episode/dropped']) if episodes else 0
  own = [megabytes for _, megabytes, _ in troubles.samples]
  result = {
    'minutes': round(troubles.samples[-1][0] / 60, 1),
    'steps_per_second': _tenths(rates),
    'megabytes': _tenths(own),
    'megabytes_of_environments': _tenths([m for *_, m in troubles.samples]),
    'killed_environments': troubles.kills,
    'episodes_kept': len(episodes),
    'episodes_dropped': dropped,
    'steps_in_order': steps == sorted(steps)
    and all(
      a['episode/number'] < b['episode/number']
      for a, b in zip(episodes[:-1], episodes[1:], strict=True)
    ),
    'updates_skipped': int(max(line.get('skipped', 0) for line in lines)),
    'saved_step': saved.latest_step(),
    'last_logged_step': steps[-1],
    'run': workdir_lib.describe(),
  }
  saved.close()
  return result


def plot(path: pathlib.Path, samples: list[tuple[float, float, float]]) -> None:
  """Draws memory over time."""
  import matplotlib

  matplotlib.use('Agg')
  from matplotlib import pyplot

  minutes, own, others = np.array(samples).T
  figure, axes = pyplot.subplots(figsize=(7, 3), layout='constrained')
  axes.plot(minutes / 60, own, label='training')
  axes.plot(minutes / 60, others, label='environments')
  axes.set(xlabel='minutes', ylabel='resident memory, MB', ylim=(0, None))
  axes.legend()
  figure.savefig(path, dpi=120)
  pyplot.close(figure)


def main() -> None:
  workdir = pathlib.Path(_WORKDIR.value)
  workdir.mkdir(parents=True, exist_ok=True)
  config = finetune_dmcr.get_config(_PRESET.value)
  config.env.suite = 'dmc'
  config.task = 'walker_stand'
  config.env.num_envs = 2
  config.finetune.num_steps = 10**9  # until SIGTERM
  gl.select_backend()  # once, not in every process
  troubles = Troubles(workdir, 60 * _MINUTES.value, _KILL_SECONDS.value)
  try:
    finetune_work.finetune(config, str(workdir), open_env)
  except SystemExit as end:
    if end.code:
      raise
  finally:
    troubles.end()
  with (
    files.replacing(workdir / 'soak.csv') as partial,
    open(partial, 'w', newline='') as file,
  ):
    rows = csv.writer(file)
    rows.writerow(('seconds', 'megabytes', 'megabytes_of_environments'))
    rows.writerows(tuple(round(x, 1) for x in row) for row in troubles.samples)
  plot(workdir / 'soak.png', troubles.samples)
  result = summary(workdir, troubles)
  files.write_json(workdir / 'soak.json', result)
  print(json.dumps(result, indent=2))


def _tenths(values: list[float]) -> list[float]:
  """Averages values over tenths of the time."""
  parts = np.array_split(np.asarray(values, float), min(10, len(values)) or 1)
  return [round(float(part.mean()), 2) for part in parts if len(part)]


def _children() -> list[int]:
  """Lists the child processes."""
  found = []
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    try:
      # State, parent and so on follow the name, which may contain anything.
      parent = path.read_text().rpartition(')')[2].split()[1]
    except OSError:  # it has ended
      continue
    if int(parent) == os.getpid():
      found.append(int(path.parent.name))
  return found


def _command(pid: int) -> str:
  try:
    return pathlib.Path(f'/proc/{pid}/cmdline').read_text()
  except OSError:
    return ''


def _megabytes(pid: int) -> float:
  """Reads the resident memory of a process."""
  try:
    pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
  except OSError:
    return 0.0
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  launch.run(main)
