"""Programs that only write, for ever, from where the one before was killed.

python writers.py <checkpoints|replay> <folder>
"""

import json
import pathlib
import sys

import numpy as np

from drp_jax import files
from drp_jax.data import replay as replay_lib
from drp_jax.data import schema

_BOOL = np.dtype(np.bool_)
FIELDS = {
  'number': schema.Field((4,), np.dtype(np.int64)),
  'is_first': schema.Field((), _BOOL),
  'is_last': schema.Field((), _BOOL),
}
STEPS = 30  # of an episode
_CHUNK_STEPS = 7  # so that every episode lies in several files


def state(step: int) -> dict[str, np.ndarray]:
  """What checkpoint `step` holds, 3 MB."""
  return {
    'weights': np.arange(700_000, dtype=np.float32) + step,
    'bias': np.full(1000, step, np.float32),
  }


def episode(index: int) -> dict[str, np.ndarray]:
  """Steps that know whose they are."""
  place = np.arange(STEPS)
  number = np.broadcast_to((index * STEPS + place)[:, None], (STEPS, 4))
  return {
    'number': number.astype(np.int64),
    'is_first': place == 0,
    'is_last': place == STEPS - 1,
  }


def open_replay(folder: pathlib.Path) -> replay_lib.Replay:
  """As the newest state on the disk says, or empty."""
  path, state_of = folder / 'state.json', None
  if path.exists():
    state_of = json.loads(path.read_text())
  return replay_lib.Replay(
    folder / 'replay', FIELDS, 10**9, 'float16', _CHUNK_STEPS, state_of
  )


def write_checkpoints(folder: pathlib.Path) -> None:
  from drp_jax.runs import checkpoint

  saved = checkpoint.Checkpoints(folder)
  step = saved.latest_step() or 0
  while True:
    step += 1
    saved.save(step, state(step), {'step': step})


def write_replay(folder: pathlib.Path) -> None:
  replay = open_replay(folder)
  while True:
    replay.add_episode(episode(replay.num_episodes))
    files.write_json(folder / 'state.json', replay.state())


if __name__ == '__main__':
  folder = pathlib.Path(sys.argv[2])
  folder.mkdir(parents=True, exist_ok=True)
  {'checkpoints': write_checkpoints, 'replay': write_replay}[sys.argv[1]](
    folder
  )
