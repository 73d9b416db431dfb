"""Engines that run a build: processes of this machine, or Apache Beam.

Both call the same `work(worker, num_workers)`, which does one share of the work
and writes each file whole or not at all. It is therefore safe to call it again
for a worker that died.
"""

import collections
import multiprocessing
from collections.abc import Callable, Sequence
from multiprocessing import connection, process

from drp_jax import extras, processes

# work(worker, num_workers). It is pickled for other processes, so it must be a
# function of a module or a partial of one.
Work = Callable[[int, int], None]

_MAX_DEATHS = 3  # deaths of one worker by signals, before the build gives up


def run_processes(work: Work, num_workers: int) -> None:
  """Calls `work` for every worker, each in a separate process.

  A worker that is killed, for example when memory runs out, is started again.
  The workers end with this process, however it ends.

  Args:
    work: is called with worker = 0 .. num_workers - 1.
    num_workers: how many run at once.

  Raises:
    RuntimeError: if a worker is killed `_MAX_DEATHS` times.
    Exception: the first that `work` raises; the other workers are stopped.
  """
  # Spawned: JAX and OpenCV threads do not survive a fork.
  context = multiprocessing.get_context('spawn')
  running = {}
  deaths = collections.Counter()

  def start(worker: int) -> None:
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(
      target=_run_worker, args=(work, worker, num_workers, theirs), daemon=True
    )
    child.start()
    theirs.close()
    running[worker] = child, ours

  try:
    for worker in range(num_workers):
      start(worker)
    while running:
      connection.wait([child.sentinel for child, _ in running.values()])
      ended = [w for w, (child, _) in running.items() if not child.is_alive()]
      for worker in ended:
        child, errors = running.pop(worker)
        _raise_sent(errors)
        if child.exitcode == 0:
          continue
        deaths[worker] += 1
        if deaths[worker] == _MAX_DEATHS:
          raise RuntimeError(
            f'Worker {worker} died {_MAX_DEATHS} times, the last time with exit'
            f' code {child.exitcode} (-9 is often a lack of memory). What is'
            ' finished is kept: run the same command again, perhaps with a'
            ' smaller config.data.num_workers or config.data.max_frames.'
          )
        start(worker)
  finally:
    for child, _ in running.values():
      child.kill()  # workers ignore SIGTERM
      child.join()


def run_beam(
  work: Work, num_shards: int, runner: str, options: Sequence[str]
) -> None:
  """Calls `work(shard, num_shards)` for every shard on a runner of Apache Beam.

  Only numbers of shards go through Beam. Workers read videos and write shards
  on a shared file system, so no runner has to hold clips in memory. Beam
  retries single shards, and a failed job resumes.

  Args:
    work: must be importable on Beam's workers.
    num_shards: number of shards.
    runner: 'DirectRunner', 'FlinkRunner', ...
    options: Beam's own flags, '--direct_num_workers=2'.

  Raises:
    ValueError: if Apache Beam is not installed.
  """
  extras.require(f'config.beam_runner={runner!r}', 'beam', 'apache_beam')
  import apache_beam as beam
  from apache_beam.options import pipeline_options

  flags = pipeline_options.PipelineOptions([f'--runner={runner}', *options])
  with beam.Pipeline(options=flags) as pipeline:
    _ = (
      pipeline
      | 'Shards' >> beam.Create(range(num_shards))
      | 'Spread' >> beam.Reshuffle()
      | 'Write' >> beam.Map(work, num_shards)
    )


def _run_worker(
  work: Work, worker: int, num_workers: int, errors: connection.Connection
) -> None:
  parent = process.parent_process()
  assert parent is not None and parent.pid is not None
  processes.follow(parent.pid)
  try:
    work(worker, num_workers)
  except Exception as error:
    errors.send(error)


def _raise_sent(errors: connection.Connection) -> None:
  """Raises what a worker raised, if it did."""
  try:
    error = errors.recv()
  except EOFError:
    return
  raise error
