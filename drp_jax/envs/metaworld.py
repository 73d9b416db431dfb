"""Tasks of Meta-World v3, seen through its camera `corner`."""

import concurrent.futures
from typing import Any

import gymnasium
import numpy as np

from drp_jax.envs import gl, scene

IMAGE_SIZE = 64  # [Table 5]
CAMERA = 'corner'  # [IPV]
STATE_SIZE = 39  # hand, objects, the same of the step before, goal


class MetaWorld(gymnasium.Env):
  """A task of Meta-World with images for observations.

  Observation: uint8 [64, 64, 3] RGB, upright and mirrored, as the lineage saw
  it (T7). Action: float32 [4] in [-1, 1], the hand's motion and the gripper.
  Reward: the task's, in [0, 10]. An episode has 500 steps, then `truncated` is
  true; `terminated` never is.

  Objects and goal differ in every episode; `reset(seed)` makes it a function of
  the seed, without one the task's generator runs on.

  Images are drawn in a thread of their own. A context is current per thread,
  and dm_control, which does not look again, would go on drawing into ours.
  """

  metadata = {'render_modes': ['rgb_array']}
  render_mode = 'rgb_array'

  def __init__(self, task: str, shadow_size: int | None = None):
    """Opens the task.

    Args:
      task: its name without the version, 'drawer-open'.
      shadow_size: side of the shadow map in texels; None keeps the suite's
        4096. 512 halves the cost of a frame in software, invisibly.

    Raises:
      ValueError: unknown task.
      RuntimeError: there is no OpenGL to render with.
    """
    gl.select_backend()  # before mujoco is imported, hence imported here
    from metaworld import env_dict

    names = [n.removesuffix('-v3') for n in env_dict.ALL_V3_ENVIRONMENTS]
    if task not in names:
      raise ValueError(
        f'config.task is one of {", ".join(sorted(names))}; not {task!r}.'
      )
    self.task = task
    self._env = env_dict.ALL_V3_ENVIRONMENTS[f'{task}-v3']()
    # What the suite does when a task of its benchmarks is set, except that
    # goals are drawn anew in every episode, and from the environment's seed.
    self._env._partially_observable = False
    self._env._freeze_rand_vec = False
    self._env._set_task_called = True
    self._env.seeded_rand_vec = True
    # A cached space: the goal's bounds are zero while it is hidden.
    self._env.__dict__.pop('sawyer_observation_space', None)

    self.action_space = gymnasium.spaces.Box(-1, 1, (4,), np.float32)
    shape = (IMAGE_SIZE, IMAGE_SIZE, 3)
    self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
    model, data = self._env.model, self._env.data
    if shadow_size is not None:  # read once, when the context is made
      model.vis.quality.shadowsize = shadow_size
    # This camera stands on its head, so upside down is upright (T7).
    camera = model.camera(CAMERA).id
    self._view = scene.View(model, data, camera, IMAGE_SIZE, upside_down=True)
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._gl, self._context = self._thread.submit(_open_gl, model).result()
    self._state = np.zeros(STATE_SIZE)
    self._over = True

  @property
  def state(self) -> np.ndarray:
    """What the scripted policies see, [39] float64."""
    return self._state

  def reset(
    self, *, seed: int | None = None, options: dict | None = None
  ) -> tuple[np.ndarray, dict]:
    """Starts an episode; see `gymnasium.Env.reset`."""
    import mujoco

    super().reset(seed=seed, options=options)
    if seed is not None:
      self._env.seed(seed)
    self._state, _ = self._env.reset()
    # Or the goal's marker is where it was before.
    mujoco.mj_forward(self._env.model, self._env.data)
    self._over = False
    return self.render(), {'success': False}

  def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
    """Takes one step without rendering.

    Args:
      action: float [4]; what lies outside [-1, 1] is clipped.

    Returns:
      reward, terminated, truncated, info, as `step` gives them.

    Raises:
      RuntimeError: the episode is over, or none was started.
    """
    if self._over:
      raise RuntimeError('The episode is over: call reset().')
    action = np.clip(np.asarray(action, np.float32), -1, 1)
    self._state, reward, terminated, truncated, info = self._env.step(action)
    self._over = bool(terminated or truncated)
    info = {'success': bool(info['success'])}
    return float(reward), bool(terminated), bool(truncated), info

  def step(
    self, action: np.ndarray
  ) -> tuple[np.ndarray, float, bool, bool, dict]:
    """Takes one step; see `gymnasium.Env.step`."""
    reward, terminated, truncated, info = self.advance(action)
    return self.render(), reward, terminated, truncated, info

  def render(self) -> np.ndarray:
    """Returns the present image, uint8 [64, 64, 3]."""
    return self._thread.submit(self._view.image, self._context).result()

  def scene(self) -> dict[str, np.ndarray]:
    """Returns what is true of the present image; see `drp_jax.envs.scene`."""
    return self._thread.submit(self._view.record, self._context).result()

  def close(self):
    """Frees the GL context."""
    for free in (self._context.free, self._gl.free):
      self._thread.submit(free).result()
    self._thread.shutdown()
    self._env.close()


def scripted_policy(task: str) -> Any:
  """Makes the suite's own policy of a task.

  Args:
    task: its name without the version, 'drawer-open'.

  Returns:
    What has `get_action(state)`: from [39] to [4], to be clipped to [-1, 1].
  """
  from metaworld import policies

  return policies.ENV_POLICY_MAP[f'{task}-v3']()


def _open_gl(model: Any) -> tuple[Any, Any]:
  """Makes a GL context, current in this thread, and MuJoCo's upon it."""
  import mujoco

  gl_context = mujoco.GLContext(IMAGE_SIZE, IMAGE_SIZE)
  gl_context.make_current()
  context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
  mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
  return gl_context, context
