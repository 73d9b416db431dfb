"""Where videos come from: lists of what there is, decoded elsewhere.

A folder of videos, of one such folder for each class or of frame folders,
Something-Something V2, a TFDS data set. Nothing here decodes a file: a
`VideoId` says which file or folder it is, and reading it is the business of
`drp_jax/preprocess`. A `Record` of a data set is decoded by TFDS.
"""

import dataclasses
import errno
import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from drp_jax import extras
from drp_jax.data import names, walk

with extras.brings('data', __name__):
  import tensorflow_datasets as tfds

VIDEO_SUFFIXES = ('.avi', '.gif', '.mkv', '.mov', '.mp4', '.webm')
PICTURE_SUFFIXES = ('.jpeg', '.jpg', '.png')
SSV2_SPLITS = ('train', 'validation')  # the test split has no labels


@dataclasses.dataclass(frozen=True)
class VideoId:
  """One video: a file, or a folder whose pictures are the frames.

  Attributes:
    source_id: name in the data set, unique; the path relative to the folder,
      with forward slashes, as text (`names.to_text`).
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


@dataclasses.dataclass(frozen=True)
class Listing:
  """What a source found.

  Attributes:
    videos: to be cut into clips, sorted by source id.
    not_taken: name below the folder -> reason, see `walk`.
    ignored: suffix -> how many files have it and are of no use to the source.
    classes: names of the classes in the order of their labels.
  """

  videos: list[Video]
  not_taken: dict[str, str] = dataclasses.field(default_factory=dict)
  ignored: dict[str, int] = dataclasses.field(default_factory=dict)
  classes: list[str] = dataclasses.field(default_factory=list)


def folder_videos(folder: str | os.PathLike) -> Listing:
  """Lists the videos in `folder` and below.

  Raises:
    ValueError: if there is no such folder, or no video in it.
  """
  return _folder_videos(walk.Walk(_existing(folder)), folder)


def class_folders(folder: str | os.PathLike) -> Listing:
  """Lists the videos of a folder that holds one folder for each class.

  Returns:
    Videos whose label is the place of the class's folder among all of them in
    the order of their names, from 0. Folders that hold no video or cannot be
    listed and links that lead nowhere count as well: a label depends on nothing
    but the names of the folders.

  Raises:
    ValueError: if there is no such folder, no video in it, or one that lies in
      no class's folder.
  """
  tree = walk.Walk(_existing(folder))
  listing = _folder_videos(tree, folder)
  lost = [n for n in tree.top_lost if walk.suffix(n) not in VIDEO_SUFFIXES]
  classes = sorted(tree.top_folders + lost)
  labels = {name: label for label, name in enumerate(classes)}
  videos = []
  for video in listing.videos:
    name, slash, _ = video.source_id.partition('/')
    if not slash:
      raise ValueError(
        f'config.path={os.fspath(folder)!r} holds one folder for each class,'
        f' but {name!r} lies in none.'
      )
    videos.append(dataclasses.replace(video, label=labels[name]))
  return dataclasses.replace(listing, videos=videos, classes=classes)


def frame_folders(folder: str | os.PathLike) -> Listing:
  """Lists the folders below `folder` that hold pictures, one video each.

  Returns:
    Folders as videos; `pictures` gives the frames of one.

  Raises:
    ValueError: if there is no such folder, or no picture below it, or pictures
      lie in `folder` itself.
  """
  tree = walk.Walk(_existing(folder))
  found = []
  for below in tree:
    files = below.files + below.links
    # Two names of one picture are two frames, so links are not looked through.
    frames = [file for file in files if _is_picture(file)]
    if frames and not below.name:
      raise ValueError(
        f'config.path={str(folder)!r} holds pictures itself; name the folder '
        'above it, which holds one folder for each video.'
      )
    if frames:
      found.append(VideoId(below.name, below.path))
    for file in files:
      if not _is_picture(file):
        tree.ignore(file)
  if not found:
    raise ValueError(
      f'config.path={str(folder)!r} holds no folder of frames; looked for '
      f'{", ".join(PICTURE_SUFFIXES)} in the folders below'
      f'{_first_reasons(tree)}.'
    )
  return _listing(tree, found)


def pictures(folder: str | os.PathLike) -> list[pathlib.Path]:
  """Pictures of a frame folder in natural order: frame_2 before frame_10."""
  with os.scandir(folder) as entries:
    found = [e.name for e in entries if _is_picture(e.name) and e.is_file()]
  return [pathlib.Path(folder, name) for name in sorted(found, key=_natural)]


def ssv2_videos(
  folder: str | os.PathLike,
  annotations: str | os.PathLike,
  splits: Sequence[str],
) -> Listing:
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
    Videos `<id>.webm` with label and split.

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
      label = int(labels[template])
      videos.append(VideoId(names.to_text(name), folder / name, label, split))
  wanted = {video.source_id for video in videos}
  tree = walk.Walk(folder)
  there = _files(tree, lambda name: name in wanted)
  if not there:
    raise ValueError(
      f'config.path={str(folder)!r} holds none of the {len(videos)} videos of '
      f'the annotations, <id>.webm{_first_reasons(tree)}.'
    )
  # What was noted is not missing: it is there, but not to be read.
  return _listing(
    tree, [v for v in videos if v.source_id not in tree.not_taken]
  )


def tfds_records(
  name: str,
  data_dir: str | os.PathLike,
  split: str,
  video_feature: str,
  label_feature: str,
) -> Listing:
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
  return Listing(
    [
      Record(
        f'{name}/{split}/{i:0{digits}d}',
        records,
        i,
        video_feature,
        label_feature,
      )
      for i in range(len(records))
    ]
  )


def file_sha256(path: pathlib.Path) -> str:
  """Digest of a file's bytes.

  Raises:
    FileNotFoundError: if there is no such file, or what is there is none.
  """
  if not os.path.isfile(path):  # A pipe would wait for somebody to write.
    raise FileNotFoundError(errno.ENOENT, 'no such file', os.fspath(path))
  with open(path, 'rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _folder_videos(tree: walk.Walk, folder: str | os.PathLike) -> Listing:
  paths = _files(tree, lambda name: walk.suffix(name) in VIDEO_SUFFIXES)
  if not paths:
    raise ValueError(
      f'config.path={str(folder)!r} holds no video; looked for '
      f'{", ".join(VIDEO_SUFFIXES)} in it and below{_first_reasons(tree)}.'
    )
  return _listing(tree, [VideoId(*item) for item in paths.items()])


def _files(
  tree: walk.Walk, wanted: Callable[[str], bool]
) -> dict[str, pathlib.Path]:
  """Walks; returns name -> path of the files whose name is wanted.

  Each file is there once: by its own name if the walk comes to it, else by the
  first link to it.
  """
  found, links, owners = {}, {}, {}
  for folder in tree:
    real = os.path.realpath(folder.path)
    for kind, files in ((found, folder.files), (links, folder.links)):
      for file in files:
        name = folder.name_of(file)
        if not wanted(name):
          tree.ignore(file)
          continue
        kind[name] = folder.path / file
        if kind is found:
          owners[os.path.join(real, file)] = name
  for name, path in sorted(links.items()):
    owner = owners.setdefault(os.path.realpath(path), name)
    if owner == name:
      found[name] = path
    else:
      tree.skip(name, f'duplicate: the file is listed as {owner}')
  return found


def _listing(tree: walk.Walk, videos: Sequence[VideoId]) -> Listing:
  return Listing(
    sorted(videos, key=lambda video: video.source_id),
    dict(sorted(tree.not_taken.items())),
    dict(sorted(tree.ignored.items())),
  )


def _first_reasons(tree: walk.Walk) -> str:
  """What was found instead, for a message."""
  first = list(tree.not_taken.items())[:3]
  text = '; '.join(f'{name}: {reason}' for name, reason in first)
  return f' ({text})' if text else ''


def _existing(folder: str | os.PathLike) -> pathlib.Path:
  folder = pathlib.Path(folder)
  if not os.path.isdir(folder):
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
