"""Cuts videos into clips and makes one example of each.

There is one split rule. The last `validation_fraction` of a video's frames (at
least one clip of T frames) are validation frames and the others are training
frames, so the splits share no frame. A video that is too short for that is not
cut in two: all its clips go to one split. `whole_splits` chooses this split for
all videos of a data set at once. It shuffles them by `seed` and makes the first
`validation_fraction` of them, at least one, validation videos. With
`hold_out='videos'` no video is cut in two. With a fraction of 0 all clips are
training clips. Cameras that filmed one episode are held out together. If the
data set assigns a video to a split (the lists of Something-Something V2, A14),
all its clips go there. No clip crosses a hard cut, and validation frames begin
early enough for a clip to fit into one of their shots.

Videos that give no clip are left out with a reason: one word for counting, then
what happened, "too_short: has 3 frames". The words come from

  the reader (`preprocess/video.py`): missing, unreadable, no_video, empty,
    corrupt, ...
  extraction: no_motion
  the process that decodes (`preprocess/isolated.py`): crash, too_slow
  this file: too_short, no_permission, read_error (any other exception while
    reading), refused (any other reason of extraction)
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from drp_jax import recordings
from drp_jax.data import schema, sources

SPLITS = ('train', 'validation')
HOLD_OUT = ('frames', 'videos')
_SYSTEM_ERRORS = (
  (FileNotFoundError, 'missing'),
  (PermissionError, 'no_permission'),
)

# Any exception means that the video is unusable. Its `reason`, if it has one,
# is the word to count it under; its `detail` is reported beside the word.
ReadFrames = Callable[[sources.Video], schema.Footage]
# (T frames, rng) -> arrays of schema.clip_fields(T);
# ValueError means that the clip is unusable, for example because nothing moves;
# it may have a `reason` as above.
Extract = Callable[[schema.Footage, np.random.Generator], dict[str, np.ndarray]]
Example = dict[str, Any]


class UnusableVideo(ValueError):
  """A video that gives no clip.

  Attributes:
    reason: one word, for counting.
    detail: what happened; the message is `<reason>: <detail>`.
  """

  def __init__(self, reason: str, detail: str):
    super().__init__(reason, detail)
    self.reason, self.detail = reason, detail

  def __str__(self) -> str:
    return ': '.join(self.args)


@dataclasses.dataclass(frozen=True)
class ClipPlan:
  """Settings that, with the videos, determine the content of every clip.

  Attributes:
    clip_length: T, frames of a clip.
    clip_stride: frames between the starts of neighboring clips; T for clips
      that share no frame.
    validation_fraction: in [0, 1), see the top of this file.
    seed: seed of the random choices of extraction, and of the choice of videos
      that are held out whole.
    extractor: names and versions of the back-ends, stored with every clip.
    hold_out: what is held out, 'frames' or whole 'videos'.
    recorded: whether clips have the fields of `schema.recorded_fields` and the
      name of the body. Folders of shards that were begun before these fields
      existed resume without them.
  """

  clip_length: int
  clip_stride: int
  validation_fraction: float
  seed: int
  extractor: dict[str, str]
  hold_out: str = 'frames'
  recorded: bool = False

  def __post_init__(self):
    if self.clip_length < 2:
      raise ValueError(
        f'config.data.clip_length={self.clip_length} must be at least 2: '
        'motion needs two frames.'
      )
    if self.clip_stride < 1:
      raise ValueError(
        f'config.data.clip_stride={self.clip_stride} must be at least 1.'
      )
    if not 0 <= self.validation_fraction < 1:
      raise ValueError(
        f'config.data.validation_fraction={self.validation_fraction} must '
        'be in [0, 1).'
      )
    if self.hold_out not in HOLD_OUT:
      raise ValueError(
        f'config.data.hold_out={self.hold_out!r} must be one of {HOLD_OUT}.'
      )


@dataclasses.dataclass(frozen=True)
class Cutter:
  """Cuts clips from videos: a plan and two functions.

  Attributes:
    plan: which clips.
    read_frames: see `ReadFrames`.
    extract: see `Extract`.
  """

  plan: ClipPlan
  read_frames: ReadFrames
  extract: Extract


def whole_splits(
  source_ids: Sequence[str],
  plan: ClipPlan,
  groups: Mapping[str, str] | None = None,
) -> dict[str, str]:
  """Assigns videos that are not cut in two to splits.

  The result depends only on the plan and the set of ids, so all processes of a
  build compute the same.

  Args:
    source_ids: ids of all videos that are cut by the same rule.
    plan: how to cut them.
    groups: source id -> group, for videos that belong to one. All videos of a
      group go to one split, and the rule counts groups.

  Returns:
    Source id -> split. At least one group is for training, and at least one
    for validation if there are two and the plan holds out anything.
  """
  groups = {name: (groups or {}).get(name, name) for name in source_ids}

  def place(group: str) -> tuple[str, str]:
    text = f'{plan.seed}:{group}'
    return hashlib.sha256(text.encode()).hexdigest(), group

  order = sorted(set(groups.values()), key=place)
  count = 0
  if plan.validation_fraction:
    count = max(1, round(plan.validation_fraction * len(order)))
  count = min(count, len(order) - 1)
  held_out = set(order[: max(0, count)])
  return {
    source_id: 'validation' if group in held_out else 'train'
    for source_id, group in groups.items()
  }


def tail(num_frames: int, plan: ClipPlan, cuts: Sequence[int] = ()) -> int:
  """Counts the validation frames at the end of a video.

  Args:
    num_frames: length of the video.
    plan: how to cut it.
    cuts: see `schema.Footage`.

  Returns:
    Their number; 0 if the video is not cut in two.
  """
  T = plan.clip_length
  whole = plan.validation_fraction == 0 or plan.hold_out == 'videos'
  ends = [end for begin, end in _shots(0, num_frames, cuts) if end - begin >= T]
  if whole or not ends:
    return 0
  border = num_frames - round(plan.validation_fraction * num_frames)
  border = min(border, ends[-1] - T)  # so that a clip fits behind it
  return num_frames - border if _starts(0, border, plan, cuts) else 0


def clip_starts(
  num_frames: int,
  plan: ClipPlan,
  split: str | None = None,
  whole: str | None = 'train',
  cuts: Sequence[int] = (),
) -> list[tuple[str, int]]:
  """Places the clips of a video.

  Args:
    num_frames: length of the video.
    plan: how to cut it.
    split: where all its clips go, or None for the rule at the top of this file.
    whole: where they go by that rule if the video is not cut in two; not read
      if there is a split.
    cuts: see `schema.Footage`; no clip goes on beyond one.

  Returns:
    (split, first frame) of every clip, in order of time.
  """
  held_out = tail(num_frames, plan, cuts)
  if split is not None or not held_out:
    split = split or whole
    assert split is not None
    return [(split, start) for start in _starts(0, num_frames, plan, cuts)]
  border = num_frames - held_out
  train = _starts(0, border, plan, cuts)
  validation = _starts(border, num_frames, plan, cuts)
  return [
    (split, start)
    for split, starts in zip(SPLITS, (train, validation), strict=True)
    for start in starts
  ]


def _starts(
  begin: int, end: int, plan: ClipPlan, cuts: Sequence[int]
) -> list[int]:
  """Returns the first frames of the clips in a range of frames."""
  return [
    start
    for first, after in _shots(begin, end, cuts)
    for start in range(first, after - plan.clip_length + 1, plan.clip_stride)
  ]


def _shots(begin: int, end: int, cuts: Sequence[int]) -> list[tuple[int, int]]:
  """Returns (first frame, frame after the last) of all shots in a range."""
  borders = [begin, *(cut for cut in cuts if begin < cut < end), end]
  return list(itertools.pairwise(borders))


def clip_rng(
  seed: int, source_id: str, first_frame: int
) -> np.random.Generator:
  """Returns the generator of one clip, so clips do not depend on each other."""
  # Not hash(): Python salts it anew in every process.
  digest = hashlib.sha256(f'{source_id}:{first_frame}'.encode()).digest()
  return np.random.default_rng([seed, int.from_bytes(digest[:8], 'little')])


def examples(
  video: sources.Video,
  plan: ClipPlan,
  read_frames: ReadFrames,
  extract: Extract,
  splits: Sequence[str],
  whole: str | None = 'train',
) -> Iterator[tuple[str, Example | None]]:
  """Makes the examples of one video that belong to one of `splits`.

  Args:
    video: the video to cut.
    plan: how to cut it.
    read_frames: see `ReadFrames`.
    extract: see `Extract`.
    splits: some of `SPLITS`.
    whole: its split from `whole_splits`, used if it is not cut in two.

  Yields:
    (split, example), in order of time; the example is None if `extract` found
    the clip unusable.

  Raises:
    UnusableVideo: if it cannot be read, has no shot of T frames, or (after the
      last clip) if none of its clips was usable.
    ValueError: if `read_frames` or `extract` break their contract.
  """
  footage = _read(video, plan, read_frames)
  fields = schema.clip_fields(plan.clip_length)
  usable, refusal = 0, None
  for split, start in clip_starts(
    len(footage), plan, video.split, whole, footage.cuts
  ):
    if split not in splits:
      continue
    rng = clip_rng(plan.seed, video.source_id, start)
    clip = footage[start : start + plan.clip_length]
    try:
      arrays = extract(clip, rng)
    except ValueError as error:
      refusal = refusal or error
      yield split, None
      continue
    schema.check(arrays, fields, f'clip of {video.source_id!r} at {start}')
    usable += 1
    yield (
      split,
      {
        **{name: arrays[name] for name in fields},
        **(_recorded(clip) if plan.recorded else {}),
        'source_id': video.source_id,
        'first_frame': start,
        'num_frames': plan.clip_length,
        'label': video.label,
        'sha256': video.sha256,
        'extractor': json.dumps(plan.extractor, sort_keys=True),
      },
    )
  if refusal and not usable:
    raise UnusableVideo(
      _reason(refusal, 'refused'), f'no usable clip: {refusal}'
    )


def _recorded(clip: schema.Footage) -> Example:
  """Returns the recorded fields of a clip, of width 0 if nothing is known."""
  recording = clip.recording or recordings.nothing(len(clip))
  action, velocity = recording.action.copy(), recording.joint_velocity.copy()
  # These led from a frame that the clip does not show.
  action[0] = velocity[0] = 0
  return {
    'action': action,
    'joint_velocity': velocity,
    'body': recording.body,
  }


def _read(
  video: sources.Video, plan: ClipPlan, read_frames: ReadFrames
) -> schema.Footage:
  """Reads the frames of a video, [N, 64, 64, 3] uint8 with a shot >= T."""
  try:
    video.sha256  # noqa: B018, an unreadable file shows here
    footage = read_frames(video)
  except MemoryError:
    raise
  except Exception as error:  # decoders raise all sorts for a broken file
    kinds = [w for kind, w in _SYSTEM_ERRORS if isinstance(error, kind)]
    reason = _reason(error, kinds[0] if kinds else 'read_error')
    # The system's whole message would contain the path of the file.
    text = getattr(error, 'strerror', None) or error
    detail = getattr(error, 'detail', f'{type(error).__name__}: {text}')
    raise UnusableVideo(reason, detail) from error
  S, frames = schema.IMAGE_SIZE, footage.image
  if frames.dtype != np.uint8 or frames.shape[1:] != (S, S, 3):
    raise ValueError(
      f'Frames of {video.source_id!r} are {frames.dtype}'
      f'{list(frames.shape)}, expected uint8[N, {S}, {S}, 3].'
    )
  shots = _shots(0, len(frames), footage.cuts)
  longest = max(end - begin for begin, end in shots)
  if longest < plan.clip_length:
    shot = f' in the longest of its {len(shots)} shots' if footage.cuts else ''
    raise UnusableVideo(
      'too_short',
      f'has {longest} frames{shot}, fewer than clip_length={plan.clip_length}',
    )
  return footage


def _reason(error: Exception, default: str) -> str:
  """Returns the word to count an exception under."""
  reason = getattr(error, 'reason', None)
  # Other exceptions, such as UnicodeDecodeError, have a sentence as `reason`.
  is_word = isinstance(reason, str) and reason.isidentifier()
  return reason if is_word else default
