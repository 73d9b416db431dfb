"""Recorded actions and joint velocities beside a video.

`push.mp4.actions.npz` lies beside `push.mp4`, and `v.actions.npz` beside a
folder `v` of pictures. It holds some of these, for a video of N frames:

  action          [N, A] numbers, actions of the body
  joint_velocity  [N, V] numbers, rad/s and m/s
  body            name of the body. Videos of one body have the same A and V, in
                  the same order

By the index rule of `drp_jax/types.py`, entry t led to frame t; entry 0 is not
used. Both are means over the time between two frames. Training reads neither of
them. They are the ground truth of probes.
"""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from drp_jax import files

SUFFIX = '.actions.npz'  # follows the whole name of the video
_NUMBERS = ('action', 'joint_velocity')


@dataclasses.dataclass(frozen=True)
class Recording:
  """Actions and joint velocities that led to each of N frames.

  Attributes:
    action: [N, A] float32; A is 0 if it was not recorded.
    joint_velocity: [N, V] float32, rad/s and m/s; V is 0 if it was not
      recorded.
    body: name of the body, or ''.
  """

  action: np.ndarray
  joint_velocity: np.ndarray
  body: str = ''

  def __len__(self) -> int:
    return len(self.action)

  def __getitem__(self, frames: slice | list[int]) -> 'Recording':
    """Returns some of the entries, unchanged."""
    return dataclasses.replace(
      self,
      action=self.action[frames],
      joint_velocity=self.joint_velocity[frames],
    )

  def between(self, frames: Sequence[int]) -> 'Recording':
    """Leaves out frames; an entry becomes the mean over the time it spans.

    Args:
      frames: increasing numbers of the frames to keep. The entry of frames[i]
        is the mean of the entries after frames[i-1], up to and including
        frames[i], so a velocity stays the mean velocity between two frames.

    Returns:
      One entry for each of `frames`.
    """
    ends = np.asarray(frames) + 1
    starts = np.concatenate([[0], ends[:-1]])

    def mean(entries: np.ndarray) -> np.ndarray:
      sums = np.add.reduceat(entries[: ends[-1]], starts, axis=0)
      return (sums / (ends - starts)[:, None]).astype(np.float32)

    return dataclasses.replace(
      self, action=mean(self.action), joint_velocity=mean(self.joint_velocity)
    )


def nothing(num_frames: int) -> Recording:
  """Returns the empty recording of a video."""
  none = np.zeros((num_frames, 0), np.float32)
  return Recording(none, none)


def of_actions_taken(actions: npt.ArrayLike, body: str = '') -> Recording:
  """Returns the recording of a robot data set.

  Such data sets record with frame t the action taken there, which leads to
  frame t + 1.

  Args:
    actions: [N, A] numbers; the last one is not used.
    body: name of the body.

  Raises:
    ValueError: if they have another shape or are not finite.
  """
  actions = np.asarray(actions)
  if actions.ndim != 2 or actions.dtype.kind not in 'fiu' or not len(actions):
    raise ValueError(
      f'actions are {actions.dtype}{list(actions.shape)}, expected numbers'
      ' [frames, size]'
    )
  action = np.zeros(actions.shape, np.float32)
  action[1:] = actions[:-1]
  if not np.isfinite(action).all():
    raise ValueError('actions have numbers that are not finite')
  return Recording(action, nothing(len(action)).joint_velocity, body)


def path_of(video_path: pathlib.Path) -> pathlib.Path:
  """Returns the path of the recording of a video, which may not exist."""
  return video_path.with_name(video_path.name + SUFFIX)


def write(video_path: pathlib.Path, recording: Recording) -> None:
  """Writes the file beside a video, whole or not at all."""
  arrays = {name: getattr(recording, name) for name in (*_NUMBERS, 'body')}
  files.write_arrays(path_of(video_path), arrays)


def read(video_path: pathlib.Path) -> Recording | None:
  """Reads the recording of a video; None without one.

  For a link, the file lies beside the link or beside the video it leads to.

  Raises:
    ValueError: if the file is damaged, or holds neither actions nor velocities,
      or they differ in length, are not numbers or are not finite. The error
      names the file, without its folder.
  """
  for path in (path_of(video_path), path_of(video_path.resolve())):
    if os.path.isfile(path):  # false for a name that is too long
      return _parse(path)
  return None


def _parse(path: pathlib.Path) -> Recording:
  try:
    with np.load(path, allow_pickle=False) as file:
      arrays = dict(file)
  except Exception as error:  # zip files and arrays raise many kinds of errors
    raise ValueError(
      f'{path.name} is damaged ({type(error).__name__}: {error})'
    ) from error
  found = {name: arrays[name] for name in _NUMBERS if name in arrays}
  if not found:
    raise ValueError(
      f'{path.name} holds {sorted(arrays)}, none of {list(_NUMBERS)}'
    )
  for name, array in found.items():
    if array.ndim != 2 or array.dtype.kind not in 'fiu':
      raise ValueError(
        f'{path.name}: {name} is {array.dtype}{list(array.shape)}, expected'
        ' numbers [frames, size]'
      )
    if not np.isfinite(array).all():
      raise ValueError(f'{path.name}: {name} has numbers that are not finite')
  lengths = {name: len(array) for name, array in found.items()}
  if len(set(lengths.values())) > 1:
    raise ValueError(f'{path.name}: entries differ in number, {lengths}')
  none = np.zeros((*set(lengths.values()), 0), np.float32)
  numbers = {n: found.get(n, none).astype(np.float32) for n in _NUMBERS}
  body = arrays.get('body', np.array(''))
  if body.ndim or body.dtype.kind != 'U':
    raise ValueError(f'{path.name}: body is {body.dtype}, expected a text')
  return Recording(**numbers, body=str(body))
