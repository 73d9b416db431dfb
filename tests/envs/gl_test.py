"""Tests of the choice of an OpenGL back end, in real child processes."""

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
  monkeypatch.setenv('MUJOCO_GL', 'glfw')
  assert gl.select_backend(('no_such_backend',)) == 'glfw'


def test_select_tells_child_processes(monkeypatch):
  monkeypatch.delenv('MUJOCO_GL', raising=False)
  monkeypatch.delenv('PYOPENGL_PLATFORM', raising=False)
  chosen = gl.select_backend()
  code = 'from drp_jax.envs import gl; print(gl.select_backend(("none",)))'
  assert run(['-c', code]).stdout.strip() == chosen
