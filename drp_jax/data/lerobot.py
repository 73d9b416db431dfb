"""LeRobot data sets in a local folder, v2.0 to v3.0, without their package.

`meta/info.json` names the features and holds templates of paths. A feature of
dtype 'video' or 'image' is a camera. Up to v2.1 each episode has a video file
for each camera, and a parquet file for its pictures. From v3.0 on a file holds
many episodes, and `meta/episodes/*/*.parquet` says which file an episode is in
and when it begins. One camera of one episode is one video.
"""

import dataclasses
import errno
import functools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drp_jax import extras, recordings
from drp_jax.data import names, schema, sources, walk

with extras.brings('data', __name__):
  import pyarrow as pa
  import pyarrow.parquet as pq

_INFO = 'meta/info.json'
_EPISODES = 'meta/episodes.jsonl'  # up to v2.1
_EPISODE_FILES = 'meta/episodes/*/*.parquet'
_ACTION = 'action'
_ROWS = 16  # pictures in memory, besides one page of the file      [ours]


@dataclasses.dataclass(frozen=True)
class _Rows:
  """Rows of one episode in a parquet file, one for each frame.

  Attributes:
    path: path of the file.
    episode: number of the episode.
    num_frames: number of rows of the episode.
  """

  path: pathlib.Path
  episode: int
  num_frames: int

  def column(self, name: str, leaf: str = '') -> Iterator[pa.Scalar]:
    """Yields the values of a column in the order of time.

    Args:
      name: name of the column.
      leaf: part of the column to read, such as '.bytes'; '' is all of it.

    Raises:
      FileNotFoundError: if the parquet file is missing.
      ValueError: if it is damaged or has a wrong number of rows.
    """
    if not os.path.isfile(self.path):
      raise FileNotFoundError(errno.ENOENT, 'no such file')
    columns = [name + leaf, 'episode_index']
    count = 0
    with pq.ParquetFile(self.path, pre_buffer=False) as file:
      groups = self._row_groups(file)
      for batch in file.iter_batches(_ROWS, groups, columns, use_threads=False):
        rows = batch.column(name), batch.column('episode_index')
        for value, episode in zip(*rows, strict=True):
          if episode.as_py() == self.episode:
            count += 1
            yield value
    if count != self.num_frames:
      raise ValueError(f'{count} of {self.num_frames} rows')

  def _row_groups(self, file: pq.ParquetFile) -> list[int]:
    """Finds the groups of rows that may belong to the episode."""
    found = []
    for number in range(file.num_row_groups):
      group = file.metadata.row_group(number)
      for column in map(group.column, range(group.num_columns)):
        known = column.path_in_schema == 'episode_index' and column.statistics
        if known and not known.min <= self.episode <= known.max:
          break
      else:
        found.append(number)
    return found


@dataclasses.dataclass(frozen=True)
class _Pictures:
  """Pictures of one camera in one episode, a `sources.Reader`.

  Attributes:
    rows: rows of the episode.
    camera: name of the column.
    label: class of the episode.
  """

  rows: _Rows
  camera: str
  label: int

  def __len__(self) -> int:
    return self.rows.num_frames

  def __iter__(self) -> Iterator[bytes]:
    """Yields the bytes of picture files; raises as `_Rows.column`."""
    for picture in self.rows.column(self.camera, '.bytes'):
      yield picture['bytes'].as_py() or b''


def _recorded(rows: _Rows, body: str) -> recordings.Recording:
  """Reads the actions of an episode."""
  actions = [value.as_py() for value in rows.column(_ACTION)]
  return recordings.of_actions_taken(actions, body)


@dataclasses.dataclass(frozen=True)
class _Episode:
  """One episode.

  Attributes:
    index: number of the episode.
    num_frames: number of frames.
    task: text of the task; several texts are joined by '; '.
    places: camera -> name of the file below the folder, and the time stamp in
      seconds at which the episode begins in it; None if the file holds only
      this episode.
    data: name of the parquet file.
  """

  index: int
  num_frames: int
  task: str
  places: Mapping[str, tuple[str, float | None]]
  data: str


def lerobot_videos(folder: str | os.PathLike, camera: str) -> sources.Listing:
  """Lists a video for each camera of every episode.

  Args:
    folder: folder of the data set, which holds `meta/info.json`.
    camera: name of its feature, such as 'observation.images.top'; '' is all
      cameras except depth cameras.

  Returns:
    Videos `<camera>/<episode>`. Their label is the position of the episode's
    task in the sorted list of all tasks. Videos of one episode are a group.

  Raises:
    ValueError: if there is no such folder, version, camera or video, or the
      metadata are damaged.
  """
  root = sources.existing_folder(folder)
  where = f'config.path={os.fspath(folder)!r}'
  info = _read_info(root, where)
  cameras, not_taken = _choose(info['features'], camera, where)
  try:
    episodes = list(_read_episodes(root, info, cameras))
  except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
    raise ValueError(
      f'{where}: the metadata of the episodes are damaged'
      f' ({type(error).__name__}: {error}).'
    ) from error
  wanted = {place[0] for e in episodes for place in e.places.values()}
  tree = walk.Walk(root)
  for name, reason in not_taken.items():
    tree.skip(name, reason)
  found = sources.find_files(tree, lambda name: name in wanted)
  if not found:
    raise ValueError(
      f'{where} holds none of the {len(wanted)} files of its {len(episodes)}'
      f' episodes, such as {min(wanted, default="")!r}'
      f'{sources.first_reasons(tree)}.'
    )
  classes = sorted({episode.task for episode in episodes} - {''})
  labels = {task: label for label, task in enumerate(classes)}
  videos = []
  for episode in episodes:
    for name, (file, start) in episode.places.items():
      if file in tree.not_taken:
        continue  # The file exists but cannot be read.
      path = found.get(file, root / names.from_text(file))
      label = labels.get(episode.task, -1)
      data = root / names.from_text(episode.data)
      rows = _Rows(data, episode.index, episode.num_frames)
      videos.append(_video(info, rows, name, path, start, label))
  return sources.make_listing(tree, videos, classes)


def _video(
  info: Mapping[str, Any],
  rows: _Rows,
  camera: str,
  path: pathlib.Path,
  start: float | None,
  label: int,
) -> sources.Video:
  """Locates the frames of one camera in one episode."""
  group = f'{rows.episode:06d}'
  source_id = f'{names.to_text(camera)}/{group}'
  recorded = None
  if _ACTION in info['features'] and rows.path.is_file():
    recorded = functools.partial(
      _recorded, rows, str(info.get('robot_type') or '')
    )
  if info['features'][camera]['dtype'] == 'image':
    reader = _Pictures(rows, camera, label)
    return sources.Record(source_id, reader, group=group, recorded=recorded)
  span = None
  if start is not None:
    end = start + rows.num_frames / info['fps']
    span = schema.Span(start, end, rows.num_frames)
  return sources.VideoId(
    source_id, path, label, span=span, group=group, recorded=recorded
  )


def _read_info(root: pathlib.Path, where: str) -> dict[str, Any]:
  """Reads meta/info.json; raises ValueError if it is not as expected."""
  try:
    info = json.loads((root / _INFO).read_text('utf-8'))
    version = str(info['codebase_version'])
    info['fps'], info['features'] = float(info['fps']), dict(info['features'])
  except FileNotFoundError as error:
    raise ValueError(
      f'{where} is no LeRobot data set: it holds no {_INFO}.'
    ) from error
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'{where}: {_INFO} is damaged ({type(error).__name__}: {error}).'
    ) from error
  if not version.startswith(('v2.', 'v3.')):
    raise ValueError(
      f'{where} is a LeRobot data set of version {version!r}, which must be'
      ' v2.0, v2.1 or v3.0.'
    )
  return info


def _choose(
  features: Mapping[str, Mapping[str, Any]], camera: str, where: str
) -> tuple[list[str], dict[str, str]]:
  """Chooses cameras.

  Returns:
    Names of the chosen cameras, and name -> reason of the others.
  """
  cameras = [
    name
    for name, feature in features.items()
    if feature.get('dtype') in ('video', 'image')
  ]
  if not cameras:
    raise ValueError(f'{where} has no camera among {list(features)}.')
  if camera and camera not in cameras:
    raise ValueError(
      f'{where}: config.lerobot.camera={camera!r} must be empty, for all, or'
      f' one of {cameras}.'
    )
  if camera:
    chosen = {camera}
    reason = 'other_camera: config.lerobot.camera names another'
  else:
    chosen = {name for name in cameras if not _is_depth(features[name])}
    reason = 'depth: pictures of distances'
  others = [name for name in cameras if name not in chosen]
  if not chosen:
    raise ValueError(f'{where}: all of {cameras} are cameras of depth.')
  return (
    sorted(chosen),
    {f'camera {names.to_text(name)}': reason for name in others},
  )


def _is_depth(feature: Mapping[str, Any]) -> bool:
  """Returns whether a camera records depth, by the key of any version."""
  known = {**(feature.get('video_info') or {}), **(feature.get('info') or {})}
  return bool(known.get('is_depth_map') or known.get('video.is_depth_map'))


def _read_episodes(
  root: pathlib.Path, info: Mapping[str, Any], cameras: Sequence[str]
) -> Iterator[_Episode]:
  """Reads all episodes; raises many kinds of errors if they are damaged."""
  # Camera -> prefix of its columns.
  parts = {
    camera: f'videos/{camera}'
    for camera in cameras
    if info['features'][camera]['dtype'] == 'video'
  }
  for row in _read_rows(root, info, [*parts.values(), 'data']):
    data = _file(info, 'data_path', row, 'data')
    places = dict.fromkeys(cameras, (data, None))
    for camera, part in parts.items():
      file = _file(info, 'video_path', row, part, camera)
      places[camera] = file, row.get(f'{part}/from_timestamp')
    task = '; '.join(row['tasks'])
    yield _Episode(row['episode_index'], row['length'], task, places, data)


def _file(
  info: Mapping[str, Any],
  template: str,
  row: Mapping[str, Any],
  part: str,
  camera: str = '',
) -> str:
  """Fills in a template; returns the name of an episode's file, as text."""
  index = row['episode_index']
  values = {'video_key': camera, 'episode_index': index}
  if _is_old(info):
    values['episode_chunk'] = index // info['chunks_size']
  else:
    values['chunk_index'] = row[f'{part}/chunk_index']
    values['file_index'] = row[f'{part}/file_index']
  return names.to_text(info[template].format(**values))


def _is_old(info: Mapping[str, Any]) -> bool:
  """Returns whether each episode has separate files."""
  return str(info['codebase_version']).startswith('v2.')


def _read_rows(
  root: pathlib.Path, info: Mapping[str, Any], parts: Sequence[str]
) -> Iterator[dict[str, Any]]:
  """Yields the metadata of each episode, without its statistics."""
  if _is_old(info):
    with open(root / _EPISODES, encoding='utf-8') as lines:
      yield from (json.loads(line) for line in lines if line.strip())
    return
  columns = ['episode_index', 'length', 'tasks']
  for part in parts:
    columns += [f'{part}/chunk_index', f'{part}/file_index']
    if part != 'data':
      columns.append(f'{part}/from_timestamp')
  for path in sorted(root.glob(_EPISODE_FILES)):
    with pq.ParquetFile(path) as file:
      lacking = sorted(set(columns) - set(file.schema_arrow.names))
      if lacking:
        raise ValueError(f'{path.name} lacks {lacking}')
      for batch in file.iter_batches(columns=columns):
        yield from batch.to_pylist()
