"""The data contract: the arrays of a clip and of a replay step.

The index and unit rules are those of `drp_jax/types.py`. Patches are not
stored; the training step crops them from `flow` at `points`, so patch size and
number of keypoints are settings of the model, not of the data.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from drp_jax import recordings

IMAGE_SIZE = 64  # [Table 5]
MAX_KEYPOINTS = 32  # Kmax, the largest K of Table 2
WINDOW = 24  # W, flows in one tracking window (B6)
FORMAT_VERSION = '1.0.0'


@dataclasses.dataclass(frozen=True)
class Field:
  """Shape and type of one array; a length of None allows any length."""

  shape: tuple[int | None, ...]
  dtype: np.dtype


class Span(NamedTuple):
  """Part of a video file that is one video.

  Attributes:
    start: time stamp of its first frame, seconds.
    end: time stamp after its last frame, seconds.
    num_frames: number of its frames, at a constant rate.
  """

  start: float
  end: float
  num_frames: int


@dataclasses.dataclass(frozen=True)
class Footage:
  """Frames before extraction and, from a simulator, the state of its scene.

  Attributes:
    image: [N, H, W, 3] uint8 RGB.
    scene: name -> [N, ...] from a simulator; None for a real video.
    unread: number of frames that follow in the video; None if not counted.
    cuts: first frames of all shots except the first; see `cuts.find_cuts`.
    recording: recorded actions and velocities of the N frames; None if the
      source recorded nothing.
  """

  image: np.ndarray
  scene: dict[str, np.ndarray] | None = None
  unread: int | None = 0
  cuts: Sequence[int] = ()
  recording: recordings.Recording | None = None

  def __len__(self) -> int:
    return len(self.image)

  def __getitem__(self, frames: slice | list[int]) -> 'Footage':
    """Returns some of the frames."""
    scene = self.scene
    if scene is not None:
      scene = {name: array[frames] for name, array in scene.items()}
    recording = self.recording
    if recording is not None:
      recording = recording[frames]
    return Footage(self.image[frames], scene, recording=recording)


def clip_fields(num_frames: int) -> dict[str, Field]:
  """Returns the fields of one example of the shards, a clip.

  Keypoints are in random order, so the first K of Kmax are a fair sample.
  """
  T, S, K = num_frames, IMAGE_SIZE, MAX_KEYPOINTS
  return {
    'image': Field((T, S, S, 3), np.dtype(np.uint8)),
    'flow': Field((T, S, S, 2), np.dtype(np.float16)),
    'points': Field((T, K, 2), np.dtype(np.float32)),
    'visible': Field((T, K), np.dtype(np.bool_)),
    'mask': Field((S, S), np.dtype(np.bool_)),
  }


def recorded_fields(num_frames: int) -> dict[str, Field]:
  """Returns optional fields of a clip, on which no model is trained.

  Older shards lack them. If a source recorded nothing, the second axis has
  length 0; see `recordings.Recording`.
  """
  T = num_frames
  return {
    'action': Field((T, None), np.dtype(np.float32)),
    'joint_velocity': Field((T, None), np.dtype(np.float32)),
  }


def replay_fields(
  num_keypoints: int | None, action_size: int
) -> dict[str, Field]:
  """Returns the fields of one step of an episode in the replay buffer.

  Args:
    num_keypoints: K; None for systems that see no motion, whose steps have no
      `flow`, `points`, `visible` and `window_step`.
    action_size: A.

  Returns:
    Name -> field at one step.
  """
  S, K, A = IMAGE_SIZE, num_keypoints, action_size
  motion = {
    'flow': Field((S, S, 2), np.dtype(np.float16)),
    'points': Field((K, 2), np.dtype(np.float32)),
    'visible': Field((K,), np.dtype(np.bool_)),
    'window_step': Field((), np.dtype(np.int32)),
  }
  return {
    'image': Field((S, S, 3), np.dtype(np.uint8)),
    **({} if num_keypoints is None else motion),
    'action': Field((A,), np.dtype(np.float32)),
    'reward': Field((), np.dtype(np.float32)),
    'is_first': Field((), np.dtype(np.bool_)),
    'is_last': Field((), np.dtype(np.bool_)),
    'is_terminal': Field((), np.dtype(np.bool_)),
  }


def check(arrays: dict[str, np.ndarray], fields: dict[str, Field], what: str):
  """Raises ValueError, naming the field, unless `arrays` match `fields`.

  Args:
    arrays: name -> array.
    fields: expected fields, from `clip_fields` or `replay_fields`.
    what: origin of the arrays, for the message.
  """
  missing = sorted(fields.keys() - arrays.keys())
  if missing:
    raise ValueError(f'{what}: field(s) {missing} are missing.')
  for name, field in fields.items():
    array = np.asarray(arrays[name])
    shaped = len(array.shape) == len(field.shape) and all(
      expected in (None, length)
      for length, expected in zip(array.shape, field.shape, strict=True)
    )
    if not shaped or array.dtype != field.dtype:
      raise ValueError(
        f'{what}: field {name!r} is {array.dtype}{list(array.shape)}, '
        f'expected {field.dtype}{list(field.shape)}.'
      )
