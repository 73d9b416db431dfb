"""Something-Something V2, as it is distributed or re-encoded."""

import json
import os
import pathlib
from collections.abc import Sequence

from drp_jax.data import names, sources, walk

SPLITS = ('train', 'validation')  # the test split has no labels
_AS_DISTRIBUTED = '.webm'


def ssv2_videos(
  folder: str | os.PathLike,
  annotations: str | os.PathLike,
  splits: Sequence[str],
) -> sources.Listing:
  """Lists the videos of the annotations.

  An annotated video without a file is listed too, as `<id>.webm`, and will be
  counted as unreadable. If a video exists in several containers, one file is
  listed, preferably the .webm.

  Args:
    folder: holds `<id>.webm`, or `<id>` with another suffix of
      `sources.VIDEO_SUFFIXES`.
    annotations: folder of `...train.json` and `...validation.json` (lists of
      {id, template}) and `...labels.json` (template without brackets -> number
      of the class).
    splits: some of `SPLITS`; all clips of a video go to its split (A14).

  Returns:
    Videos with label and split.

  Raises:
    ValueError: if a folder, an annotation file or every video is missing, or a
      template has no label.
  """
  folder = sources.existing_folder(folder)
  unknown = sorted(set(splits) - set(SPLITS))
  if unknown or not splits:
    raise ValueError(
      f'config.ssv2.splits={tuple(splits)} must be some of {SPLITS}.'
    )
  annotated = _read_annotations(annotations, splits)
  tree = walk.Walk(folder)

  def container(name: str) -> tuple[bool, str]:
    suffix = walk.suffix(name)
    return suffix != _AS_DISTRIBUTED, suffix

  def is_wanted(name: str) -> bool:
    stem, suffix = os.path.splitext(name)
    return stem in annotated and suffix.lower() in sources.VIDEO_SUFFIXES

  found = {}  # stem -> name
  there = sources.find_files(tree, is_wanted)
  for name in sorted(there, key=container):
    first = found.setdefault(os.path.splitext(name)[0], name)
    if first != name:
      tree.skip(name, f'duplicate: the video is listed as {first}')
  if not found:
    raise ValueError(
      f'config.path={str(folder)!r} holds none of the {len(annotated)} videos'
      f' of the annotations, <id>{_AS_DISTRIBUTED} or <id> with another of'
      f' {", ".join(sources.VIDEO_SUFFIXES)}{sources.first_reasons(tree)}.'
    )
  # Skipped files are not missing: they exist but cannot be read.
  noted = {os.path.splitext(n)[0] for n in tree.not_taken if is_wanted(n)}
  videos = []
  for stem, (label, split) in annotated.items():
    if stem in found or stem not in noted:
      name = found.get(stem, stem + _AS_DISTRIBUTED)
      path = there.get(name, folder / names.from_text(name))
      videos.append(sources.VideoId(name, path, label, split))
  return sources.make_listing(tree, videos)


def _read_annotations(
  folder: str | os.PathLike, splits: Sequence[str]
) -> dict[str, tuple[int, str]]:
  """Maps the id of each video, as text, to its label and split."""
  labels = json.loads(_annotation(folder, 'labels').read_text('utf-8'))
  annotated = {}
  for split in splits:
    path = _annotation(folder, split)
    for entry in json.loads(path.read_text('utf-8')):
      # "Pushing [something] from left to right" is listed without brackets.
      template = entry['template'].replace('[', '').replace(']', '')
      if template not in labels:
        raise ValueError(
          f'{path.name}: the template {template!r} of video {entry["id"]} is '
          'not in the labels file of config.ssv2.annotations.'
        )
      stem = names.to_text(str(entry['id']))
      if stem in annotated:
        raise ValueError(f'{path.name}: video {entry["id"]} is listed twice.')
      annotated[stem] = int(labels[template]), split
  return annotated


def _annotation(folder: str | os.PathLike, kind: str) -> pathlib.Path:
  """Finds the one `...<kind>.json` in a folder."""
  found = sorted(pathlib.Path(folder).glob(f'*{kind}.json'))
  if len(found) != 1:
    raise ValueError(
      f'config.ssv2.annotations={os.fspath(folder)!r} must hold one '
      f'*{kind}.json, not {[path.name for path in found]}.'
    )
  return found[0]
