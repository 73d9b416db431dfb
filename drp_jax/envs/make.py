"""Opens an environment by the names in a config."""

import dataclasses

import gymnasium

from drp_jax.envs import wrappers


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of an environment; the fields are keys of `config.env`.

  Attributes:
    suite: 'dmc', 'dmcr' or 'metaworld'.
    action_repeat: control steps per agent step; 2 for dmc and dmcr, 1 for
      metaworld [IPV].
    shadow_size: side of the shadow map in texels, None for the suite's own.
    factors: those of `looks.FACTORS` that vary from episode to episode; None is
      `dmcr.default_factors` (dmcr).
    texture_size: side of textures in texels (dmcr).
    texture_folder: the user's textures, '' for the embedded set (dmcr).
    v2_button: see `metaworld.MetaWorld` (metaworld).
  """

  suite: str
  action_repeat: int
  shadow_size: int | None = None
  factors: tuple[str, ...] | None = None
  texture_size: int = 128
  texture_folder: str = ''
  v2_button: bool = False


def make_env(settings: Settings, task: str, draw: bool = True) -> gymnasium.Env:
  """Opens an environment: images uint8 [64, 64, 3], actions float32 [-1, 1]^A.

  Args:
    settings: which suite, and how.
    task: its name in the suite, 'walker_run' or 'drawer-open'.
    draw: if false, all images are zeros (where only rewards matter).

  Returns:
    The environment; `info['success']` is a bool at every step.

  Raises:
    ValueError: a name is unknown.
    RuntimeError: there is no OpenGL to render with.
  """
  c = settings
  if c.suite == 'dmc':
    from drp_jax.envs import dmc

    env = dmc.DMC(task, c.shadow_size, draw)
  elif c.suite == 'dmcr':
    from drp_jax.envs import dmcr

    env = dmcr.DMCR(
      task, c.factors, c.shadow_size, c.texture_size, c.texture_folder, draw
    )
  elif c.suite == 'metaworld':
    from drp_jax.envs import metaworld

    env = metaworld.MetaWorld(task, c.shadow_size, c.v2_button, draw)
  else:
    raise ValueError(
      f"config.env.suite is 'dmc', 'dmcr' or 'metaworld', not {c.suite!r}."
    )
  return wrappers.ActionRepeat(env, c.action_repeat)
