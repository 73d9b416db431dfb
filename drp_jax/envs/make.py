"""Opens an environment by the names in a config."""

import gymnasium

from drp_jax.envs import wrappers


def make_env(
  suite: str,
  task: str,
  *,
  action_repeat: int,
  shadow_size: int | None,
  factors: tuple[str, ...] | None = None,
  texture_size: int = 128,
  texture_folder: str = '',
  v2_button: bool = False,
  draw: bool = True,
) -> gymnasium.Env:
  """Opens an environment: images uint8 [64, 64, 3], actions float32 [-1, 1]^A.

  Args:
    suite: 'dmc', 'dmcr' or 'metaworld'.
    task: its name in the suite, such as 'walker_run' or 'drawer-open'.
    action_repeat: control steps per agent step; 2 for dmc and dmcr, 1 for
      metaworld [IPV].
    shadow_size: side of the shadow map in texels, None for the suite's own.
    factors: those of `looks.FACTORS` that vary from episode to episode; None is
      `dmcr.default_factors` (dmcr).
    texture_size: side of textures in texels (dmcr).
    texture_folder: the user's textures, '' for the embedded set (dmcr).
    v2_button: see `metaworld.MetaWorld` (metaworld).
    draw: if false, all images are zeros (if only rewards matter).

  Returns:
    The environment; `info['success']` is a bool at every step.

  Raises:
    ValueError: a name is unknown.
    RuntimeError: there is no OpenGL to render with.
  """
  if suite == 'dmc':
    from drp_jax.envs import dmc

    env = dmc.DMC(task, shadow_size, draw)
  elif suite == 'dmcr':
    from drp_jax.envs import dmcr

    env = dmcr.DMCR(
      task, factors, shadow_size, texture_size, texture_folder, draw
    )
  elif suite == 'metaworld':
    from drp_jax.envs import metaworld

    env = metaworld.MetaWorld(task, shadow_size, v2_button, draw)
  else:
    raise ValueError(
      f"config.env.suite is 'dmc', 'dmcr' or 'metaworld', not {suite!r}."
    )
  return wrappers.ActionRepeat(env, action_repeat)
