"""Videos of other bodies than the agent's, for pre-training without a data set.

Smooth random motion of robots of the suite, in the looks of DMC Remastered
where it has the domain.
"""

import os
import pathlib
import zlib
from collections.abc import Callable, Iterable

import gymnasium
import numpy as np

from drp_jax.envs import dmc, dmcr, looks, wrappers

ACTION_REPEAT = 2
FPS = 25  # of the files; the bodies differ in control time step
SMOOTHNESS = 0.7  # share of the last action that remains         [ours]
NOISE = 0.6  # scale of what is added to it                       [ours]

# write_video(path, frames uint8 [T, H, W, 3], fps)
WriteVideo = Callable[[pathlib.Path, np.ndarray, int], None]


def write_rollouts(
  folder: str | pathlib.Path,
  tasks: Iterable[str],
  clips_per_task: int,
  frames: int,
  seed: int,
  write_video: WriteVideo,
) -> list[pathlib.Path]:
  """Writes `<folder>/<task>_<index>.mp4`, one episode's first frames each.

  A file is a function of task, index, frames and seed alone. One that exists is
  left as it is, and none is ever half-written, so a stopped call goes on where
  it was.

  Args:
    folder: made if it is not there.
    tasks: of the suite, 'finger_spin'.
    clips_per_task: videos of each task.
    frames: length of each, at least 1 and at most an episode's 501.
    seed: of looks, starts and actions.
    write_video: writes frames to a path whose suffix is `.mp4`.

  Returns:
    The paths of all the videos, in the order of `tasks`.

  Raises:
    ValueError: unknown task, or `frames` is more than an episode has.
    RuntimeError: there is no OpenGL to render with.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  for task in tasks:
    files = [folder / f'{task}_{i:04d}.mp4' for i in range(clips_per_task)]
    paths += files
    missing = [(i, path) for i, path in enumerate(files) if not path.exists()]
    if not missing:
      continue
    env = _open(task)
    for index, path in missing:
      # The task by its name, so that other tasks in the list change nothing.
      key = [seed, zlib.crc32(task.encode()), index]
      video = rollout(env, frames, np.random.default_rng(key))
      partial = path.with_name(f'.partial-{path.name}')
      write_video(partial, video, FPS)
      os.replace(partial, path)
    env.close()
  return paths


def rollout(
  env: gymnasium.Env, frames: int, rng: np.random.Generator
) -> np.ndarray:
  """Films one episode of smooth random actions.

  Args:
    env: an environment with image observations.
    frames: T.
    rng: of the episode's seed and the actions.

  Returns:
    [T, 64, 64, 3] uint8.

  Raises:
    ValueError: the episode has fewer frames.
  """
  image, _ = env.reset(seed=int(rng.integers(2**31)))
  video, over = [image], False
  action = np.zeros(env.action_space.shape, np.float32)
  while len(video) < frames:
    if over:
      raise ValueError(f'An episode has {len(video)} frames, not {frames}.')
    noise = rng.standard_normal(action.shape, np.float32)
    action = np.clip(SMOOTHNESS * action + NOISE * noise, -1, 1)
    image, _, terminated, truncated, _ = env.step(action)
    over = terminated or truncated
    video.append(image)
  return np.stack(video)


def _open(task: str) -> gymnasium.Env:
  domain, _ = dmc.split_task(task)
  if domain in dmcr.DOMAINS:
    env = dmcr.DMCR(task, looks.FACTORS, shadow_size=512)
  else:
    env = dmc.DMC(task, shadow_size=512)
  return wrappers.ActionRepeat(env, ACTION_REPEAT)
