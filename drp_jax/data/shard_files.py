"""The files of a folder of shards: names, content, metadata.

A shard consists of two ArrayRecord files, one for each split, with one record
for each clip. The folder also holds the JSON files that TFDS reads. Every file
is written whole or not at all.
"""

import contextlib
import functools
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from drp_jax import extras, files
from drp_jax.data import clips, report, schema

with extras.brings('data', __name__):
  import tensorflow_datasets as tfds
  from array_record.python import array_record_module
  from tensorflow_datasets.core import dataset_info, example_serializer

NAME = 'atomic_actions'
FORMAT = 'array_record'
LAST_FILE = 'dataset_info.json'  # written last of the files that TFDS needs


def features(
  num_frames: int, recorded: bool = False
) -> tfds.features.FeaturesDict:
  """Returns the features of one example: `schema.clip_fields` and its origin.

  `first_frame` and `num_frames` give the range in the video. `label` is -1 if
  there is none. `sha256` is the digest of the video file. `extractor` is a JSON
  text of names and versions. With `recorded` there are also
  `schema.recorded_fields`, as wide as each clip's body needs (N43), and `body`,
  its name.
  """
  fields = schema.clip_fields(num_frames)
  texts = ['source_id', 'sha256', 'extractor']
  if recorded:
    fields |= schema.recorded_fields(num_frames)
    texts.append('body')
  arrays = {
    name: tfds.features.Tensor(
      shape=field.shape, dtype=field.dtype, encoding='bytes'
    )
    for name, field in fields.items()
  }
  return tfds.features.FeaturesDict(
    {
      **arrays,
      **{name: tfds.features.Text() for name in texts},
      'first_frame': tfds.features.Scalar(np.int64),
      'num_frames': tfds.features.Scalar(np.int64),
      'label': tfds.features.Scalar(np.int64),
    }
  )


def template(shards_dir: pathlib.Path) -> tfds.core.ShardedFileTemplate:
  """Returns the template of the names of all shards."""
  return tfds.core.ShardedFileTemplate(
    data_dir=shards_dir, dataset_name=NAME, filetype_suffix=FORMAT
  )


def shard_path(
  shards_dir: pathlib.Path, split: str, shard: int, num_shards: int
) -> pathlib.Path:
  """Returns the path of one split of a shard."""
  of_split = template(shards_dir).replace(split=split)
  path = of_split.sharded_filepath(shard_index=shard, num_shards=num_shards)
  return pathlib.Path(path)


def read_shard(
  shards_dir: pathlib.Path, shard: int, num_shards: int, plan: clips.ClipPlan
) -> Iterator[tuple[str, clips.Example]]:
  """Yields (split, example) of both files of a shard, in order.

  A clip that is in both is yielded once, with the last of `clips.SPLITS`.

  Raises:
    ValueError: if a record is corrupt.
  """
  spec = features(plan.clip_length, plan.recorded)
  with contextlib.ExitStack() as stack:
    place = {}
    for split in clips.SPLITS:
      path = shard_path(shards_dir, split, shard, num_shards)
      reader = array_record_module.ArrayRecordReader(os.fspath(path))
      stack.callback(reader.close)
      for index in range(reader.num_records()):
        example = spec.deserialize_example_np(reader.read([index])[0])
        key = example['source_id'].decode(), int(example['first_frame'])
        place[key] = split, reader, index
    for _, (split, reader, index) in sorted(place.items()):
      yield split, spec.deserialize_example_np(reader.read([index])[0])


@contextlib.contextmanager
def shard_writers(
  shards_dir: pathlib.Path,
  shard: int,
  num_shards: int,
  plan: clips.ClipPlan,
  first: str = clips.SPLITS[0],
) -> Iterator[dict[str, Callable[[clips.Example], None]]]:
  """Yields split -> function that appends an example to that split's shard.

  Args:
    shards_dir: folder of the data set.
    shard: number of the shard.
    num_shards: number of shards of the data set.
    plan: how clips are cut.
    first: the split whose file is replaced first.
  """
  spec = features(plan.clip_length, plan.recorded)
  serializer = example_serializer.ExampleSerializer(spec.get_serialized_info())
  paths = {
    split: shard_path(shards_dir, split, shard, num_shards)
    for split in clips.SPLITS
  }
  # Whoever else writes this shard at the same time (a machine thought dead)
  # writes the same bytes, but must not write them into our file.
  own = f'.{report.process_id()}'
  with contextlib.ExitStack() as stack:
    partial = {  # what is opened last is replaced first
      split: stack.enter_context(files.replacing(paths[split], own))
      for split in sorted(paths, key=lambda split: split == first)
    }
    writers = {}
    for split in clips.SPLITS:
      # One record per group, so that a clip is read without its neighbors.
      writer = array_record_module.ArrayRecordWriter(
        os.fspath(partial[split]), 'group_size:1'
      )
      stack.callback(writer.close)
      writers[split] = functools.partial(_append, writer, serializer, spec)
    yield writers


def _append(
  writer: array_record_module.ArrayRecordWriter,
  serializer: example_serializer.ExampleSerializer,
  spec: tfds.features.FeaturesDict,
  example: clips.Example,
) -> None:
  record = serializer.get_tf_example(spec.encode_example(example))
  # Otherwise the order of the fields, and so the bytes of a shard, would differ
  # from process to process.
  writer.write(record.SerializeToString(deterministic=True))


def write_metadata(
  shards_dir: pathlib.Path,
  plan: clips.ClipPlan,
  split_infos: list[tfds.core.SplitInfo],
) -> None:
  """Writes the files of `tfds.folder_dataset.write_metadata`, each whole.

  That function writes in place, so a kill may leave a partial file.
  """
  info = tfds.core.DatasetInfo(
    builder=dataset_info.DatasetIdentity(
      name=NAME,
      version=tfds.core.Version(schema.FORMAT_VERSION),
      data_dir=os.fspath(shards_dir),
      module_name='',
    ),
    features=features(plan.clip_length, plan.recorded),
  )
  info.set_file_format(FORMAT)
  info.set_splits(tfds.core.splits.SplitDict(split_infos))
  unfinished = shards_dir / '.metadata'
  unfinished.mkdir(exist_ok=True)
  info.write_to_directory(unfinished)
  # The file that `open_split` looks for is moved last.
  written = sorted(unfinished.iterdir(), key=lambda p: p.name == LAST_FILE)
  for path in written:
    os.replace(path, shards_dir / path.name)
  unfinished.rmdir()
