"""Rollouts of robots as videos, for pre-training without a data set.

Tasks are those of the suite, in the looks of DMC Remastered if it has the
domain, and those of Meta-World. The scenes of the simulator are written on
request.
"""

import pathlib
import zlib
from collections.abc import Callable, Iterable

import gymnasium
import numpy as np

from drp_jax import files, recordings
from drp_jax.envs import dmc, dmcr, looks, metaworld, recorder, wrappers

ACTION_REPEAT = 2
FPS = 25  # of the files; the bodies differ in control time step
SMOOTHNESS = 0.7  # share of the last action that remains         [ours]
NOISE = 0.6  # scale of the noise that is added                   [ours]

# write_video(path, frames uint8 [T, H, W, 3], fps); the file appears whole.
WriteVideo = Callable[[pathlib.Path, np.ndarray, int], None]
# Returns the next action, float32 [A] in [-1, 1].
Act = Callable[[], np.ndarray]


def write_rollouts(
  folder: str | pathlib.Path,
  tasks: Iterable[str],
  clips_per_task: int,
  frames: int,
  seed: int,
  write_video: WriteVideo,
  scenes: bool = False,
  policy: str = 'random',
) -> list[pathlib.Path]:
  """Writes `<folder>/<task>_<index>.mp4`, one episode's first frames each.

  Actions and joint velocities are written beside each video, see `recordings`.
  A file is a function of task, index, frames, seed and policy. An existing
  video is left as it is, with or without a recording. A video is written whole
  or not at all, so a stopped call can be resumed. Use one seed and policy per
  folder, because the names do not contain them.

  Args:
    folder: created if missing.
    tasks: names in the suite, 'finger_spin', or in Meta-World,
      'metaworld_reach'.
    clips_per_task: number of videos of each task.
    frames: length of each, at least 1 and at most an episode's, 501 in the
      suite and 251 in Meta-World.
    seed: of looks, starts and actions.
    write_video: writes frames to a path whose suffix is `.mp4`, so that the
      file appears whole.
    scenes: whether to write `<task>_<index>.scene.npz` beside each: the arrays
      of `drp_jax/envs/scene.py`, [frames, ...]. A video without this file is
      made again.
    policy: 'random', smooth random actions; or 'scripted', the policies that
      Meta-World has for its tasks.

  Returns:
    The paths of all the videos, in the order of `tasks`.

  Raises:
    ValueError: unknown task or policy, a task without scripted policy, or
      `frames` is longer than an episode.
    RuntimeError: there is no OpenGL to render with.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  paths = []
  for task in tasks:
    videos = [folder / f'{task}_{i:04d}.mp4' for i in range(clips_per_task)]
    paths += videos
    missing = [
      (i, path)
      for i, path in enumerate(videos)
      if not (path.exists() and (not scenes or _scene_path(path).exists()))
    ]
    if not missing:
      continue
    env = recorder.Recorder(_open(task))
    for index, path in missing:
      # The name of the task, so that other tasks in the list change nothing.
      key = [seed, zlib.crc32(task.encode()), index]
      rng = np.random.default_rng(key)
      video, truth = rollout(env, frames, rng, scenes, policy)
      # The video is written last, so a listed video has the other files.
      recordings.write(path, env.recording())
      if scenes:
        files.write_arrays(_scene_path(path), truth)
      write_video(path, video, FPS)
    env.close()
  return paths


def rollout(
  env: gymnasium.Env,
  frames: int,
  rng: np.random.Generator,
  scenes: bool = False,
  policy: str = 'random',
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
  """Films the beginning of one episode.

  Args:
    env: an environment of this folder.
    frames: T.
    rng: generator of the episode's seed and the actions.
    scenes: whether to record the scene of every frame.
    policy: 'random' or 'scripted'.

  Returns:
    video: [T, 64, 64, 3] uint8.
    scene: the arrays of `drp_jax/envs/scene.py`, [T, ...]; empty without
      `scenes`.

  Raises:
    ValueError: the episode has fewer frames, the policy is unknown, or the task
      has no scripted policy.
  """
  act = _make_policy(policy, env, rng)
  record = env.get_wrapper_attr('scene') if scenes else dict
  image, _ = env.reset(seed=int(rng.integers(2**31)))
  video, records, over = [image], [record()], False
  while len(video) < frames:
    if over:
      raise ValueError(f'An episode has {len(video)} frames, not {frames}.')
    image, _, terminated, truncated, _ = env.step(act())
    over = terminated or truncated
    video.append(image)
    records.append(record())
  scene_arrays = {n: np.stack([r[n] for r in records]) for n in records[0]}
  return np.stack(video), scene_arrays


def _make_policy(
  policy: str, env: gymnasium.Env, rng: np.random.Generator
) -> Act:
  """Makes a policy by name, for one episode; see `rollout`."""
  if policy == 'random':
    return _random_policy(env, rng)
  if policy != 'scripted':
    raise ValueError(
      f"config.sim.policy is 'random' or 'scripted', not {policy!r}."
    )
  if not isinstance(env.unwrapped, metaworld.MetaWorld):
    raise ValueError(
      "config.sim.policy='scripted' is for tasks of Meta-World only, "
      "'metaworld_reach'; of others there is 'random'."
    )
  return _scripted_policy(env.unwrapped)


def _random_policy(env: gymnasium.Env, rng: np.random.Generator) -> Act:
  """Makes a policy of smooth random actions."""
  assert env.action_space.shape is not None
  action = np.zeros(env.action_space.shape, np.float32)

  def act() -> np.ndarray:
    nonlocal action
    noise = rng.standard_normal(action.shape, np.float32)
    action = np.clip(SMOOTHNESS * action + NOISE * noise, -1, 1)
    return action

  return act


def _scripted_policy(env: metaworld.MetaWorld) -> Act:
  """Makes the scripted policy, which solves the task from its state."""
  scripted = metaworld.scripted_policy(env.task)
  return lambda: np.clip(scripted.get_action(env.state), -1, 1).astype(
    np.float32
  )


def _scene_path(video_path: pathlib.Path) -> pathlib.Path:
  return video_path.with_suffix('.scene.npz')


def _open(task: str) -> gymnasium.Env:
  """Opens a task by its name in `write_rollouts`."""
  if task.startswith('metaworld_'):
    name = task.removeprefix('metaworld_')
    env = metaworld.MetaWorld(name, shadow_size=512)
  elif task in dmcr.TASKS:
    env = dmcr.DMCR(task, looks.FACTORS, shadow_size=512)
  else:
    env = dmc.DMC(task, shadow_size=512)
  return wrappers.ActionRepeat(env, ACTION_REPEAT)
