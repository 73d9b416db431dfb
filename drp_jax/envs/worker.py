"""The process that runs one environment for `drp_jax/envs/driver.py`.

It imports the packages of the environment and not JAX. It ends when the pipe to
the driver is closed, when the driver's process ends (`drp_jax/processes.py`),
and when its environment fails. In the last case its last message is a
`Failure`.
"""

import contextlib
import dataclasses
import math
import traceback
from multiprocessing import connection
from typing import Any

import cloudpickle
import gymnasium
import numpy as np

IMAGE_SHAPE = (64, 64, 3)  # [Table 5]


@dataclasses.dataclass(frozen=True)
class Opened:
  """The first message: the environment is open and has actions [A]."""

  action_size: int


@dataclasses.dataclass(frozen=True)
class Frame:
  """Result of `reset` or `step`.

  Attributes:
    image: [64, 64, 3] uint8.
    reward: 0 after `reset`.
    terminated: see `gymnasium.Env.step`.
    truncated: see `gymnasium.Env.step`.
    success: whether the environment reports success in this step.
    scene: scene of the frame, see `drp_jax/envs/scene.py`; None unless
      requested.
  """

  image: np.ndarray
  reward: float
  terminated: bool
  truncated: bool
  success: bool
  scene: dict[str, np.ndarray] | None


@dataclasses.dataclass(frozen=True)
class Failure:
  """The last message of an environment that failed.

  Attributes:
    message: message of the exception.
    details: traceback of the exception.
    wrong_setting: whether it is a ValueError, which our code raises for wrong
      settings.
  """

  message: str
  details: str
  wrong_setting: bool


def main(pipe: connection.Connection) -> None:
  """Serves the driver at the other end of `pipe`.

  The worker first receives, pickled, a function that opens the environment and
  whether frames come with their scene. Then every int is the seed of a new
  episode, and every [A] is an action.
  """
  try:
    task = pipe.recv_bytes()
  except EOFError:  # the driver died or closed the pipe
    return
  try:
    make_env, scenes = cloudpickle.loads(task)
    env = make_env()
    _check(env, scenes)
    request = _exchange(pipe, Opened(env.action_space.shape[0]))
    while request is not None:
      request = _exchange(pipe, _advance(env, request, scenes))
  except Exception as error:  # any exception of the environment
    wrong_setting = isinstance(error, ValueError)
    failure = Failure(str(error), traceback.format_exc(), wrong_setting)
    with contextlib.suppress(OSError):  # the driver is gone
      pipe.send(failure)
  else:
    env.close()


def _exchange(pipe: connection.Connection, message: Any) -> Any:
  """Sends a message and waits for the next request; None is the end."""
  try:
    pipe.send(message)
    return pipe.recv()
  except (EOFError, OSError):  # the driver closed the pipe, or died
    return None


def _advance(env: gymnasium.Env, request: Any, scenes: bool) -> Frame:
  """Begins an episode with a seed, or takes a step with an action."""
  reward, terminated, truncated = 0.0, False, False
  if isinstance(request, int):
    image, info = env.reset(seed=request)
  else:
    image, reward, terminated, truncated, info = env.step(request)
  if np.shape(image) != IMAGE_SHAPE or np.asarray(image).dtype != np.uint8:
    raise TypeError(
      f'The environment gave a frame {np.asarray(image).dtype}'
      f'{list(np.shape(image))}, expected uint8{list(IMAGE_SHAPE)}.'
    )
  if not math.isfinite(reward):
    raise FloatingPointError(
      f'The reward is {reward}: the simulation diverged.'
    )
  return Frame(
    image=image,
    reward=float(reward),
    terminated=bool(terminated),
    truncated=bool(truncated),
    success=bool(info.get('success', False)),
    scene=env.unwrapped.get_wrapper_attr('scene')() if scenes else None,
  )


def _check(env: gymnasium.Env, scenes: bool) -> None:
  """Raises ValueError for an environment that agents cannot act in."""
  image, action = env.observation_space, env.action_space
  if image.shape != IMAGE_SHAPE or image.dtype != np.uint8:
    raise ValueError(
      f'The environment observes {image}, expected RGB images: a Box'
      f' {IMAGE_SHAPE} of uint8.'
    )
  bounds = getattr(action, 'low', None), getattr(action, 'high', None)
  if len(action.shape or ()) != 1 or not (
    np.all(bounds[0] == -1) and np.all(bounds[1] == 1)
  ):
    raise ValueError(
      f'The environment acts by {action}, expected a Box (A,) from -1 to 1;'
      ' gymnasium.wrappers.RescaleAction makes one of another Box.'
    )
  if scenes and not hasattr(env.unwrapped, 'scene'):
    raise ValueError(
      "config.extract: while acting, 'sim' asks the environment for scene(),"
      f' which {type(env.unwrapped).__name__} has not.'
    )
