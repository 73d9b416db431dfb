"""Records of a folder of shards: its plan, its progress, the final report.

The folder holds plan.json (the settings and videos that it was begun with),
progress/<shard>.json for each complete shard (its content) and, once all shards
are complete, report.json. All are written atomically and do not depend on how
often the writer was interrupted.
"""

import collections
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import platform
from collections.abc import Sequence
from typing import Any

import numpy as np

from drp_jax import files
from drp_jax.data import clips, schema, sources

PLAN_FILE = 'plan.json'


@dataclasses.dataclass
class Tally:
  """Counts of what one shard contains.

  Attributes:
    num_clips: split -> clips written.
    clips_left_out: clips that extraction refused.
    videos: [source id, sha256] of the videos that gave a clip.
    left_out: {source_id, reason} of the other videos; a reason begins with a
      word for counting, "too_short: has 3 frames".
    cut_short: {source_id, read, unread} of videos of which only the first
      frames were read; `unread` is None if they were not counted.
    cuts: source id -> number of hard cuts, for videos that have any.
    split_videos: split -> number of videos that gave a clip to it; empty if the
      shard is older than this count.
    whole: source id -> [split, clips], for those of `videos` whose clips all
      went to one split by the rule of `clips.whole_splits`.
    flow_energy: sum of (u^2 + v^2) / 2 over the visible keypoints of training
      clips, (pixels per frame)^2.
    flow_count: number of these keypoints.
    recorded_videos: number of videos with recorded actions or joint velocities.
  """

  num_clips: dict[str, int] = dataclasses.field(
    default_factory=lambda: dict.fromkeys(clips.SPLITS, 0)
  )
  clips_left_out: int = 0
  videos: list[list[str]] = dataclasses.field(default_factory=list)
  left_out: list[dict[str, str]] = dataclasses.field(default_factory=list)
  cut_short: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  cuts: dict[str, int] = dataclasses.field(default_factory=dict)
  split_videos: dict[str, int] = dataclasses.field(default_factory=dict)
  whole: dict[str, list] = dataclasses.field(default_factory=dict)
  flow_energy: float = 0.0
  flow_count: int = 0
  recorded_videos: int = 0

  def add_clip(self, split: str, example: clips.Example | None) -> None:
    """Counts a clip, or a clip that was left out, which is None."""
    if example is None:
      self.clips_left_out += 1
      return
    self.num_clips[split] += 1
    if split == 'train':
      energy, count = flow_energy(example)
      self.flow_energy += energy
      self.flow_count += count

  def add_footage(self, video: sources.Video, footage: schema.Footage) -> None:
    """Adds a video's unread frames, its cuts and its recording."""
    self.recorded_videos += footage.recording is not None
    if footage.cuts:
      self.cuts[video.source_id] = len(footage.cuts)
    if footage.unread != 0:
      self.cut_short.append(
        {
          'source_id': video.source_id,
          'read': len(footage),
          'unread': footage.unread,
        }
      )

  def add_video(
    self, video: sources.Video, num_clips: dict[str, int], whole: bool
  ) -> None:
    """Adds a video that gave clips.

    Args:
      video: the video.
      num_clips: split -> number of its clips.
      whole: whether its clips could have gone to the other split as well.
    """
    self.videos.append([video.source_id, video.sha256])
    for split in clips.SPLITS:
      one = int(num_clips.get(split, 0) > 0)
      self.split_videos[split] = self.split_videos.get(split, 0) + one
    if whole:
      ((split, count),) = num_clips.items()
      self.whole[video.source_id] = [split, count]

  def leave_out(self, video: sources.Video, reason: str) -> None:
    """Lists a video that gave no clips."""
    self.left_out.append({'source_id': video.source_id, 'reason': reason})


def flow_energy(example: clips.Example) -> tuple[float, int]:
  """Sums (u^2 + v^2) / 2 of the flow at the visible keypoints of a clip.

  Args:
    example: see `flow_at_points`, and `visible` [T, K].

  Returns:
    The sum, and the number of these keypoints.
  """
  at_points = flow_at_points(example)
  energy = (at_points**2).sum(-1)[example['visible'][1:]] / 2
  return float(energy.sum()), energy.size


def flow_at_points(example: clips.Example) -> np.ndarray:
  """Reads the flow at the keypoints of a clip.

  Entry 0, which holds zeros, is left out. A point is rounded to a pixel (A5),
  at the border to the nearest one (A4).

  Args:
    example: `flow` [T, H, W, 2], `points` [T, K, 2].

  Returns:
    [T-1, K, 2] float64, pixels per frame.
  """
  flow = example['flow'][1:].astype(np.float64)
  last = np.array([flow.shape[2] - 1, flow.shape[1] - 1])
  at = np.clip(np.rint(example['points'][1:]), 0, last).astype(np.int64)
  time = np.arange(len(flow))[:, None]
  return flow[time, at[..., 1], at[..., 0]]


def begin(
  shards_dir: pathlib.Path,
  plan: clips.ClipPlan,
  videos: Sequence[sources.Video],
  num_shards: int,
  worker: int,
) -> None:
  """Writes plan.json, or checks that a restart follows the existing one.

  Raises:
    ValueError: if they differ; the message names the differences.
  """
  source_ids = '\n'.join(_plan_line(video) for video in videos)
  new = {
    'format_version': schema.FORMAT_VERSION,
    **dataclasses.asdict(plan),
    'num_shards': num_shards,
    'num_videos': len(videos),
    'source_ids_sha256': hashlib.sha256(source_ids.encode()).hexdigest(),
  }
  path = shards_dir / PLAN_FILE
  if not path.exists():
    (shards_dir / 'progress').mkdir(parents=True, exist_ok=True)
    _write_json(path, new, worker)
    return
  old = json.loads(path.read_text())
  for field in dataclasses.fields(plan):  # of folders begun before it was there
    if field.default is not dataclasses.MISSING:
      old.setdefault(field.name, field.default)
  changed = [
    f'{name} {old.get(name)!r} -> {new.get(name)!r}'
    for name in sorted(old.keys() | new.keys())
    if old.get(name) != new.get(name)
  ]
  if changed:
    raise ValueError(
      f'config.data.shards_dir={os.fspath(shards_dir)!r} was begun with other '
      f'settings or videos: {"; ".join(changed)}. Use another folder, or '
      'delete this one.'
    )


def _plan_line(video: sources.Video) -> str:
  """Describes a video by what is known before it is read."""
  if video.split is None:
    return video.source_id
  return f'{video.source_id} {video.split}'


def keeps_recordings(shards_dir: str | os.PathLike) -> bool:
  """Returns whether clips in this folder have `schema.recorded_fields`.

  They do, unless the folder was begun before these fields existed.
  """
  path = pathlib.Path(shards_dir, PLAN_FILE)
  return not path.exists() or json.loads(path.read_text()).get(
    'recorded', False
  )


def is_done(shards_dir: pathlib.Path, shard: int) -> bool:
  """Returns whether this shard is complete, in all splits."""
  return _progress_path(shards_dir, shard).exists()


def mark_done(
  shards_dir: pathlib.Path, shard: int, tally: Tally, worker: int
) -> None:
  """Records that the files of this shard are complete."""
  _write_json(
    _progress_path(shards_dir, shard), dataclasses.asdict(tally), worker
  )


def used_videos(shards_dir: str | os.PathLike) -> dict[str, str]:
  """Returns source id -> SHA-256, for videos in complete shards."""
  found = {}
  for path in sorted(pathlib.Path(shards_dir, 'progress').glob('*.json')):
    found |= dict(json.loads(path.read_text())['videos'])
  return found


def shard_lengths(
  shards_dir: pathlib.Path, split: str, num_shards: int
) -> list[int]:
  """Returns the number of clips of `split` in every shard."""
  return [t.num_clips[split] for t in tallies(shards_dir, num_shards)]


def tallies(shards_dir: pathlib.Path, num_shards: int) -> list[Tally]:
  """Reads the tallies of all shards."""
  return [
    Tally(**json.loads(_progress_path(shards_dir, shard).read_text()))
    for shard in range(num_shards)
  ]


def merge(
  shards_dir: pathlib.Path,
  plan: clips.ClipPlan,
  num_shards: int,
  listing: sources.Listing | None = None,
) -> dict[str, Any]:
  """Sums up the finished shards.

  Returns:
    A dict of the plan's settings and
      num_clips: split -> number of clips.
      num_videos: number of videos that gave clips.
      split_videos: split -> number of videos that gave clips to it; None if a
        shard is older than this count.
      held_out_videos: number of validation videos that were not cut in two.
      cut_short: [{source_id, read, unread}], for videos of which only the first
        `read` frames were read.
      cuts: source id -> number of hard cuts, for videos that have any.
      recorded_videos: number of videos with recorded actions or velocities.
      clips_left_out: number of clips that extraction refused.
      left_out: [{source_id, reason}], for videos that gave no clip.
      flow_scale: sigma of A3, pixels per frame: the root of the mean of
        (u^2 + v^2) / 2 of the flow at the visible keypoints of the training
        clips, that is the root mean square of one flow component.
      videos_sha256: digest of the (source id, sha256) of all used videos.
    and, with a listing,
      not_taken: name below the folder -> reason, see `walk`.
      ignored: suffix -> number of files that the source does not use.
      classes: names of the classes in the order of their labels.

  Raises:
    ValueError: if there is no training clip, or no visible keypoint moves.
  """
  parts = tallies(shards_dir, num_shards)
  left_out = sorted(
    (entry for t in parts for entry in t.left_out),
    key=lambda entry: entry['source_id'],
  )
  if not sum(t.num_clips['train'] for t in parts):
    first = [f'{e["source_id"]}: {e["reason"]}' for e in left_out[:3]]
    raise ValueError(
      f'None of {len(left_out)} videos gave a training clip. '
      f'First reasons: {"; ".join(first)}.'
    )
  energy = math.fsum(t.flow_energy for t in parts)
  count = sum(t.flow_count for t in parts)
  if not energy or not math.isfinite(energy):
    raise ValueError(
      f'The flow at all {count} visible keypoints of the training clips has '
      f'the energy {energy}, which must be a number above 0: there is no scale '
      'of the flow.'
    )
  used = sorted(entry for t in parts for entry in t.videos)
  lines = '\n'.join(f'{source_id} {digest}' for source_id, digest in used)
  return {
    'format_version': schema.FORMAT_VERSION,
    **dataclasses.asdict(plan),
    'num_shards': num_shards,
    'num_clips': {s: sum(t.num_clips[s] for t in parts) for s in clips.SPLITS},
    'num_videos': len(used),
    'split_videos': {
      s: sum(t.split_videos.get(s, 0) for t in parts) for s in clips.SPLITS
    }
    if all(t.split_videos for t in parts if t.videos)
    else None,
    'held_out_videos': sum(
      split == 'validation' for t in parts for split, _ in t.whole.values()
    ),
    'cut_short': sorted(
      (entry for t in parts for entry in t.cut_short),
      key=lambda entry: entry['source_id'],
    ),
    'cuts': {name: count for t in parts for name, count in t.cuts.items()},
    'recorded_videos': sum(t.recorded_videos for t in parts),
    'clips_left_out': sum(t.clips_left_out for t in parts),
    'left_out': left_out,
    'flow_scale': math.sqrt(energy / count),
    'videos_sha256': hashlib.sha256(lines.encode()).hexdigest(),
    **(_files(listing) if listing is not None else {}),
  }


def count_reasons(left_out: Sequence[dict[str, str]]) -> dict[str, int]:
  """Counts entries of `left_out` by the first word of their reasons.

  Returns:
    Word -> number of videos, the most frequent first.
  """
  words = (entry['reason'].partition(':')[0] for entry in left_out)
  return dict(collections.Counter(sorted(words)).most_common())


def write_report(
  shards_dir: pathlib.Path, merged: dict[str, Any], worker: int
) -> None:
  """Writes report.json."""
  _write_json(shards_dir / 'report.json', merged, worker)


def read_report(shards_dir: str | os.PathLike) -> dict[str, Any]:
  """Reads report.json, see `merge`.

  Raises:
    ValueError: if there is none, because the shards are not finished.
  """
  path = pathlib.Path(shards_dir, 'report.json')
  if not path.is_file():
    raise ValueError(
      f'config.data.shards_dir={os.fspath(shards_dir)!r} holds no '
      'report.json, so its shards are missing or unfinished.'
    )
  return json.loads(path.read_text())


def process_id() -> str:
  """Returns an id, unique among processes that may write into a folder."""
  return f'{platform.node()}-{os.getpid()}'


def _files(listing: sources.Listing) -> dict[str, Any]:
  return {
    'not_taken': listing.not_taken,
    'ignored': listing.ignored,
    'classes': listing.classes,
  }


def _progress_path(shards_dir: pathlib.Path, shard: int) -> pathlib.Path:
  return shards_dir / 'progress' / f'{shard:05d}.json'


def _write_json(path: pathlib.Path, value: dict[str, Any], worker: int) -> None:
  """Writes a file whole or not at all."""
  # Others may write the same file, with the same content, at the same time.
  content = json.dumps(value, indent=1, sort_keys=True).encode()
  files.write(path, content, f'.{worker}-{process_id()}')
