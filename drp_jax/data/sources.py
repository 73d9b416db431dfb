"""Where videos come from: lists of what there is, decoded elsewhere.

A folder of videos, of one such folder for each class or of frame folders,
Something-Something V2, a TFDS data set. Nothing here decodes a file: a
`VideoId` says which file or folder it is, and reading it is the business of
`drp_jax/preprocess`. A `Record` of a data set is decoded by TFDS.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

VIDEO_SUFFIXES = ('.avi', '.gif', '.mkv', '.mov', '.mp4', '.webm')
PICTURE_SUFFIXES = ('.jpeg', '.jpg', '.png')
SSV2_SPLITS = ('train', 'validation')  # the test split has no labels


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
      return file_sha256(self.path)
    digests = ''.join(file_sha256(path) for path in pictures(self.path))
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


def class_folders(folder: str | os.PathLike) -> list[VideoId]:
  """Lists the videos of a folder that holds one folder for each class.

  Returns:
    Their ids, sorted by source id. The label is the place of the class's folder
    among all of them in the order of their names, from 0.

  Raises:
    ValueError: if there is no such folder, no video in it, or one that lies in
      no class's folder.
  """
  videos = folder_videos(folder)
  of_class = [v.source_id.partition('/')[0::2] for v in videos]
  loose = [name for name, rest in of_class if not rest]
  if loose:
    raise ValueError(
      f'config.path={os.fspath(folder)!r} holds one folder for each class, but'
      f' {loose[0]!r} lies in none.'
    )
  names = sorted({name for name, _ in of_class})
  return [
    dataclasses.replace(video, label=names.index(name))
    for video, (name, _) in zip(videos, of_class, strict=True)
  ]


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


def file_sha256(path: pathlib.Path) -> str:
  """Digest of a file's bytes."""
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


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
