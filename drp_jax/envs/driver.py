"""Several environments at once, each in a process of its own.

Episodes come in rounds: `reset` begins one in every environment, and the next
round begins when all are over. So an episode is a function of its seed and its
actions, however many run beside it. An environment that fails (an exception, a
reward that is not finite, a frame of another type or shape, the death of its
process) loses its episode and gets a new process; the others go on.

`gymnasium.vector.AsyncVectorEnv` begins each episode as soon as it can and
gives up with the first failure. Its shared memory would save a copy of 12 kB,
some ten microseconds of a step.
"""

import dataclasses
import logging
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence

import cloudpickle
import gymnasium
import numpy as np

from drp_jax.envs import worker as worker_lib

logger = logging.getLogger(__name__)

MAX_FAILURES = 10  # in a row, without an episode that was finished   [ours]
_PATIENCE = 5.0  # seconds in which a worker may end by itself

# Not `multiprocessing.Process`, whose workers would import the main file again,
# and all of JAX with it.
_COMMAND = 'from drp_jax.envs import worker; worker.main()'


@dataclasses.dataclass(frozen=True)
class Frames:
  """One step of N environments; rows of those without a frame are zeros.

  Attributes:
    arrived: [N] bool, whether there is a frame. There is none after the last
      one of an episode.
    failed: [N] bool, whether the environment failed in this step.
    image: [N, 64, 64, 3] uint8.
    reward: [N] float32, received on arriving in the frame.
    is_last: [N] bool, the episode is over.
    is_terminal: [N] bool, it is over for good, not for want of time.
    success: [N] bool, whether the environment says so in this step.
    scene: name -> [number of frames, ...], see `drp_jax/envs/scene.py`; None
      unless it was asked for.
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

  A round is `reset`, then `send` and `receive` until no episode goes on.
  Between these two the caller may do something else.

  Attributes:
    num_envs: N.
    action_size: A.
  """

  def __init__(
    self,
    make_env: Callable[[], gymnasium.Env],
    num_envs: int,
    scenes: bool = False,
  ):
    """Starts the processes and waits until all environments are open.

    Args:
      make_env: opens an environment with observations uint8 [64, 64, 3] and
        actions float32 [A] in [-1, 1]. It runs in the workers: what is defined
        in the main file is sent to them, what is in a module is imported.
      num_envs: N.
      scenes: whether frames come with what the simulator knows of them, by a
        method `scene()` of the unwrapped environment.

    Raises:
      ValueError: if N is not positive, or from `make_env`.
      RuntimeError: if an environment does not open for another reason.
    """
    if num_envs < 1:
      raise ValueError(f'config.env.num_envs={num_envs} must be at least 1.')
    self.num_envs = num_envs
    self._task = cloudpickle.dumps((make_env, scenes))
    self._running = np.zeros(num_envs, bool)
    self._failures = 0  # since the last episode that was finished
    self._workers = [_Worker(self._task) for _ in range(num_envs)]
    for worker in self._workers:
      opened = worker.receive()
      if isinstance(opened, worker_lib.Failure):
        self.close()
        if opened.wrong_setting:
          raise ValueError(opened.message)
        raise RuntimeError(f'The environment does not open:\n{opened.details}')
      self.action_size = opened.action_size

  @property
  def pids(self) -> list[int]:
    """Of the processes."""
    return [worker.pid for worker in self._workers]

  def reset(self, seeds: Sequence[int]) -> Frames:
    """Begins episodes and waits for their first frames.

    Args:
      seeds: of at most N episodes; the first goes to environment 0, and so on.

    Raises:
      RuntimeError: as `receive`.
    """
    self._running = np.arange(self.num_envs) < len(seeds)
    for worker, seed in zip(self._workers, seeds, strict=False):
      worker.send(int(seed))
    return self.receive()

  def send(self, actions: np.ndarray) -> None:
    """Begins a step of all environments whose episodes go on.

    Args:
      actions: [N, A] float32; the rows of the others are not read.
    """
    for index in np.flatnonzero(self._running):
      self._workers[index].send(actions[index])

  def receive(self) -> Frames:
    """Waits for the frames of the step that was begun.

    Raises:
      RuntimeError: environments failed `MAX_FAILURES` times, and none finished
        an episode in between.
    """
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
    for index in np.flatnonzero(self._running):
      frame = self._workers[index].receive()
      if isinstance(frame, worker_lib.Opened):  # it was restarted
        frame = self._workers[index].receive()
      if isinstance(frame, worker_lib.Failure):
        out.failed[index] = True
        self._restart(index, frame)
        continue
      out.arrived[index] = True
      out.image[index] = frame.image
      out.reward[index] = frame.reward
      out.is_last[index] = frame.terminated or frame.truncated
      out.is_terminal[index] = frame.terminated
      out.success[index] = frame.success
      scenes.append(frame.scene)
    self._running = out.arrived & ~out.is_last
    if out.is_last.any():
      self._failures = 0
    if scenes and scenes[0] is not None:
      stacked = {n: np.stack([scene[n] for scene in scenes]) for n in scenes[0]}
      return dataclasses.replace(out, scene=stacked)
    return out

  def close(self) -> None:
    """Ends the processes."""
    for worker in self._workers:
      worker.hang_up()
    for worker in self._workers:
      worker.end()

  def _restart(self, index: int, failure: worker_lib.Failure) -> None:
    """Replaces a worker. The new one opens its environment in the meantime."""
    self._failures += 1
    if self._failures >= MAX_FAILURES:
      self.close()
      raise RuntimeError(
        f'Environments failed {self._failures} times, and none finished an'
        f' episode in between. The last time:\n{failure.details}'
      )
    logger.warning(
      'An environment failed and is started anew; its episode is dropped: %s',
      failure.message,
    )
    self._workers[index].kill()
    self._workers[index] = _Worker(self._task)


class _Worker:
  """The driver's end of one process; see `drp_jax/envs/worker.py`."""

  def __init__(self, task: bytes):
    """Starts the process; it answers `task` with `Opened` or `Failure`."""
    self._pipe, theirs = multiprocessing.Pipe()
    self._process = subprocess.Popen(
      [sys.executable, '-c', _COMMAND, str(theirs.fileno())],
      pass_fds=[theirs.fileno()],
      # Where we find modules, the worker finds them too.
      env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
    )
    theirs.close()  # so that the pipe breaks when the process dies
    self._pipe.send_bytes(task)

  @property
  def pid(self) -> int:
    """Of the process."""
    return self._process.pid

  def send(self, request: int | np.ndarray) -> None:
    """Asks for a step; that nobody listens will show in `receive`."""
    try:
      self._pipe.send(request)
    except OSError:
      pass

  def receive(
    self,
  ) -> worker_lib.Opened | worker_lib.Frame | worker_lib.Failure:
    """Waits for an answer; a process that has died leaves a `Failure`."""
    try:
      return self._pipe.recv()
    except (EOFError, OSError):
      message = f'Its process ended with code {self._process.wait()}.'
      return worker_lib.Failure(message, message, wrong_setting=False)

  def hang_up(self) -> None:
    """Tells the process to end."""
    self._pipe.close()

  def end(self) -> None:
    """Waits for the end of the process, not for long."""
    try:
      self._process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
      self.kill()

  def kill(self) -> None:
    """Ends the process at once."""
    self._pipe.close()
    self._process.kill()
    self._process.wait()
