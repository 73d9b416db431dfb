"""Tasks of the DeepMind Control Suite, seen through their camera."""

import types
from collections.abc import Callable
from typing import Any

import numpy as np

from drp_jax import extras
from drp_jax.envs import gl, robot, scene

CAMERA = 0  # the suite's own side or top view                    [IPV]


def split_task(task: str) -> tuple[str, str]:
  """Splits 'ball_in_cup_catch' into the domain 'ball_in_cup' and 'catch'.

  Raises:
    ValueError: the suite has no such task.
    RuntimeError: there is no OpenGL to render with.
  """
  extras.require("config.env.suite='dmc' or 'dmcr'", 'dmc', 'dm_control')
  gl.select_backend()  # before dm_control imports mujoco, hence imported here
  from dm_control import suite

  names = {
    f'{domain}_{name}': (domain, name) for domain, name in suite.ALL_TASKS
  }
  if task not in names:
    raise ValueError(
      f'config.task is one of {", ".join(sorted(names))}; not {task!r}.'
    )
  return names[task]


def load(task: str) -> Any:
  """Loads a task of the suite.

  Args:
    task: domain and task, 'walker_run' or 'ball_in_cup_catch'.

  Returns:
    The `dm_control.rl.control.Environment`.

  Raises:
    ValueError: the suite has no such task.
    RuntimeError: there is no OpenGL to render with.
  """
  domain, name = split_task(task)
  from dm_control import suite

  if not hasattr(np, 'in1d'):
    # NumPy 2.4 has removed what dm_control 1.0.28, the last for MuJoCo 3.3.0,
    # calls in this domain; in1d is isin of flat arrays.
    quadruped: Any = suite.quadruped
    quadruped.np = types.SimpleNamespace(**vars(np), in1d=np.isin)
  return suite.load(domain, name)


class DMC(robot.Robot):
  """A task of the suite with images for observations.

  Images are of camera 0, actions are rescaled to the task's own range. Reward:
  the task's, in [0, 1], per control step. An episode has 1000 control steps,
  then `truncated` is true; `terminated` is true only where the task itself
  gives a discount of 0. The suite has no notion of success.
  """

  def __init__(
    self,
    task: str,
    shadow_size: int | None = None,
    draw: bool = True,
    environment: Any = None,
  ):
    """Opens the task.

    Args:
      task: domain and task, 'walker_run'.
      shadow_size: side of the shadow map in texels; None keeps the suite's
        2048. 512 halves the cost of a frame in software, invisibly.
      draw: if false, all images are zeros (where only rewards matter).
      environment: the task already loaded, with another look; see
        `drp_jax.envs.dmcr`.

    Raises:
      ValueError: unknown task, or one with unbounded actions.
      RuntimeError: there is no OpenGL to render with.
    """
    self.body, _ = split_task(task)  # domains are bodies
    self._env = load(task) if environment is None else environment
    spec = self._env.action_spec()
    if not np.isfinite([spec.minimum, spec.maximum]).all():
      raise ValueError(f'config.task={task!r} has unbounded actions.')
    self._low, self._high = spec.minimum, spec.maximum
    super().__init__(spec.shape[0], draw)
    self._camera: Any = None
    self._record: Callable[[], dict[str, np.ndarray]] | None = None
    if draw:
      self._camera = self._open_camera(shadow_size)

  def _open_camera(self, shadow_size: int | None) -> Any:
    from dm_control.mujoco import engine

    physics = self.physics
    if shadow_size is not None:  # read once, when the GL context is made
      physics.model.vis.quality.shadowsize = shadow_size
    return engine.Camera(physics, robot.IMAGE_SIZE, robot.IMAGE_SIZE, CAMERA)

  @property
  def physics(self) -> Any:
    """The simulator's state, dm_control's `Physics`."""
    return self._env.physics

  @property
  def simulation(self) -> tuple[Any, Any]:
    """MuJoCo's own `MjModel` and `MjData`."""
    return self.physics.model.ptr, self.physics.data.ptr

  @property
  def control_timestep(self) -> float:
    """Seconds of simulated time per control step."""
    return self._env.control_timestep()

  def _begin(self, seed: int | None) -> None:
    if seed is not None:
      self._env.task.random.seed(seed)
    self._env.reset()

  def _take(self, action: np.ndarray) -> tuple[float, bool, bool, bool]:
    step = self._env.step(
      self._low + (action + 1) / 2 * (self._high - self._low)
    )
    terminated = step.last() and step.discount == 0
    return step.reward, terminated, step.last() and not terminated, False

  def _image(self) -> np.ndarray:
    return self._camera.render().copy()  # the camera reuses its buffer

  def scene(self) -> dict[str, np.ndarray]:
    """Returns what is true of the present image; see `drp_jax.envs.scene`."""
    if self._record is None:
      self._record = scene.of_physics(self.physics, CAMERA, robot.IMAGE_SIZE)
    return self._record()

  def close(self):
    """Frees the GL context."""
    self.physics.free()  # which the suite's own close() does not
