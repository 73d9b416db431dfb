"""Folders of video files, with or without classes, and folders of pictures."""

import dataclasses
import os

from drp_jax.data import sources, walk


def folder_videos(folder: str | os.PathLike) -> sources.Listing:
  """Lists the videos in `folder` and below.

  Raises:
    ValueError: if there is no such folder, or no video in it.
  """
  return _folder_videos(walk.Walk(sources.existing_folder(folder)), folder)


def class_folders(folder: str | os.PathLike) -> sources.Listing:
  """Lists the videos of a folder that holds one folder for each class.

  Returns:
    Videos. A label is the position of the class's folder among all folders in
    order of their names, from 0. Folders without a video, folders that cannot
    be listed and dangling links count as well, so a label depends only on the
    names of the folders.

  Raises:
    ValueError: if there is no such folder, if it holds no video, or if a video
      lies outside the folders of the classes.
  """
  tree = walk.Walk(sources.existing_folder(folder))
  listing = _folder_videos(tree, folder)
  lost = [
    n for n in tree.top_lost if walk.suffix(n) not in sources.VIDEO_SUFFIXES
  ]
  classes = sorted(tree.top_folders + lost)
  labels = {name: label for label, name in enumerate(classes)}
  videos: list[sources.Video] = []
  for video in listing.videos:
    assert isinstance(video, sources.VideoId)
    name, slash, _ = video.source_id.partition('/')
    if not slash:
      raise ValueError(
        f'config.path={os.fspath(folder)!r} holds one folder for each class,'
        f' but {name!r} lies in none.'
      )
    videos.append(dataclasses.replace(video, label=labels[name]))
  return dataclasses.replace(listing, videos=videos, classes=classes)


def frame_folders(folder: str | os.PathLike) -> sources.Listing:
  """Lists the folders below `folder` that hold pictures, one video each.

  Returns:
    Folders as videos; `sources.pictures` lists the frames of one.

  Raises:
    ValueError: if there is no such folder, if there is no picture below it, or
      if pictures lie in `folder` itself.
  """
  tree = walk.Walk(sources.existing_folder(folder))
  found = []
  for below in tree:
    files = below.files + below.links
    # Two names of one picture are two frames, so links are not resolved.
    frames = [file for file in files if sources.is_picture(file)]
    if frames and not below.name:
      raise ValueError(
        f'config.path={str(folder)!r} holds pictures itself; name the folder '
        'above it, which holds one folder for each video.'
      )
    if frames:
      found.append(sources.VideoId(below.name, below.path))
    for file in files:
      if not sources.is_picture(file):
        tree.ignore(file)
  if not found:
    raise ValueError(
      f'config.path={str(folder)!r} holds no folder of frames; looked for '
      f'{", ".join(sources.PICTURE_SUFFIXES)} in the folders below'
      f'{sources.first_reasons(tree)}.'
    )
  return sources.make_listing(tree, found)


def _folder_videos(
  tree: walk.Walk, folder: str | os.PathLike
) -> sources.Listing:
  paths = sources.find_files(
    tree, lambda name: walk.suffix(name) in sources.VIDEO_SUFFIXES
  )
  if not paths:
    raise ValueError(
      f'config.path={str(folder)!r} holds no video; looked for '
      f'{", ".join(sources.VIDEO_SUFFIXES)} in it and below'
      f'{sources.first_reasons(tree)}.'
    )
  return sources.make_listing(
    tree, [sources.VideoId(*item) for item in paths.items()]
  )
