"""Tests of the choice of an OpenGL back end, in real child processes."""

import importlib.util
import os
import subprocess
import sys

import pytest

from drp_jax.envs import gl


def run(
  code_or_args: list[str], **env: str | None
) -> subprocess.CompletedProcess:
  merged = {**os.environ, **env}
  merged = {name: value for name, value in merged.items() if value is not None}
  return subprocess.run(
    [sys.executable, *code_or_args], env=merged, capture_output=True, text=True
  )


def test_command_prints_a_backend_that_works():
  done = run(['-m', 'drp_jax.envs.gl'], MUJOCO_GL=None)
  assert done.returncode == 0, done.stdout
  assert done.stdout.strip() in gl.CANDIDATES


def test_command_names_the_cure_when_nothing_works():
  done = run(['-m', 'drp_jax.envs.gl', 'no_such_backend'])
  assert done.returncode == 1
  assert 'apt-get install' in done.stdout
  assert len(done.stdout.strip().splitlines()) == 1


def test_egl_without_a_driver_is_found_out():
  done = run(
    ['-m', 'drp_jax.envs.gl', 'egl'],
    __EGL_VENDOR_LIBRARY_FILENAMES=os.devnull,
    MUJOCO_GL=None,
  )
  assert done.returncode == 1


def test_select_raises_the_cure(monkeypatch):
  monkeypatch.delenv('MUJOCO_GL', raising=False)
  with pytest.raises(RuntimeError, match='apt-get install'):
    gl.select_backend(('no_such_backend',))
  assert 'MUJOCO_GL' not in os.environ


def test_select_respects_the_user(monkeypatch):
  monkeypatch.delenv('MUJOCO_GL', raising=False)
  works = gl.select_backend()
  monkeypatch.setenv('MUJOCO_GL', works)
  monkeypatch.delenv(gl._TRIED)
  assert gl.select_backend(('no_such_backend',)) == works


@pytest.mark.parametrize('chosen', ['no_such_backend', 'off'])
def test_the_user_s_choice_that_does_not_work_gets_the_cure(
  monkeypatch, chosen
):
  """The hint of an unset one, in one line, which names the choice, too."""
  monkeypatch.setenv('MUJOCO_GL', chosen)
  with pytest.raises(RuntimeError) as error:
    gl.select_backend()
  assert str(error.value).startswith(gl.CURE)
  assert f'MUJOCO_GL={chosen} does not work' in str(error.value)
  assert len(str(error.value).splitlines()) == 1
  assert os.environ['MUJOCO_GL'] == chosen


_COMMANDS = {
  'run_dmcr': ['--config=configs/finetune_dmcr.py:debug', '--workdir={}'],
  'run_metaworld': [
    '--config=configs/finetune_metaworld.py:debug',
    '--workdir={}',
  ],
  'custom_env': ['--config=configs/base.py:debug', '--workdir={}'],
  'show_envs': ['--tasks=walker_run', '--out={}'],
  'run_preprocess': [
    '--config=configs/preprocess.py:sim',
    '--config.path={}/videos',
    '--config.data.shards_dir={}/shards',
  ],
}


@pytest.mark.parametrize('command', _COMMANDS)
def test_every_command_that_renders_gives_the_cure(tmp_path, command):
  """In one line, without a traceback."""
  arguments = [argument.format(tmp_path) for argument in _COMMANDS[command]]
  done = run(
    ['-m', f'experiments.{command}', *arguments], MUJOCO_GL='no_such_backend'
  )
  assert done.returncode == 1
  assert f'Error: {gl.CURE} (MUJOCO_GL=no_such_backend' in done.stderr
  assert 'Traceback' not in done.stderr


def test_select_tells_child_processes(monkeypatch):
  monkeypatch.delenv('MUJOCO_GL', raising=False)
  monkeypatch.delenv('PYOPENGL_PLATFORM', raising=False)
  chosen = gl.select_backend()
  code = 'from drp_jax.envs import gl; print(gl.select_backend(("none",)))'
  assert run(['-c', code]).stdout.strip() == chosen


@pytest.mark.skipif(
  importlib.util.find_spec('triton') is None, reason='torch without CUDA'
)
def test_a_process_that_has_rendered_can_run_models_of_torch():
  code = """
from drp_jax.envs import gl
gl.load_triton()
gl.select_backend()
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><geom type="sphere" size="1"/></worldbody></mujoco>')
with mujoco.Renderer(model, 8, 8) as renderer:
  renderer.render()
import torch._dynamo
"""
  subprocess.run([sys.executable, '-c', code], check=True)
