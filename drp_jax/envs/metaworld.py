"""Tasks of Meta-World v3, seen as the lineage saw those of v2.

In the paper's six tasks, models, camera, random starts and rewards of v3 are
those of v2, which [IPV] used, but for one (`BUTTON_TASK`). What differs in the
images is made good here:

* MuJoCo's old Python binding gave rows from the bottom to the top, and the
  camera stands on its head. So images were upright and mirrored (T7).
* v3 computes the places of all bodies and sites once more at the end of a step,
  which moves markers of goals away from the goals (`_at_goals`).
"""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import numpy as np

from drp_jax import extras
from drp_jax.envs import gl, robot, scene

CAMERA = 'corner'  # [IPV]
STATE_SIZE = 39  # hand, objects, the same of the step before, goal

# One term of its reward is for the hand's nearness to the button and for the
# gripper: v2 wants that closed, v3 open. v2 wants the button pressed further.
BUTTON_TASK = 'button-press-topdown-wall'
V2_BUTTON_SUCCESS = 0.02  # meters that are left of its way; v3: 0.024

_GRIPPER = 3  # of the state: its opening, 0..1


def tasks() -> list[str]:
  """The names of the suite's 50 tasks, sorted.

  Raises:
    RuntimeError: there is no OpenGL to render with.
  """
  extras.require("config.env.suite='metaworld'", 'metaworld', 'metaworld')
  gl.select_backend()  # before mujoco is imported, hence imported here
  from metaworld import env_dict

  return sorted(n.removesuffix('-v3') for n in env_dict.ALL_V3_ENVIRONMENTS)


class MetaWorld(robot.Robot):
  """A task of Meta-World with images for observations.

  Images are upright and mirrored (T7). Actions [4] are the hand's motion and
  the gripper. Reward: the task's, in [0, 10]. An episode is a success if any of
  its steps is. It has 500 steps, then `truncated` is true; `terminated` never
  is. Objects and goal differ in every episode.

  Images are drawn in a thread of their own. A context is current per thread,
  and dm_control, which does not look again, would go on drawing into ours.
  """

  body = 'sawyer'

  def __init__(
    self,
    task: str,
    shadow_size: int | None = None,
    v2_button: bool = False,
    draw: bool = True,
  ):
    """Opens the task.

    Args:
      task: its name without the version, 'drawer-open'.
      shadow_size: side of the shadow map in texels; None keeps the suite's
        4096. 512 halves the cost of a frame in software, invisibly.
      v2_button: whether `BUTTON_TASK` gives the reward and the success of v2;
        other tasks are the same in both.
      draw: if false, all images are zeros (where only rewards matter).

    Raises:
      ValueError: unknown task.
      RuntimeError: there is no OpenGL to render with.
    """
    names = tasks()
    if task not in names:
      raise ValueError(
        f'config.task is one of {", ".join(names)}; not {task!r}.'
      )
    from metaworld import env_dict

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

    super().__init__(action_size=4, draw=draw)
    model, data = self._env.model, self._env.data
    if shadow_size is not None:  # read once, when the context is made
      model.vis.quality.shadowsize = shadow_size
    # This camera stands on its head, so upside down is upright (T7).
    camera = model.camera(CAMERA).id
    self._view = scene.View(
      model, data, camera, robot.IMAGE_SIZE, upside_down=True
    )
    self._v2_button = v2_button and task == BUTTON_TASK
    self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    self._gl = self._context = None
    self._state = np.zeros(STATE_SIZE)

  @property
  def simulation(self) -> tuple[Any, Any]:
    """MuJoCo's own `MjModel` and `MjData`."""
    return self._env.model, self._env.data

  @property
  def state(self) -> np.ndarray:
    """What the scripted policies see, [39] float64."""
    return self._state

  def _begin(self, seed: int | None) -> None:
    import mujoco

    if seed is not None:
      self._env.seed(seed)
    self._state, _ = self._env.reset()
    # Or what was put somewhere is still drawn where it was before.
    mujoco.mj_forward(self._env.model, self._env.data)

  def _take(self, action: np.ndarray) -> tuple[float, bool, bool, bool]:
    self._state, reward, terminated, truncated, info = self._env.step(
      action.astype(np.float32)
    )
    self._check_simulation()
    success = info['success']
    if self._v2_button:
      opening, near = self._state[_GRIPPER], info['grasp_reward']
      reward = _v2_button_reward(reward, opening, near)
      success = info['obj_to_target'] <= V2_BUTTON_SUCCESS
    return reward, terminated, truncated, success

  def _image(self) -> np.ndarray:
    return self._at_goals(self._view.image)

  def scene(self) -> dict[str, np.ndarray]:
    """Returns what is true of the present image; see `drp_jax.envs.scene`."""
    return self._at_goals(self._view.record)

  def close(self):
    """Frees the GL context."""
    if self._context is not None:
      for free in (self._context.free, self._gl.free):
        self._thread.submit(free).result()
    self._thread.shutdown()
    self._env.close()

  def _at_goals(self, draw: Callable[[Any], Any]) -> Any:
    """Calls `draw(context)` while the markers of goals are at the goals.

    v2 put them there after a step and drew; v3 puts them there too, but then
    runs the forward pass, which puts them back to where the model has them. In
    some tasks, door-lock, that is elsewhere.
    """
    if self._context is None:
      opening = self._thread.submit(_open_gl, self._env.model)
      self._gl, self._context = opening.result()
    data = self._env.data
    places = data.site_xpos.copy()
    for name, position in self._env._target_site_config:
      data.site(name).xpos = position[:3]
    result = self._thread.submit(draw, self._context).result()
    data.site_xpos[:] = places
    return result

  def _check_simulation(self):
    """Raises where MuJoCo, after values not finite, started from the model."""
    import mujoco

    kinds = mujoco.mjtWarning
    bad = [kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL]
    bad += [kinds.mjWARN_BADQACC, kinds.mjWARN_BADCTRL]
    warnings = self._env.data.warning
    if any(warnings[int(kind)].number for kind in bad):
      self._over = True
      raise RuntimeError(f'The simulation of {self.task!r} has diverged.')


def scripted_policy(task: str) -> Any:
  """Makes the suite's own policy of a task.

  Args:
    task: its name without the version, 'drawer-open'.

  Returns:
    What has `get_action(state)`: from [39] to [4], to be clipped to [-1, 1].
  """
  from metaworld import policies

  return policies.ENV_POLICY_MAP[f'{task}-v3']()


def _v2_button_reward(reward: float, opening: float, near: float) -> float:
  """Turns v3's reward of `BUTTON_TASK` into v2's.

  Both have the Hamacher product of nearness and of the gripper's opening (v3)
  or what is left of it (v2), times 5.

  Args:
    reward: of v3.
    opening: of the gripper, 0..1.
    near: what the suite rewards for nearness, 0..1.
  """
  from metaworld.utils import reward_utils

  product = reward_utils.hamacher_product
  return reward + 5 * (product(1 - opening, near) - product(opening, near))


def _open_gl(model: Any) -> tuple[Any, Any]:
  """Makes a GL context, current in this thread, and MuJoCo's upon it."""
  import mujoco

  gl_context = mujoco.GLContext(robot.IMAGE_SIZE, robot.IMAGE_SIZE)
  gl_context.make_current()
  context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
  mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, context)
  return gl_context, context
