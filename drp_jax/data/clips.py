"""Cuts videos into clips and makes one example of each.

The one split rule: of every video, the last `validation_fraction` of its frames
(but at least one clip of T frames) are validation, the frames before them
training, so the two share no frame. Where that leaves less than T frames for
training, or with a fraction of 0, the whole video is for training. Sets with a
validation list of their own (Something-Something V2, A14) are written as two
folders with fraction 0.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from drp_jax.data import schema, sources

SPLITS = ('train', 'validation')

# Any exception means that the video is unusable.
ReadFrames = Callable[[sources.VideoId], schema.Footage]
# (T frames, rng) -> arrays of schema.clip_fields(T);
# ValueError means that the clip is unusable, for example that nothing moves.
Extract = Callable[[schema.Footage, np.random.Generator], dict[str, np.ndarray]]
Example = dict[str, Any]


class UnusableVideo(ValueError):
  """This video gives no clip; the message says why."""


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


def clip_starts(num_frames: int, plan: ClipPlan) -> list[tuple[str, int]]:
  """Says where the clips of a video of `num_frames` frames lie.

  Returns:
    (split, first frame) of every clip, in the order of time.
  """
  T = plan.clip_length
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
  video: sources.VideoId,
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
  usable, reason = 0, ''
  for split, start in clip_starts(len(footage), plan):
    if split not in splits:
      continue
    rng = clip_rng(plan.seed, video.source_id, start)
    try:
      arrays = extract(footage[start : start + plan.clip_length], rng)
    except ValueError as error:
      reason = reason or str(error)
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
  if reason and not usable:
    raise UnusableVideo(f'no usable clip: {reason}')


def _read(
  video: sources.VideoId, plan: ClipPlan, read_frames: ReadFrames
) -> schema.Footage:
  """Frames of a video, image [N, 64, 64, 3] uint8 with N >= T."""
  try:
    video.sha256  # noqa: B018, an unreadable file shows here
    footage = read_frames(video)
  except MemoryError:
    raise
  except Exception as error:  # decoders raise all sorts for a broken file
    reason = f'{type(error).__name__}: {error}'
    raise UnusableVideo(f'cannot be read ({reason})') from error
  S, frames = schema.IMAGE_SIZE, footage.image
  if frames.dtype != np.uint8 or frames.shape[1:] != (S, S, 3):
    raise ValueError(
      f'Frames of {video.source_id!r} are {frames.dtype}'
      f'{list(frames.shape)}, expected uint8[N, {S}, {S}, 3].'
    )
  if len(frames) < plan.clip_length:
    raise UnusableVideo(
      f'has {len(frames)} frames, fewer than clip_length={plan.clip_length}'
    )
  return footage
