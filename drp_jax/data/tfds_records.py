"""Records of a prepared TFDS data set or RLDS episodes, without TensorFlow.

A video is a feature of shape [T, H, W, 3]. In RLDS it is a picture in the
nested `steps`, such as 'steps/observation/image'. The other features of a
record are not decoded, and nested steps are decoded one by one.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from drp_jax import extras, recordings
from drp_jax.data import sources

with extras.brings('data', __name__):
  import tensorflow_datasets as tfds

_FORMAT = 'array_record'


@dataclasses.dataclass(frozen=True)
class _Frames:
  """Frames of one record, a `sources.Reader`.

  Attributes:
    records: the open data set; maps numbers to bytes.
    index: number of the record.
    video: decodes the frames.
    label_feature: decodes the class, None if there is none.
  """

  records: Sequence[bytes]
  index: int
  video: '_Feature'
  label_feature: '_Feature | None'

  def __len__(self) -> int:
    return len(self.video.steps(self.records[self.index]))

  def __iter__(self) -> Iterator[np.ndarray]:
    inside = self.video.inside
    for step in self.video.steps(self.records[self.index]):
      yield np.asarray(_walk(step, inside))

  @functools.cached_property
  def label(self) -> int:
    """Class of the record, -1 if it has none; read at the first access."""
    if self.label_feature is None:
      return -1
    return int(self.label_feature.steps(self.records[self.index]))


@dataclasses.dataclass(frozen=True)
class _Actions:
  """Reads the actions of one record, a `sources.Recorded`.

  Attributes:
    records: as in `_Frames`.
    index: number of the record.
    feature: decodes the actions.
  """

  records: Sequence[bytes]
  index: int
  feature: '_Feature'

  def __call__(self) -> recordings.Recording:
    steps = self.feature.steps(self.records[self.index])
    actions = [_walk(step, self.feature.inside) for step in steps]
    return recordings.of_actions_taken(actions)


class _Feature:
  """Decoder of one feature of a record.

  Attributes:
    shape: axes of the sequences or steps around the feature, then its own axes.
    dtype: type of its elements.
    inside: names that lead from a nested step to the feature; empty without
      steps.
  """

  def __init__(self, features: tfds.features.FeaturesDict, path: str):
    """Finds a feature.

    Args:
      features: features of the data set.
      path: names of nested features, joined by slashes; one of `_paths`.
    """
    self._outside, self.inside = path.split('/'), []
    self._features = _narrow(features, self._outside)
    found, axes = features, 0
    for depth, name in enumerate(path.split('/'), start=1):
      if _holds_others(found):
        found, axes = found.feature, axes + 1
      found = found[name]
      if _holds_others(found) and isinstance(found, tfds.features.Dataset):
        self.inside = self._outside[depth:]
    if self.inside:
      del self._outside[-len(self.inside) :]
    self.shape = (None,) * axes + tuple(found.shape)
    self.dtype = found.np_dtype

  def steps(self, record: bytes) -> Any:
    """Decodes the feature; if it is nested, returns the steps that hold it."""
    example = self._features.deserialize_example_np(record)
    return _walk(example, self._outside)


def tfds_records(
  name: str,
  data_dir: str | os.PathLike,
  split: str,
  video_feature: str,
  label_feature: str,
  action_feature: str = '',
) -> sources.Listing:
  """Lists the records of a prepared data set.

  Args:
    name: name of the data set, 'name' or 'name/config'.
    data_dir: the folder in which TFDS keeps its data sets.
    split: a split of the data set, a slice of one, several of these or all:
      'train', 'train[:10%]', 'train+test', 'all'.
    video_feature: path of a feature of shape [T, H, W, 3] and dtype uint8, or
      of [H, W, 3] in nested steps, such as 'steps/observation/image'.
    label_feature: path of an integer scalar, or '' for none.
    action_feature: path of the actions, [T, A] numbers, or [A] in nested steps,
      such as 'steps/action'; '' for none.

  Raises:
    ValueError: if the data set, split or feature does not exist, or its files
      are not ArrayRecord.
  """
  where = f'config.tfds.name={name!r} in config.path={os.fspath(data_dir)!r}'
  try:
    builder = tfds.core.read_only_builder.builder_from_files(
      name, data_dir=os.fspath(data_dir)
    )
  except tfds.core.registered.DatasetNotFoundError as error:
    raise ValueError(
      f'{where} is not a data set that TFDS prepared with '
      f'file_format={_FORMAT!r}.'
    ) from error
  video = _find(
    builder.info.features,
    video_feature,
    lambda f: len(f.shape) == 4 and f.shape[-1] == 3 and f.dtype == np.uint8,
    f'{where}: config.tfds.video_feature={video_feature!r} must be a feature '
    'of shape [T, H, W, 3], or [H, W, 3] in nested steps, and dtype uint8, of',
  )
  label = label_feature and _find(
    builder.info.features,
    label_feature,
    lambda f: not f.shape and np.issubdtype(f.dtype, np.integer),
    f'{where}: config.tfds.label_feature={label_feature!r} must be empty or a '
    'scalar of integers, of',
  )
  action = action_feature and _find(
    builder.info.features,
    action_feature,
    lambda f: len(f.shape) == 2 and np.issubdtype(f.dtype, np.number),
    f'{where}: config.tfds.action_feature={action_feature!r} must be empty or '
    'a feature of numbers of shape [T, A], or [A] in nested steps, of',
  )
  try:
    num_records = builder.info.splits[split].num_examples
  except Exception as error:  # an invalid split raises many kinds of errors
    raise ValueError(
      f'{where}: config.tfds.split={split!r} must be of '
      f'{list(builder.info.splits)}, a slice of one (train[:10%]), several '
      f'(train+test) or all: {error}'
    ) from error
  if not num_records:
    raise ValueError(f'{where}: config.tfds.split={split!r} holds no record.')
  try:
    records = builder.as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
  except NotImplementedError as error:
    raise ValueError(
      f'{where} can only be read without TensorFlow if its file_format is '
      f'{_FORMAT!r}. In an environment with TensorFlow and Apache Beam this '
      'adds such files to the folder: tfds convert_format'
      f' --dataset_version_dir={builder.data_path} --out_file_format={_FORMAT}'
    ) from error
  digits = len(str(num_records))
  return sources.Listing(
    [
      sources.Record(
        f'{name}/{split}/{index:0{digits}d}',
        _Frames(records, index, video, label or None),
        is_local=True,
        recorded=_Actions(records, index, action) if action else None,
      )
      for index in range(num_records)
    ]
  )


def _find(
  features: tfds.features.FeaturesDict,
  path: str,
  is_possible: Callable[[_Feature], bool],
  message: str,
) -> _Feature:
  """Finds a feature; raises ValueError that lists all possible features."""
  possible = {
    path: found
    for path in _paths(features)
    if is_possible(found := _Feature(features, path))
  }
  if path not in possible:
    raise ValueError(f'{message} {sorted(possible)}.')
  return possible[path]


def _paths(feature: Any, path: str = '') -> Iterator[str]:
  """Yields the paths of all features that contain no other features."""
  if isinstance(feature, tfds.features.FeaturesDict):
    for name in feature:
      yield from _paths(feature[name], f'{path}/{name}' if path else name)
  elif _holds_others(feature):
    yield from _paths(feature.feature, path)
  else:
    yield path


def _holds_others(feature: Any) -> bool:
  """Returns whether the elements of a sequence contain other features."""
  return isinstance(
    feature, tfds.features.Dataset | tfds.features.Sequence
  ) and isinstance(feature.feature, tfds.features.FeaturesDict)


def _narrow(feature: Any, path: Sequence[str]) -> Any:
  """Removes from a feature everything outside a path."""
  if not path:
    return feature
  if _holds_others(feature):
    return type(feature)(_narrow(feature.feature, path))
  return tfds.features.FeaturesDict(
    {path[0]: _narrow(feature[path[0]], path[1:])}
  )


def _walk(value: Any, path: Sequence[str]) -> Any:
  for name in path:
    value = value[name]
  return value
