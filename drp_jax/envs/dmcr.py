"""DMC Remastered: tasks of the suite that look different in every episode.

The dynamics and rewards are the suite's. The look (see `drp_jax.envs.looks`)
is written into the compiled model, and its two textures are uploaded to the
open GL context. This takes milliseconds; the original builds a new environment,
which takes hundreds of milliseconds (benchmarks/envs.py).

Differences from the original: files are sorted (T8), every environment has its
own generator (T9), factors are independent, and the size of the shadow map is a
setting (see `looks.Look.shadow_size`). Everything that does not vary looks as
in the suite, whose camera of ball_in_cup and pendulum, light of reacher and
floor differ slightly from the original's. Negative visual seeds, which draw
colors for sky and floor, do not exist.
"""

from typing import Any

import gymnasium
import numpy as np

from drp_jax.envs import dmc, looks, mounts, textures

# The original's domains; the experiments use walker_run, hopper_stand and
# cheetah_run [IPV]. The suite's cartpoles with two and three poles are too long
# for these ranges and left out.
TASKS = (
  'ball_in_cup_catch',
  'cartpole_balance',
  'cartpole_balance_sparse',
  'cartpole_swingup',
  'cartpole_swingup_sparse',
  'cheetah_run',
  'finger_spin',
  'finger_turn_easy',
  'finger_turn_hard',
  'fish_swim',
  'fish_upright',
  'hopper_hop',
  'hopper_stand',
  'humanoid_run',
  'humanoid_stand',
  'humanoid_walk',
  'pendulum_swingup',
  'reacher_easy',
  'reacher_hard',
  'walker_run',
  'walker_stand',
  'walker_walk',
)

# Meters, of the only floor that the original widens; the suite's is 0.8.
CHEETAH_FLOOR_HALF_WIDTH = 15.0

NUM_CONTROL_STEPS = 1000
FLOOR_REPEAT = 3.0  # times the floor's texture repeats per meter

LIGHT = 0  # every model has one


def default_factors(task: str) -> tuple[str, ...]:
  """Returns the factors of the experiments: all, but no camera of hopper (D13).

  Args:
    task: one of `TASKS`.

  Returns:
    Names in `looks.FACTORS`.
  """
  if task.startswith('hopper'):
    return tuple(name for name in looks.FACTORS if name != 'camera')
  return looks.FACTORS


def build_environment(
  task: str, factors: tuple[str, ...], texture_size: int
) -> Any:
  """Loads a task with a model whose textures can be replaced.

  Args:
    task: domain and task, such as 'walker_run', one of `TASKS`.
    factors: those of `looks.FACTORS` that will vary; the others keep the
      suite's look.
    texture_size: side of the textures, in texels.

  Returns:
    A `dm_control.rl.control.Environment`.

  Raises:
    ValueError: the task is not in `TASKS`.
    RuntimeError: there is no OpenGL to render with.
  """
  if task not in TASKS:
    raise ValueError(
      f'config.task={task!r}: the tasks of DMC Remastered are '
      f'{", ".join(TASKS)}.'
    )
  domain, _ = dmc.split_task(task)
  stock = dmc.load(task)
  import mujoco
  from dm_control.mujoco import wrapper
  from dm_control.rl import control
  from dm_control.suite import common

  spec = mujoco.MjSpec.from_string(
    common.read_model(f'{domain}.xml'),
    include={name.removeprefix('./'): x for name, x in common.ASSETS.items()},
  )
  replaced = {'skybox': 'background', 'grid': 'floor'}
  for texture in spec.textures:
    if replaced.get(texture.name) in factors:
      texture.builtin = mujoco.mjtBuiltin.mjBUILTIN_NONE
      texture.mark = mujoco.mjtMark.mjMARK_NONE
      texture.width = texture.height = texture_size
      texture.nchannel = 3
      texture.data = bytes(3 * texture_size**2)
  for material in spec.materials:
    if material.name == 'grid' and 'floor' in factors:
      material.texrepeat = [FLOOR_REPEAT, FLOOR_REPEAT]
  model = spec.compile()
  if domain == 'cheetah':
    model.geom('ground').size[1] = CHEETAH_FLOOR_HALF_WIDTH

  physics = type(stock.physics).from_model(wrapper.MjModel(model))
  step = stock.control_timestep()
  stock.close()
  return control.Environment(
    physics,
    stock.task,
    time_limit=(NUM_CONTROL_STEPS - 0.5) * step,  # robust to rounding
    control_timestep=step,
  )


class DMCR(gymnasium.Wrapper):
  """A task of the suite with a new look in every episode.

  `reset(seed)` draws a visual seed in 1..10^6 and a dynamics seed in 1..10^5
  from `default_rng(seed)`; without a seed the generator continues. Both seeds
  are in the `info` of reset. Everything else is as in `dmc.DMC`.
  """

  def __init__(
    self,
    task: str,
    factors: tuple[str, ...] | None = None,
    shadow_size: int | None = None,
    texture_size: int = 128,
    texture_folder: str = '',
    draw: bool = True,
  ):
    """Opens the task.

    Args:
      task: domain and task, such as 'walker_run', one of `TASKS`.
      factors: which of `looks.FACTORS` vary; None is `default_factors`.
      shadow_size: see `dmc.DMC`.
      texture_size: side of sky and floor textures, in texels. The original's
        are 800 and 300; images with 256 differ by 2 to 3 gray levels of 255.
      texture_folder: the user's textures, or '' for our own; see
        `drp_jax.envs.textures`.
      draw: see `dmc.DMC`; the episodes are the same.

    Raises:
      ValueError: unknown task or factor, or no textures.
      RuntimeError: there is no OpenGL to render with.
    """
    if factors is None:
      factors = default_factors(task)
    unknown = sorted(set(factors) - set(looks.FACTORS))
    if unknown:
      raise ValueError(
        f'config.env.factors: {unknown} not in {", ".join(looks.FACTORS)}.'
      )
    environment = build_environment(task, factors, texture_size)
    super().__init__(dmc.DMC(task, shadow_size, draw, environment))
    self._physics = environment.physics
    self._domain, _ = dmc.split_task(task)
    self._factors = tuple(factors)
    self._draw = draw
    model = self._physics.model.ptr
    self._camera_mount = mounts.find(model, model.cam_bodyid[dmc.CAMERA])
    self._light_mount = mounts.find(model, model.light_bodyid[LIGHT])
    self._textures = textures.load(texture_size, texture_folder)
    self._rng = np.random.default_rng()

  def reset(
    self, *, seed: int | None = None, options: dict | None = None
  ) -> tuple[np.ndarray, dict]:
    """Starts an episode with a new look; see `gymnasium.Env.reset`."""
    if seed is not None:
      self._rng = np.random.default_rng(seed)
    visual_seed = int(self._rng.integers(1, 10**6, endpoint=True))
    dynamics_seed = int(self._rng.integers(1, 10**5, endpoint=True))
    skies, floors = self._textures.skies, self._textures.floors
    self._wear(looks.draw(visual_seed, self._domain, len(skies), len(floors)))
    image, info = self.env.reset(seed=dynamics_seed, options=options)
    seeds = {'visual_seed': visual_seed, 'dynamics_seed': dynamics_seed}
    return image, {**info, **seeds}

  def advance(self, action: np.ndarray) -> tuple[float, bool, bool, dict]:
    """Takes one control step without rendering; see `dmc.DMC.advance`."""
    return self.env.get_wrapper_attr('advance')(action)

  def _wear(self, look: looks.Look):
    """Writes the enabled factors of `look` into the compiled model."""
    model = self._physics.model
    if 'background' in self._factors:
      self._upload('skybox', self._textures.skies[look.sky])
    if 'floor' in self._factors:
      self._upload('grid', self._textures.floors[look.floor])
    if 'body' in self._factors:
      model.mat_rgba[model.name2id('self', 'material')] = look.body
      model.mat_rgba[model.name2id('effector', 'material')] = look.effector
    if 'target' in self._factors:
      model.mat_rgba[model.name2id('target', 'material')] = look.target
    if 'reflectance' in self._factors:
      grid = model.name2id('grid', 'material')
      model.mat_reflectance[grid] = look.reflectance
    if 'light' in self._factors:
      self._light(look)
    if 'camera' in self._factors:
      mounts.place_camera(
        model.ptr,
        dmc.CAMERA,
        self._camera_mount,
        look.camera_position,
        look.camera_euler,
      )

  def _light(self, look: looks.Look):
    """Writes the headlight and the varying part of the scene's light."""
    model = self._physics.model
    model.vis.headlight.ambient = look.ambient
    model.vis.headlight.diffuse = look.diffuse
    model.vis.headlight.specular = look.specular
    if look.light_position is not None:
      mounts.place_light(
        model.ptr, LIGHT, self._light_mount, look.light_position
      )
    if look.light_diffuse is not None:
      model.light_diffuse[LIGHT] = look.light_diffuse
      model.light_specular[LIGHT] = look.light_specular

  def _upload(self, name: str, texels: np.ndarray):
    """Replaces a texture of the model and of its GL context, if it has one."""
    import mujoco

    model = self._physics.model
    index = model.name2id(name, 'texture')
    start = model.tex_adr[index]
    model.tex_data[start : start + texels.size] = texels.ravel()
    if not self._draw:
      return
    contexts = self._physics.contexts
    with contexts.gl.make_current() as gl_context:
      gl_context.call(
        mujoco.mjr_uploadTexture, model.ptr, contexts.mujoco.ptr, index
      )
