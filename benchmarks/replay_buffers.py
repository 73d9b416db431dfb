"""Wraps the replay buffers of a comparison: ours, DreamerV3's, ContextWM's.

The code of the others is read from the user's checkouts.
"""

import gc
import importlib
import json
import pathlib
import sys
import types
from typing import Any, Protocol

import numpy as np

from drp_jax.data import replay as replay_lib
from drp_jax.data import schema

LENGTH = 50  # steps of a segment                               [Table 5]
CAPACITY = 1_000_000  # steps                                   [Table 5]
_KEYPOINTS = 16  # K                                            [Table 5]
_ACTIONS = 6  # A of walker and cheetah

Steps = dict[str, np.ndarray]


def fields(motion: bool) -> dict[str, schema.Field]:
  """What a step holds, with what the extractor adds or without it."""
  return schema.replay_fields(_KEYPOINTS if motion else None, _ACTIONS)


class Buffer(Protocol):
  """One replay buffer of a comparison; made with an empty folder."""

  def add(self, steps: Steps) -> None:
    """Takes one whole episode."""

  def save(self) -> None:
    """Brings to disk all that a restart needs."""

  def restart(self) -> None:
    """Forgets all and begins again from the disk."""

  def batch(self, size: int) -> Any:
    """Draws `size` segments of LENGTH steps."""


class Ours:
  """drp_jax/data/replay.py."""

  def __init__(self, folder: pathlib.Path, motion: bool, flow_dtype: str):
    self._folder = folder
    self._flow_dtype = flow_dtype
    self._fields = fields(motion)
    self._rng = np.random.default_rng(0)
    self._replay = replay_lib.Replay(folder, self._fields, CAPACITY, flow_dtype)

  def add(self, steps: Steps) -> None:
    """See Buffer."""
    self._replay.add_episode(steps)

  def save(self) -> None:
    """See Buffer."""
    self._state = json.dumps(self._replay.state())

  def restart(self) -> None:
    """See Buffer."""
    self._replay = replay_lib.Replay.restore(
      self._folder,
      self._fields,
      json.loads(self._state),
      CAPACITY,
      self._flow_dtype,
    )

  def batch(self, size: int) -> Steps:
    """See Buffer."""
    return self._replay.sample(self._rng, size, LENGTH)


class DreamerV3:
  """embodied/core/replay.py of danijar/dreamerv3, in its defaults."""

  def __init__(self, folder: pathlib.Path, checkout: str):
    module = _module(checkout, 'embodied/core')
    self._make = lambda: module.Replay(
      LENGTH, CAPACITY, folder, chunksize=1024, online=False, save_wait=True
    )
    self._replay = self._make()

  def add(self, steps: Steps) -> None:
    """See Buffer."""
    for step in _one_by_one(steps):
      self._replay.add(step)

  def save(self) -> None:
    """See Buffer."""
    self._replay.save()

  def restart(self) -> None:
    """See Buffer."""
    del self._replay
    gc.collect()
    self._replay = self._make()
    self._replay.load()

  def batch(self, size: int) -> Steps:
    """See Buffer."""
    return self._replay.sample(size)


class ContextWM:
  """wmlib/core/replay.py of thuml/ContextWM, as it fine-tunes."""

  def __init__(self, folder: pathlib.Path, checkout: str):
    module = _module(checkout, 'wmlib/core')
    self._make = lambda: module.Replay(
      folder, capacity=CAPACITY, minlen=LENGTH, maxlen=LENGTH
    )
    self._replay = self._make()
    self._batches = {}

  def add(self, steps: Steps) -> None:
    """See Buffer."""
    for step in _one_by_one(steps):
      self._replay.add_step(step)

  def save(self) -> None:
    """See Buffer. Each episode was saved when it was added."""

  def restart(self) -> None:
    """See Buffer."""
    del self._replay
    self._batches.clear()
    gc.collect()
    self._replay = self._make()

  def batch(self, size: int) -> Any:
    """See Buffer."""
    if size not in self._batches:
      dataset = self._replay.dataset(size, LENGTH, pin_memory=False)
      self._batches[size] = iter(dataset)
    return next(self._batches[size])


def _module(checkout: str, folder: str) -> types.ModuleType:
  """The module `replay` of a folder, without what the package around imports.

  Raises:
    ValueError: if it is not there.
    ImportError: if it needs what is not installed.
  """
  path = pathlib.Path(checkout, folder)
  if not (path / 'replay.py').is_file():
    raise ValueError(f'The checkout {checkout!r} has no {folder}/replay.py.')
  package = types.ModuleType('checkout')
  package.__path__ = [str(path)]
  sys.modules['checkout'] = package
  return importlib.import_module('checkout.replay')


def _one_by_one(steps: Steps) -> list[Steps]:
  return [
    {name: array[t] for name, array in steps.items()}
    for t in range(len(steps['is_first']))
  ]
