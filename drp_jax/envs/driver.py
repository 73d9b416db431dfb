"""Runs several environments at once, each in its own process.

Episodes come in rounds: `reset` begins one in every environment, and the next
round begins when all are over. An episode is therefore a function of its seed
and its actions, whatever the number of environments. An environment fails if it
raises an exception, returns a reward that is not finite or a frame of another
type or shape, does not answer in time, or its process dies. It then loses its
episode and gets a new process, and the others continue.

`gymnasium.vector.AsyncVectorEnv` begins each episode as soon as possible and
ends at the first failure. Its shared memory would save a copy of 12 kB, some
ten microseconds per step.
"""

import collections
import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cloudpickle
import gymnasium
import numpy as np

from drp_jax import processes
from drp_jax.envs import worker as worker_lib

logger = logging.getLogger(__name__)

MAX_FAILURES = 10  # in a row, without a finished episode             [ours]
_PATIENCE = 5.0  # seconds that workers have to end by themselves
_POLL = 0.1  # seconds between checks whether to stop waiting

Answer = worker_lib.Opened | worker_lib.Frame | worker_lib.Failure


@dataclasses.dataclass(frozen=True)
class Frames:
  """One step of N environments; rows of environments without a frame are zeros.

  Attributes:
    arrived: [N] bool, whether there is a frame. There is none after the last
      frame of an episode.
    failed: [N] bool, whether the environment failed in this step.
    image: [N, 64, 64, 3] uint8.
    reward: [N] float32, received on arriving in the frame.
    is_last: [N] bool, the episode is over.
    is_terminal: [N] bool, the episode is terminated, not truncated.
    success: [N] bool, whether the environment reports success in this step.
    scene: name -> [number of frames, ...], see `drp_jax/envs/scene.py`; None
      unless requested.
  """

  arrived: np.ndarray
  failed: np.ndarray
  image: np.ndarray
  reward: np.ndarray
  is_last: np.ndarray
  is_terminal: np.ndarray
  success: np.ndarray
  scene: dict[str, np.ndarray] | None


class Driver:
  """N environments in processes that are spawned, never forked.

  A round is `reset`, then `send` and `receive` until all episodes are over.
  Between `send` and `receive` the caller may do other work.

  Attributes:
    num_envs: N.
    action_size: A.
  """

  def __init__(
    self,
    make_env: Callable[[], gymnasium.Env],
    num_envs: int,
    scenes: bool = False,
    max_seconds: float = math.inf,
  ):
    """Starts the processes and waits until all environments are open.

    Args:
      make_env: opens an environment with observations uint8 [64, 64, 3] and
        actions float32 [A] in [-1, 1]. It runs in the workers: definitions of
        the main file are sent to them, and modules are imported there.
      num_envs: N.
      scenes: whether frames come with their scene, from a method `scene()` of
        the unwrapped environment.
      max_seconds: time limit of `make_env`, of a reset and of a step; an
        environment that takes longer fails.

    Raises:
      ValueError: if N is not positive, or from `make_env`.
      RuntimeError: if an environment does not open for another reason.
    """
    if num_envs < 1:
      raise ValueError(f'config.env.num_envs={num_envs} must be at least 1.')
    self.num_envs = num_envs
    self._task = cloudpickle.dumps((make_env, scenes))
    self._max_seconds = max_seconds
    self._running = np.zeros(num_envs, bool)
    self._failures = 0  # since the last finished episode
    self._workers = [_Worker(self._task) for _ in range(num_envs)]
    try:
      answers = self._collect(range(num_envs))
      assert answers is not None  # nothing asked to stop
      for opened in answers.values():
        if isinstance(opened, worker_lib.Failure):
          if opened.wrong_setting:
            raise ValueError(opened.message)
          raise RuntimeError(
            f'The environment does not open:\n{opened.details}'
          )
        assert isinstance(opened, worker_lib.Opened)
        self.action_size = opened.action_size
    except BaseException:  # including those of signals
      self.close()
      raise

  @property
  def pids(self) -> list[int]:
    """Process ids of the workers."""
    return [worker.process.pid for worker in self._workers]

  def reset(
    self,
    seeds: Sequence[int | None],
    stop: Callable[[], bool] = lambda: False,
  ) -> Frames | None:
    """Begins episodes and waits for their first frames.

    Args:
      seeds: seeds of at most N episodes, for environments 0, 1 and so on. A
        seed of None begins no episode.
      stop: as in `receive`.

    Returns:
      The frames, or None, as `receive`.

    Raises:
      RuntimeError: as `receive`.
    """
    self._running[:] = False
    for index, seed in enumerate(seeds):
      if seed is not None:
        self._running[index] = True
        self._workers[index].send('reset', int(seed))
    return self.receive(stop)

  def send(self, actions: np.ndarray) -> None:
    """Begins a step of all environments whose episodes continue.

    Args:
      actions: [N, A] float32; rows of other environments are not read.
    """
    for index in np.flatnonzero(self._running):
      self._workers[index].send('step', actions[index])

  def receive(self, stop: Callable[[], bool] = lambda: False) -> Frames | None:
    """Waits for the frames of the step that was begun.

    Args:
      stop: called repeatedly while waiting; true ends the wait.

    Returns:
      The frames; None if `stop` ended the wait. Then the driver can only be
      closed.

    Raises:
      RuntimeError: environments failed `MAX_FAILURES` times, and none finished
        an episode in between.
    """
    answers = self._collect(np.flatnonzero(self._running), stop)
    if answers is None:
      return None
    N = self.num_envs
    out = Frames(
      arrived=np.zeros(N, bool),
      failed=np.zeros(N, bool),
      image=np.zeros((N, *worker_lib.IMAGE_SHAPE), np.uint8),
      reward=np.zeros(N, np.float32),
      is_last=np.zeros(N, bool),
      is_terminal=np.zeros(N, bool),
      success=np.zeros(N, bool),
      scene=None,
    )
    scenes = []
    for index, frame in answers.items():
      if isinstance(frame, worker_lib.Failure):
        out.failed[index] = True
        self._restart(index, frame)
        continue
      assert isinstance(frame, worker_lib.Frame)
      out.arrived[index] = True
      out.image[index] = frame.image
      out.reward[index] = frame.reward
      out.is_last[index] = frame.terminated or frame.truncated
      out.is_terminal[index] = frame.terminated
      out.success[index] = frame.success
      if frame.scene is not None:
        scenes.append(frame.scene)
    self._running = out.arrived & ~out.is_last
    if out.is_last.any():
      self._failures = 0
    if scenes:
      stacked = {n: np.stack([scene[n] for scene in scenes]) for n in scenes[0]}
      return dataclasses.replace(out, scene=stacked)
    return out

  def close(self) -> None:
    """Ends the processes."""
    for worker in self._workers:
      worker.pipe.close()
    last = time.monotonic() + _PATIENCE
    for worker in self._workers:
      processes.end(worker.process, last - time.monotonic())

  def _collect(
    self,
    indices: Iterable[int],
    stop: Callable[[], bool] = lambda: False,
  ) -> dict[int, Answer] | None:
    """Waits for the answers of workers, in the order of `indices`.

    Returns:
      Index -> answer to the last request, or a `Failure`; None if `stop` ended
      the wait.
    """
    answers: dict[int, Any] = dict.fromkeys(indices)
    waited = dict.fromkeys(answers, 0.0)  # seconds
    while waited:
      index = next(iter(waited))
      worker = self._workers[index]
      before = time.monotonic()
      ready = worker.pipe.poll(_POLL)
      # Time during which this process was suspended does not count.
      seconds = min(time.monotonic() - before, 2 * _POLL)
      waited = {other: w + seconds for other, w in waited.items()}
      if ready or worker.has_ended():
        answers[index] = worker.take(ready)
        waited[index] = 0.0
      elif waited[index] > self._max_seconds:
        answers[index] = _late(worker.asked[0], self._max_seconds)
      failed = isinstance(answers[index], worker_lib.Failure)
      # The signal that ends this process may have caused the failure.
      if (failed or not ready) and stop():
        return None
      if failed or not worker.asked:
        del waited[index]
    return answers

  def _restart(self, index: int, failure: worker_lib.Failure) -> None:
    """Replaces a worker; the new one opens its environment concurrently."""
    self._failures += 1
    processes.kill(self._workers[index].process)
    if self._failures >= MAX_FAILURES:
      self.close()
      raise RuntimeError(
        f'Environments failed {self._failures} times, and none finished an'
        f' episode in between. The last time:\n{failure.details}'
      )
    logger.warning(
      'An environment failed and is restarted; its episode is dropped: %s',
      failure.message,
    )
    self._workers[index].pipe.close()
    self._workers[index] = _Worker(self._task)


class _Worker:
  """The driver's end of one process; see `drp_jax/envs/worker.py`.

  Attributes:
    process: process that runs the environment.
    pipe: pipe to the process.
    asked: requests without an answer, oldest first.
  """

  def __init__(self, task: bytes):
    """Starts the process; it answers `task` with `Opened` or `Failure`."""
    self.process, self.pipe = processes.start(
      'from drp_jax.envs import worker; worker.main(pipe)'
    )
    self.asked = collections.deque(['make_env'])
    self.pipe.send_bytes(task)

  def send(self, what: str, request: int | np.ndarray) -> None:
    """Requests a step; a dead worker is noticed in `take`."""
    self.asked.append(what)
    with contextlib.suppress(OSError):
      self.pipe.send(request)

  def take(self, ready: bool) -> Answer:
    """Returns the next answer, if any; a `Failure` if the worker is dead."""
    self.asked.popleft()
    if ready:
      with contextlib.suppress(EOFError, OSError):
        return self.pipe.recv()
    processes.end(self.process, _PATIENCE)
    message = f'Its process ended with code {self.process.returncode}.'
    return worker_lib.Failure(message, message, wrong_setting=False)

  def has_ended(self) -> bool:
    """Returns whether the process has ended; children may hold the pipe."""
    return self.process.poll() is not None


def _late(what: str, seconds: float) -> worker_lib.Failure:
  """Makes the failure of an environment that did not answer in time."""
  message = f'{what} took longer than config.env.max_seconds={seconds:g}.'
  return worker_lib.Failure(message, message, wrong_setting=False)
