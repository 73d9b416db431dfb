"""Fills an empty split with whole videos of the other split.

The shards of a data set are written independently of each other. The videos to
hold out are therefore chosen before any of them is read (`clips.whole_splits`).
Which videos are usable is known only after all shards are written. If one split
has no clip then, the same rule is applied again, to the videos that gave clips,
and their clips move.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

from drp_jax.data import clips, report, shard_files, sources


def settle(
  shards_dir: pathlib.Path,
  videos: Sequence[sources.Video],
  plan: clips.ClipPlan,
  num_shards: int,
) -> None:
  """Moves clips so that neither split is empty, if that is possible.

  If a call is killed, the next one finishes its work, because the choice of
  clips does not depend on what has been moved already.

  Args:
    shards_dir: folder in which all shards are complete.
    videos: all videos that were cut.
    plan: how they were cut.
    num_shards: number of shards of the data set.
  """
  tallies = report.tallies(shards_dir, num_shards)
  first = first_splits(videos, plan)
  wanted = _wanted(tallies, first, plan, sources.groups(videos))
  for shard, tally in enumerate(tallies):
    now = {name: split for name, (split, _) in tally.whole.items()}
    new = {name: wanted[name] for name in now}
    if new != now:
      _rewrite(shards_dir, shard, num_shards, plan, tally, new)


def first_splits(
  videos: Sequence[sources.Video], plan: clips.ClipPlan
) -> dict[str, str]:
  """Chooses splits for videos not cut in two, before any video is read."""
  ids = [video.source_id for video in videos if video.split is None]
  return clips.whole_splits(ids, plan, sources.groups(videos))


def _wanted(
  tallies: Sequence[report.Tally],
  first: dict[str, str],
  plan: clips.ClipPlan,
  groups: Mapping[str, str],
) -> dict[str, str]:
  """Returns source id -> split, for each video that was not cut in two."""
  counts = dict.fromkeys(clips.SPLITS, 0)  # as they were before any move
  usable = []
  for tally in tallies:
    for split, count in tally.num_clips.items():
      counts[split] += count
    for name, (split, count) in tally.whole.items():
      counts[split] -= count
      counts[first[name]] += count
      usable.append(name)
  held_out = plan.validation_fraction > 0
  if all(counts.values()) or not held_out:
    return {name: first[name] for name in usable}
  return clips.whole_splits(usable, plan, groups)


def _rewrite(
  shards_dir: pathlib.Path,
  shard: int,
  num_shards: int,
  plan: clips.ClipPlan,
  old: report.Tally,
  splits: dict[str, str],
) -> None:
  """Rewrites a shard in which some videos change their split."""
  (gains,) = {
    splits[name]
    for name, (split, _) in old.whole.items()
    if split != splits[name]
  }
  tally = dataclasses.replace(
    old,
    num_clips=dict.fromkeys(clips.SPLITS, 0),
    whole={n: [splits[n], count] for n, (_, count) in old.whole.items()},
    flow_energy=0.0,
    flow_count=0,
  )
  members = set()
  # The file that loses clips is replaced last, so a kill in between loses none.
  with shard_files.shard_writers(
    shards_dir, shard, num_shards, plan, first=gains
  ) as writers:
    for split, example in shard_files.read_shard(
      shards_dir, shard, num_shards, plan
    ):
      name = example['source_id'].decode()
      split = splits.get(name, split)
      writers[split](example)
      tally.add_clip(split, example)
      members.add((split, name))
  tally.split_videos = {
    split: sum(one == split for one, _ in members) for split in clips.SPLITS
  }
  report.mark_done(shards_dir, shard, tally, worker=0)
