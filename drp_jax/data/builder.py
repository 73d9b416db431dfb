"""Offers the data set of clips as a TFDS builder."""

import logging
import os
from collections.abc import Iterable, Iterator
from typing import Any

from drp_jax import extras
from drp_jax.data import clips, hold_out, schema, shard_files, shards, sources

with extras.brings('data', __name__):
  import tensorflow_datasets as tfds

_log = logging.getLogger(__name__)


class AtomicActions(tfds.core.GeneratorBasedBuilder):
  """The clips of a set of videos as a TFDS builder.

  Holds the same examples as `shards.write_shards` with the same arguments, in
  TFDS's own order, and writes no report. One split may be empty where
  `shards.write_shards` would fill it (`hold_out.settle`).
  """

  VERSION = tfds.core.Version(schema.FORMAT_VERSION)

  def __init__(
    self,
    data_dir: str | os.PathLike,
    videos: Iterable[sources.Video],
    cutter: clips.Cutter,
  ):
    self._videos = shards.in_order(videos)
    self._cutter, self._plan = cutter, cutter.plan
    self._whole = hold_out.first_splits(self._videos, self._plan)
    super().__init__(
      data_dir=os.fspath(data_dir), file_format=shard_files.FORMAT
    )

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      features=shard_files.features(
        self._plan.clip_length, self._plan.recorded
      ),
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # The videos are local.
    splits = {video.split for video in self._videos} - {None}
    if None in {video.split for video in self._videos}:
      tail = self._plan.validation_fraction
      splits |= set(clips.SPLITS if tail else ('train',))
    return {s: self._generate_examples(s) for s in clips.SPLITS if s in splits}

  def _generate_examples(self, split: str) -> Iterator[tuple[str, Any]]:
    for video in self._videos:
      try:
        for _, example in clips.examples(
          video,
          self._plan,
          self._cutter.read_frames,
          self._cutter.extract,
          (split,),
          self._whole.get(video.source_id),
        ):
          if example is not None:
            yield f'{video.source_id}:{example["first_frame"]}', example
      except clips.UnusableVideo as error:
        _log.warning('%s is left out: %s', video.source_id, error)
