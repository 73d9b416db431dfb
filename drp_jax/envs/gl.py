"""Chooses MuJoCo's OpenGL back end before mujoco is imported.

MuJoCo reads `MUJOCO_GL` once, when it is imported. If that back end is missing,
it fails later with an error that names no remedy. The candidates are therefore
tried in a child process that renders one image. The first that works is set in
the environment variable, which processes started from here inherit.

If several processes render on one machine, set `LP_NUM_THREADS=1`. Otherwise
each software renderer starts a thread per core.

  python -m drp_jax.envs.gl

prints the back end and exits with 0, or prints what to install and exits with
1.
"""

import importlib
import importlib.util
import logging
import os
import subprocess
import sys

from drp_jax import extras

logger = logging.getLogger(__name__)

# Hardware or llvmpipe without a display, then pure software.
CANDIDATES = ('egl', 'osmesa') if sys.platform == 'linux' else ('glfw',)

CURE = (
  'MuJoCo finds no OpenGL to render with: '
  'apt-get install -y --no-install-recommends libosmesa6, or where there is'
  ' none, libegl1 libgl1 libgl1-mesa-dri'
)

# Environment variable with the value of MUJOCO_GL that rendered an image.
_TRIED = 'DRP_JAX_TRIED_GL'

_TIMEOUT = 60  # seconds; a first import on a cold disk takes several

_PROBE = """
import sys
from drp_jax import processes
processes.follow(int(sys.argv[1]))  # a back end may hang
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/>'
    '<geom type="plane" size="1 1 1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 8, 8) as renderer:
  renderer.update_scene(data)
  assert renderer.render().max() > 0, 'the image is black'
"""


def works(backend: str) -> bool:
  """Returns whether `backend` renders an image, tried in a child process."""
  path = os.pathsep.join(sys.path)
  env = {**os.environ, 'PYTHONPATH': path, 'MUJOCO_GL': backend}
  if backend in ('egl', 'osmesa'):
    env['PYOPENGL_PLATFORM'] = backend
  try:
    done = subprocess.run(
      [sys.executable, '-c', _PROBE, str(os.getpid())],
      env=env,
      capture_output=True,
      text=True,
      timeout=_TIMEOUT,
      check=False,
    )
  except subprocess.TimeoutExpired:
    logger.info('MUJOCO_GL=%s: no image after %d s.', backend, _TIMEOUT)
    return False
  if done.returncode:
    last = done.stderr.strip().splitlines()[-1:]
    logger.info('MUJOCO_GL=%s does not work: %s', backend, ' '.join(last))
  return done.returncode == 0


def select_backend(candidates: tuple[str, ...] = CANDIDATES) -> str:
  """Sets `MUJOCO_GL` to the first back end that works.

  Call it before mujoco or dm_control is imported. The result is kept in an
  environment variable, so later calls and child processes do not probe again.

  Args:
    candidates: values of `MUJOCO_GL` in the order to try. If the user has set
      the variable, only that value is tried.

  Returns:
    The value of `MUJOCO_GL`.

  Raises:
    RuntimeError: no candidate works; the message says what to install.
    extras.MissingExtra: there is no MuJoCo.
  """
  extras.require('MuJoCo', 'dmc', 'mujoco')
  chosen = os.environ.get('MUJOCO_GL')
  if chosen and chosen == os.environ.get(_TRIED):
    return chosen
  if 'dm_control' in sys.modules and not chosen:
    logger.warning('dm_control was imported before its GL back end was chosen.')
  for backend in (chosen,) if chosen else candidates:
    if works(backend):
      os.environ['MUJOCO_GL'] = os.environ[_TRIED] = backend
      if backend in ('egl', 'osmesa'):
        os.environ['PYOPENGL_PLATFORM'] = backend
      return backend
  if chosen:
    raise RuntimeError(
      f'{CURE} (MUJOCO_GL={chosen} does not work here; unset it to let'
      f' {" and ".join(CANDIDATES)} be tried)'
    )
  raise RuntimeError(CURE)


def load_triton() -> None:
  """Loads torch's compiler, if installed, before a software renderer.

  Mesa and triton each contain an LLVM, and triton's has to be loaded first.
  After OSMesa has rendered an image, `import triton`, which torch models do,
  ends in a segmentation fault (Mesa 25 with LLVM 19, triton 3.7). Builds of
  torch without CUDA have no triton.
  """
  if importlib.util.find_spec('triton'):
    importlib.import_module('triton')


def main(argv: list[str]) -> int:
  """Prints the back end or the remedy; tries `argv` instead of the defaults."""
  if argv:
    os.environ.pop('MUJOCO_GL', None)
  try:
    print(select_backend(tuple(argv) or CANDIDATES))
  except RuntimeError as error:
    print(error)
    return 1
  return 0


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
