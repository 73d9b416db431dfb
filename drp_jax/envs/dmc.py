"""Tasks of the DeepMind Control Suite, seen through their camera."""

import types
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from drp_jax import extras
from drp_jax.envs import gl, scene

IMAGE_SIZE = 64  # [Table 5]
_IMAGE_SHAPE = (IMAGE_SIZE, IMAGE_SIZE, 3)
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


class DMC(gymnasium.Env):
  """A task of the suite with images for observations.

  Observation: uint8 [64, 64, 3] RGB of camera 0. Action: float32 [A] in
  [-1, 1], rescaled to the task's own range. Reward: the task's, in [0, 1], per
  control step. An episode has 1000 control steps, then `truncated` is true;
  `terminated` is true only where the task itself gives a discount of 0.

  `reset(seed)` makes the episode a function of the seed; without a seed the
  task's generator runs on.

  Wrappers that repeat actions call `advance` and `render` apart, since an image
  costs far more than a control step.
  """

  metadata = {'render_modes': ['rgb_array']}
  render_mode = 'rgb_array'

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
    self.action_space = gymnasium.spaces.Box(-1, 1, spec.shape, np.float32)
    self.observation_space = gymnasium.spaces.Box(
      0, 255, _IMAGE_SHAPE, np.uint8
    )
    self._camera: Any = None
    self._record: Callable[[], dict[str, np.ndarray]] | None = None
    if draw:
      self._camera = self._open_camera(shadow_size)
    self._over = True

  def _open_camera(self, shadow_size: int | None) -> Any:
    from dm_control.mujoco import engine

    physics = self.physics
    if shadow_size is not None:  # read once, when the GL context is made
      physics.model.vis.quality.shadowsize = shadow_size
    return engine.Camera(physics, IMAGE_SIZE, IMAGE_SIZE, CAMERA)

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

  def reset(
    self, *, seed: int | None = None, options: dict | None = None
  ) -> tuple[np.ndarray, dict]:
    """Starts an episode; see `gymnasium.Env.reset`."""
    super().reset(seed=seed, options=options)
    if seed is not None:
      self._env.task.random.seed(seed)
    self._env.reset()
    self._over = False
    return self.render(), {'success': False}

  def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
    """Takes one control step without rendering.

    Args:
      action: float [A]; what lies outside [-1, 1] is clipped.

    Returns:
      reward, terminated, truncated, info, as `step` gives them.

    Raises:
      RuntimeError: the episode is over, or none was started; or the simulation
        has diverged.
    """
    if self._over:
      raise RuntimeError('The episode is over: call reset().')
    action = np.clip(np.asarray(action, np.float64), -1, 1)
    scaled = self._low + (action + 1) / 2 * (self._high - self._low)
    self._over = True  # unless the step is taken
    step = self._env.step(scaled)
    self._over = step.last()
    terminated = step.last() and step.discount == 0
    truncated = step.last() and not terminated
    info = {'success': False}  # the suite has no such notion
    return float(step.reward), bool(terminated), bool(truncated), info

  def step(
    self, action: np.ndarray
  ) -> tuple[np.ndarray, float, bool, bool, dict]:
    """Takes one control step; see `gymnasium.Env.step`."""
    reward, terminated, truncated, info = self.advance(action)
    return self.render(), reward, terminated, truncated, info

  def render(self) -> np.ndarray:
    """Returns the present image, uint8 [64, 64, 3]; zeros unless `draw`."""
    if self._camera is None:
      return np.zeros(_IMAGE_SHAPE, np.uint8)
    return self._camera.render().copy()  # the camera reuses its buffer

  def scene(self) -> dict[str, np.ndarray]:
    """Returns what is true of the present image; see `drp_jax.envs.scene`."""
    if self._record is None:
      self._record = scene.of_physics(self.physics, CAMERA, IMAGE_SIZE)
    return self._record()

  def close(self):
    """Frees the GL context."""
    self.physics.free()  # which the suite's own close() does not
