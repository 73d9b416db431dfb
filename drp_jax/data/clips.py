"""Cuts videos into clips and makes one example of each.

The one split rule: of every video, the last `validation_fraction` of its frames
(but at least one clip of T frames) are validation, the frames before them
training, so the two share no frame. Where that leaves less than T frames for
training, or with a fraction of 0, the whole video is for training. Where the
data set itself says which split a video belongs to (the lists of
Something-Something V2, A14), all of its clips go there.

Videos that give no clip are left out with a reason: one word for counting, then
what happened, "too_short: has 3 frames". The words are those of the reader
(`preprocess/video.py`: missing, unreadable, no_video, empty, corrupt, ...), of
extraction (no_motion), of the process that decodes (`preprocess/isolated.py`:
crash, too_slow) and, of this file, too_short, read_error (any other
exception while reading) and refused (any other reason of extraction).
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from drp_jax.data import schema, sources

SPLITS = ('train', 'validation')

# Any exception means that the video is unusable; its `reason`, if it has one,
# is the word that is counted, its `detail` what is reported beside it.
ReadFrames = Callable[[sources.Video], schema.Footage]
# (T frames, rng) -> arrays of schema.clip_fields(T);
# ValueError means that the clip is unusable, for example that nothing moves;
# with a `reason` as above.
Extract = Callable[[schema.Footage, np.random.Generator], dict[str, np.ndarray]]
Example = dict[str, Any]


class UnusableVideo(ValueError):
  """This video gives no clip.

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
  """What decides the content of every clip, beside the videos.

  Attributes:
    clip_length: T, frames of a clip.
    clip_stride: frames between the starts of neighbouring clips; T for clips
      that share no frame.
    validation_fraction: in [0, 1), see the top of this file.
    seed: of the random choices of extraction.
    extractor: names and versions of what extracts, stored with every clip.
  """

  clip_length: int
  clip_stride: int
  validation_fraction: float
  seed: int
  extractor: dict[str, str]

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


def clip_starts(
  num_frames: int, plan: ClipPlan, split: str | None = None
) -> list[tuple[str, int]]:
  """Says where the clips of a video of `num_frames` frames lie.

  Args:
    num_frames: of the video.
    plan: how to cut it.
    split: where all its clips go, or None for the rule at the top of this file.

  Returns:
    (split, first frame) of every clip, in the order of time.
  """
  T = plan.clip_length
  if split is not None:
    return [(split, s) for s in range(0, num_frames - T + 1, plan.clip_stride)]
  tail = max(T, round(plan.validation_fraction * num_frames))
  if plan.validation_fraction == 0 or num_frames - tail < T:
    tail = 0
  border = num_frames - tail
  train = range(0, border - T + 1, plan.clip_stride)
  validation = range(border, num_frames - T + 1, plan.clip_stride)
  return [
    (split, start)
    for split, starts in zip(SPLITS, (train, validation), strict=True)
    for start in starts
  ]


def clip_rng(
  seed: int, source_id: str, first_frame: int
) -> np.random.Generator:
  """Generator of one clip, so that its record depends on no other clip."""
  # Not hash(): Python salts it anew in every process.
  digest = hashlib.sha256(f'{source_id}:{first_frame}'.encode()).digest()
  return np.random.default_rng([seed, int.from_bytes(digest[:8], 'little')])


def examples(
  video: sources.Video,
  plan: ClipPlan,
  read_frames: ReadFrames,
  extract: Extract,
  splits: Sequence[str],
) -> Iterator[tuple[str, Example | None]]:
  """Makes the examples of one video that belong to one of `splits`.

  Yields:
    (split, example), in the order of time; the example is None where `extract`
    found the clip unusable.

  Raises:
    UnusableVideo: if it cannot be read, has fewer than T frames, or (after the
      last clip) if none of its clips was usable.
    ValueError: if `read_frames` or `extract` break their contract.
  """
  footage = _read(video, plan, read_frames)
  fields = schema.clip_fields(plan.clip_length)
  usable, refusal = 0, None
  for split, start in clip_starts(len(footage), plan, video.split):
    if split not in splits:
      continue
    rng = clip_rng(plan.seed, video.source_id, start)
    try:
      arrays = extract(footage[start : start + plan.clip_length], rng)
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


def _read(
  video: sources.Video, plan: ClipPlan, read_frames: ReadFrames
) -> schema.Footage:
  """Frames of a video, image [N, 64, 64, 3] uint8 with N >= T."""
  try:
    video.sha256  # noqa: B018, an unreadable file shows here
    footage = read_frames(video)
  except MemoryError:
    raise
  except Exception as error:  # decoders raise all sorts for a broken file
    missing = isinstance(error, FileNotFoundError)
    reason = _reason(error, 'missing' if missing else 'read_error')
    detail = getattr(error, 'detail', f'{type(error).__name__}: {error}')
    raise UnusableVideo(reason, detail) from error
  S, frames = schema.IMAGE_SIZE, footage.image
  if frames.dtype != np.uint8 or frames.shape[1:] != (S, S, 3):
    raise ValueError(
      f'Frames of {video.source_id!r} are {frames.dtype}'
      f'{list(frames.shape)}, expected uint8[N, {S}, {S}, 3].'
    )
  if len(frames) < plan.clip_length:
    raise UnusableVideo(
      'too_short',
      f'has {len(frames)} frames, fewer than clip_length={plan.clip_length}',
    )
  return footage


def _reason(error: Exception, default: str) -> str:
  """The word that an exception is counted under."""
  reason = getattr(error, 'reason', None)
  # Others have a `reason` too, UnicodeDecodeError for one, but a sentence.
  is_word = isinstance(reason, str) and reason.isidentifier()
  return reason if is_word else default
