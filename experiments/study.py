r"""Runs a matrix of systems, tasks, seeds and presets: the paper's figures.

  python -m experiments.study --list
  python -m experiments.study --config=configs/studies/paper.py:fig4 --dry-run
  python -m experiments.study --config=configs/studies/paper.py:fig4 \
      --preset=nano --config.shards_dir=shards/mine --config.seeds='(0, 1)' \
      --workdir=runs/studies --jobs=2

Every run is a separate command, which --dry-run prints, in a separate folder
below --workdir, with its output in log.txt. The folder is named after the
settings, so studies in one --workdir share common runs, above all
pre-trainings. A stopped study (Ctrl-C and SIGTERM let the runs save) resumes
when it is started again; complete runs are not run again. A run that fails is
reported, runs that need it are left out, and the others continue.

--devices=0,1,2,3 gives each of --jobs=4 a GPU. Curves and tables:
experiments/plot_results.py.
"""

import ast
import collections
import dataclasses
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from configs import base
from configs.studies import paper, throughput
from experiments import launch, study_index, study_runs

_STUDIES = pathlib.Path(__file__).parents[1] / 'configs' / 'studies'
_NO_STUDIES = (
  *('__init__', 'base', 'paper', 'printed', 'systems', 'throughput'),
)
_LOG = 'log.txt'
_TAIL = 15  # lines to show of a failed run
_POLL = 0.2  # seconds between checks of the runs


@dataclasses.dataclass(frozen=True)
class Job:
  """A job of the queue.

  Attributes:
    name: folder of its workdir, below the root.
    args: its command.
    needs: name of the job that has to be complete before; None if there is
      none.
    complete: returns whether the workdir is complete.
  """

  name: str
  args: Sequence[str]
  needs: str | None
  complete: Callable[[], bool]


@dataclasses.dataclass
class _Process:
  job: Job
  popen: subprocess.Popen
  slot: int
  log: pathlib.Path
  log_start: int  # bytes of the log that earlier attempts wrote
  begun: float


def _say(text: str) -> None:
  print(text, flush=True)


class Queue:
  """Runs jobs as processes, a limited number at a time.

  Attributes:
    failed: name -> reason, for jobs that failed or could not begin.
  """

  def __init__(
    self,
    root: pathlib.Path,
    num_slots: int,
    devices: Sequence[str] = (),
    say: Callable[[str], None] = _say,
  ):
    """Makes an empty queue.

    Args:
      root: folder that holds the folders of the jobs.
      num_slots: maximum number of jobs at a time.
      devices: CUDA_VISIBLE_DEVICES of the slots, in turn.
      say: prints a line.
    """
    self.failed: dict[str, str] = {}
    self._root, self._num_slots, self._devices = root, num_slots, devices
    self._say = say
    self._stopping = False
    self._active: list[_Process] = []

  def run(self, jobs: Sequence[Job]) -> bool:
    """Runs unfinished `jobs`, in order, each after the job that it needs.

    Returns:
      True if all were run, false if a signal stopped the queue.
    """
    names = {job.name for job in jobs}
    assert {job.needs for job in jobs} <= names | {None}
    waiting = collections.deque(job for job in jobs if not job.complete())
    self._say(f'{len(jobs) - len(waiting)} of {len(jobs)} runs are complete.')
    done = names - {job.name for job in waiting}
    before = {
      number: signal.signal(number, self._stop)
      for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
      while self._active or (waiting and not self._stopping):
        done |= self._collect()
        if not self._stopping:
          self._begin(waiting, done)
        if self._active:
          time.sleep(_POLL)
    finally:
      for process in self._active:  # only after an error in this process
        process.popen.terminate()
      for number, handler in before.items():
        signal.signal(number, handler)
    return not self._stopping

  def _begin(self, waiting: collections.deque[Job], done: set[str]) -> None:
    """Starts jobs that can run, and gives up jobs that never can."""
    for job in tuple(waiting):
      if job.needs in self.failed:
        waiting.remove(job)
        self._fail(job, f'needs {job.needs}, which failed')
      elif len(self._active) < self._num_slots and (
        job.needs is None or job.needs in done
      ):
        waiting.remove(job)
        process = self._start(job)
        self._active.append(process)
        if self._stopping:  # while it was being started
          process.popen.terminate()
          return

  def _start(self, job: Job) -> _Process:
    log = self._root / job.name / _LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    used = {process.slot for process in self._active}
    slot = min(set(range(self._num_slots)) - used)
    env = dict(os.environ)
    if self._devices:
      env['CUDA_VISIBLE_DEVICES'] = self._devices[slot % len(self._devices)]
    with open(log, 'ab') as file:
      start = file.tell()
      # In its own session, so that we pass on Ctrl-C, as SIGTERM.
      popen = subprocess.Popen(
        job.args,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
      )
    self._say(f'Begun: {job.name} (process {popen.pid}, {log})')
    return _Process(job, popen, slot, log, start, time.monotonic())

  def _collect(self) -> set[str]:
    """Returns the names of jobs that have become complete."""
    done = set()
    for process in tuple(self._active):
      code = process.popen.poll()
      if code is None:
        continue
      self._active.remove(process)
      name = process.job.name
      took = f'{(time.monotonic() - process.begun) / 60:.1f} min'
      if code == 0 and process.job.complete():
        done.add(name)
        self._say(f'Complete: {name} ({took})')
      elif self._stopping and code in (0, -signal.SIGTERM):
        self._say(f'Stopped: {name} ({took})')
      else:
        why = f'exit code {code}' if code >= 0 else f'signal {-code}'
        if code == 0:
          why = 'ended, but its workdir is not complete'
        self._fail(process.job, f'{why} after {took}')
        self._say(f'{_tail(process)}\nWhole log: {process.log}')
    return done

  def _fail(self, job: Job, why: str) -> None:
    self.failed[job.name] = why
    self._say(f'FAILED: {job.name}: {why}')

  def _stop(self, number: int, _) -> None:
    """Lets the runs save; a second Ctrl-C ends the study at once."""
    self._stopping = True
    if number == signal.SIGINT:  # `timeout` sends SIGTERM twice by itself
      signal.signal(number, signal.SIG_DFL)
    for process in self._active:
      process.popen.terminate()


def run_study(
  study: ml_collections.ConfigDict,
  directory: str,
  num_slots: int,
  devices: Sequence[str] = (),
) -> None:
  """Runs the unfinished runs of a study.

  Args:
    study: configs/studies/base.py.
    directory: its workdir, which other studies may share.
    num_slots: maximum number of runs at a time.
    devices: CUDA_VISIBLE_DEVICES of the slots, in turn.

  Raises:
    ValueError: for invalid settings, and for folders begun with other settings.
    RuntimeError: in the end, if runs failed.
  """
  root = pathlib.Path(directory)
  found = study_runs.runs(study)
  commands = {
    run.folder: [sys.executable, *study_runs.command(run, root)[1:]]
    for run in found
  }
  for run in found:
    changed = study_runs.changes(run, root)
    if changed:
      raise ValueError(
        f'{str(root / run.folder)!r} was begun with other defaults:'
        f' {"; ".join(changed[:5])}. Move it away, or use another --workdir.'
      )
    missing = [arg for arg in commands[run.folder] if '=<' in arg]
    if missing and not study_runs.complete(run, root):
      raise ValueError(
        f'config.shards_dir={study.shards_dir!r} has to hold finished shards'
        f' (run_preprocess): {run.folder} needs {missing[0]}.'
      )
  study_index.write(study, root)
  queue = Queue(root, num_slots, devices)
  all_run = queue.run(
    [
      Job(
        run.folder,
        commands[run.folder],
        run.needs,
        lambda run=run: study_runs.complete(run, root),
      )
      for run in found
    ]
  )
  if queue.failed:
    lines = '\n  '.join(f'{name}: {why}' for name, why in queue.failed.items())
    raise RuntimeError(
      f'{len(queue.failed)} of {len(found)} runs failed:\n  {lines}'
    )
  if all_run:
    print(
      f'{study.name} is complete. Curves: python -m experiments.plot_results'
      f' --workdir={directory}'
    )
  else:
    print('Stopped; the same command resumes.')


def describe(study: ml_collections.ConfigDict, directory: str) -> str:
  """Lists the runs of a study: progress, estimated hours, command."""
  root = pathlib.Path(directory)
  found = study_runs.runs(study)
  rates = collections.defaultdict(list)
  for rate in (*throughput.KNOWN, *study_runs.seen(found, root)):
    rates[rate.hardware].append(rate)
  left = {hardware: [] for hardware in rates}
  lines = [f'{study.name}: {study.title}']
  for number, run in enumerate(found, 1):
    lines += ['', f'[{number}/{len(found)}] {run.folder}: {_state(run, root)}']
    if not study_runs.complete(run, root):
      for hardware, known in rates.items():
        hours = study_runs.hours(run, known)
        left[hardware].append(hours and hours * _left(run, root))
      estimates = [
        f'{hardware}: {h[-1]:.1f}'
        for hardware, h in left.items()
        if h[-1] is not None
      ]
      lines.append(
        f'  estimated hours left: {"; ".join(estimates) or "unknown"}'
      )
    lines.append(f'  {shlex.join(study_runs.command(run, root))}')
  kinds = collections.Counter(run.stage for run in found)
  lines += [
    '',
    f'{kinds["pretrain"]} pre-trainings and {kinds["finetune"]} fine-tunings.'
    ' Estimated hours left, one run after the other:',
    *(f'  {hardware}: {_total(hours)}' for hardware, hours in left.items()),
    'Estimates use the throughput in configs/studies/throughput.json. It was'
    " measured or, for accelerators, is a bound by the compiler's count. Other"
    ' systems and sizes are unknown.',
  ]
  return '\n'.join(lines)


def _total(hours: Sequence[float | None]) -> str:
  known = [h for h in hours if h is not None]
  if len(known) == len(hours):
    return f'{sum(known):.1f}'
  if not known:
    return 'unknown'
  unknown = len(hours) - len(known)
  return f'{sum(known):.1f} for {len(known)} runs, unknown for {unknown}'


def names() -> Mapping[str, str]:
  """Lists the studies: their `--config` -> what they compare."""
  found = {
    f'configs/studies/paper.py:{name}': study.what
    for name, study in paper.STUDIES.items()
  }
  for path in sorted(_STUDIES.glob('*.py')):
    if path.stem not in _NO_STUDIES:
      text = ast.get_docstring(ast.parse(path.read_text('utf-8')))
      found[f'configs/studies/{path.name}'] = text.splitlines()[0]
  return found


def _state(run: study_runs.Run, root: pathlib.Path) -> str:
  if study_runs.complete(run, root):
    return 'complete'
  newest = study_runs.step(run, root)
  unit = 'gradient' if run.stage == 'pretrain' else 'agent'
  return f'{newest or 0:_} of {run.num_steps:_} {unit} steps'


def _left(run: study_runs.Run, root: pathlib.Path) -> float:
  """Returns the remaining share of an unfinished run."""
  return 1 - (study_runs.step(run, root) or 0) / run.num_steps


def _tail(process: _Process) -> str:
  """Returns the last lines that the process wrote."""
  with open(process.log, 'rb') as file:
    file.seek(process.log_start)
    text = file.read().decode('utf-8', 'replace')
  lines = text.splitlines()[-_TAIL:]
  return '\n'.join(f'  | {line}' for line in lines)


def main() -> None:
  if _LIST.value:
    for path, what in names().items():
      print(f'{path:32} {what}')
    return
  if _CONFIG.value is None:
    raise ValueError('--config=FILE must name a study; --list names all.')
  study = _CONFIG.value
  if _PRESET.value:
    study.presets = tuple(_PRESET.value)
  if _DRY_RUN.value:
    print(describe(study, _WORKDIR.value))
    return
  run_study(study, _WORKDIR.value, _JOBS.value, _DEVICES.value)


if __name__ == '__main__':
  _CONFIG = config_flags.DEFINE_config_file(
    'config', None, 'Config of a study; --list names them.'
  )
  _LIST = flags.DEFINE_bool('list', False, 'Name the studies and exit.')
  _DRY_RUN = flags.DEFINE_bool(
    'dry-run', False, 'Print the runs and their commands, and exit.'
  )
  _PRESET = flags.DEFINE_multi_enum(
    'preset', [], base.PRESETS, 'Replaces config.presets; may be repeated.'
  )
  _WORKDIR = flags.DEFINE_string(
    'workdir', 'runs/studies', 'Folder of all runs; studies may share it.'
  )
  _JOBS = flags.DEFINE_integer('jobs', 1, 'Maximum number of runs at once.', 1)
  _DEVICES = flags.DEFINE_list(
    'devices', [], 'CUDA_VISIBLE_DEVICES of concurrent runs, in turn.'
  )
  launch.run(main)
