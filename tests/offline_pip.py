"""A pip that serves a wheel made here."""

import pathlib
import stat
import zipfile

from drp_jax import wheels


def serve(monkeypatch, folder: pathlib.Path, contents: dict[str, bytes]):
  """Lets `wheels.download` find a Python whose pip copies a wheel.

  Args:
    monkeypatch: pytest's.
    folder: gets the wheel and that Python.
    contents: of the wheel, by name.

  Returns:
    The file that gets the arguments of each call.
  """
  wheel = folder / 'served-1-py3-none-any.whl'
  with zipfile.ZipFile(wheel, 'w') as archive:
    for name, content in contents.items():
      archive.writestr(name, content)
  calls = folder / 'calls'
  use(
    monkeypatch,
    folder,
    f'echo "$*" >> {calls}\nfor last; do :; done\ncp {wheel} $last',
  )
  return calls


def use(monkeypatch, folder: pathlib.Path, script: str):
  """Lets `wheels.download` find a Python that is a shell script."""
  python = folder / 'python3'
  python.write_text(f'#!/bin/sh\n{script}\n')
  python.chmod(python.stat().st_mode | stat.S_IXUSR)
  monkeypatch.setattr(wheels, '_pythons', lambda: [str(python)])
