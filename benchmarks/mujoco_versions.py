r"""Compares DMC Remastered on two versions of MuJoCo and dm_control.

Run it once in each environment, then compare the two files in either:

  python -m benchmarks.mujoco_versions --record=runs/pinned.npz
  python -m benchmarks.mujoco_versions --record=runs/newest.npz
  python -m benchmarks.mujoco_versions --compare=runs/pinned.npz,runs/newest.npz

Every task is reset with several seeds, each with another look. The beginning of
the last episode is played with random actions. Seeds and actions are the same
in both environments.
"""

import json
import pathlib
from importlib import metadata
from typing import Any

import numpy as np
from absl import flags

from benchmarks import record
from drp_jax.envs import dmcr, looks
from experiments import launch

SEEDS = (0, 1, 2, 3)
PACKAGES = ('mujoco', 'dm_control', 'numpy')
VERSIONS = 'versions'  # name of their entry in a file


def play(task: str, num_steps: int) -> dict[str, np.ndarray]:
  """Plays one task.

  Args:
    task: one of `dmcr.TASKS`.
    num_steps: T, control steps of the last seed's episode.

  Returns:
    image: [S, 64, 64, 3] uint8, the first image of each seed.
    state: [T+1, N] float64, positions and velocities.
    reward: [T] float64.
  """
  env = dmcr.DMCR(task, looks.FACTORS, shadow_size=512)
  images = [env.reset(seed=seed)[0] for seed in SEEDS]
  rng = np.random.default_rng(0)
  physics = env.unwrapped.physics
  states, rewards = [physics.get_state()], []
  for _ in range(num_steps):
    action = rng.uniform(-1, 1, env.action_space.shape)
    rewards.append(env.advance(action)[0])
    states.append(physics.get_state())
  env.close()
  return {
    'image': np.stack(images),
    'state': np.stack(states),
    'reward': np.array(rewards),
  }


def differences(
  ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> dict[str, Any]:
  """Computes differences of one task's episodes on two versions.

  Args:
    ours: result of `play`.
    theirs: result for the same task and length.

  Returns:
    `start`: largest difference of the first states.
    `image`: mean difference of the images, in gray levels of 255.
    `image_changed`: share of pixels that differ by more than 8 levels.
    `equal_steps`: control steps until states are not equal bit for bit.
    `close_steps`: control steps until they differ by 1e-6 or more.
    `state`, `reward`: largest differences over the episode.
  """
  state = np.abs(ours['state'] - theirs['state']).max(1)
  image = np.abs(ours['image'].astype(int) - theirs['image'])
  return {
    'start': float(state[0]),
    'image': float(image.mean()),
    'image_changed': float((image.max(-1) > 8).mean()),
    'equal_steps': _leading(state == 0),
    'close_steps': _leading(state < 1e-6),
    'state': float(state.max()),
    'reward': float(np.abs(ours['reward'] - theirs['reward']).max()),
  }


def _leading(good: np.ndarray) -> int:
  """Counts the steps after the start and before the first that is not good."""
  return max(int(np.argmin([*good, False])) - 1, 0)


def table(rows: dict[str, dict[str, Any]]) -> str:
  """Formats the differences as a table in Markdown."""
  lines = [
    '| task | images, gray levels | pixels changed, % | steps equal |'
    ' steps within 1e-6 | state | reward |',
    '|---|---|---|---|---|---|---|',
  ]
  for task, row in rows.items():
    lines.append(
      f'| {task} | {row["image"]:.3f} | {100 * row["image_changed"]:.2f} |'
      f' {row["equal_steps"]} | {row["close_steps"]} | {row["state"]:.1e} |'
      f' {row["reward"]:.1e} |'
    )
  return '\n'.join(lines)


def save_episodes(path: pathlib.Path, tasks: list[str], num_steps: int) -> None:
  """Plays the tasks and writes their arrays and the versions to a file."""
  arrays = {
    f'{task}/{name}': array
    for task in tasks
    for name, array in play(task, num_steps).items()
  }
  versions = {name: metadata.version(name) for name in PACKAGES}
  path.parent.mkdir(parents=True, exist_ok=True)
  np.savez_compressed(path, **arrays, **{VERSIONS: json.dumps(versions)})


def compare(ours: pathlib.Path, theirs: pathlib.Path) -> dict[str, Any]:
  """Compares two files of `save_episodes`.

  Returns:
    `versions` of both; `results`, the `differences` of each task.

  Raises:
    ValueError: the files have different tasks or lengths.
  """
  with np.load(ours) as a, np.load(theirs) as b:
    shapes = [{n: x[n].shape for n in x.files} for x in (a, b)]
    if shapes[0] != shapes[1]:
      raise ValueError(
        f'--compare: {ours} and {theirs} have different tasks or numbers of'
        ' steps; record both with the same --tasks and --steps.'
      )
    tasks = [n.partition('/')[0] for n in a.files if n.endswith('/state')]
    results = {}
    for task in tasks:
      sides = [
        {n: x[f'{task}/{n}'] for n in ('image', 'state', 'reward')}
        for x in (a, b)
      ]
      results[task] = differences(*sides)
    versions = [json.loads(str(x[VERSIONS])) for x in (a, b)]
  return {'versions': versions, 'results': results}


def main() -> None:
  if _RECORD.value:
    tasks = _TASKS.value or list(dmcr.TASKS)
    save_episodes(pathlib.Path(_RECORD.value), tasks, _STEPS.value)
  if _COMPARE.value:
    if len(_COMPARE.value) != 2:
      raise ValueError(
        f'--compare={",".join(_COMPARE.value)}: two files, A.npz,B.npz.'
      )
    report = compare(*map(pathlib.Path, _COMPARE.value))
    print(table(report['results']))
    record.finish(report)


if __name__ == '__main__':
  _RECORD = flags.DEFINE_string('record', '', 'File to write episodes to.')
  _COMPARE = flags.DEFINE_list('compare', [], 'Two files of --record.')
  _TASKS = flags.DEFINE_list('tasks', [], 'Tasks; all if empty.')
  _STEPS = flags.DEFINE_integer('steps', 100, 'Control steps of each task.', 1)
  launch.run(main)
