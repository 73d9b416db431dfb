"""Updates from replay while a run acts (Algorithm 2, lines 10-23)."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from drp_jax import types
from drp_jax.data import replay
from drp_jax.runs import alarms, bad_steps, clocks, logger, parallel
from drp_jax.systems import definition
from drp_jax.train import batches, run_state

_POLL = 0.1  # seconds between questions whether to end


class Updater:
  """Holds what is learned, and updates it.

  Attributes:
    state: parameters, optimizers and the rest, on all devices.
    variables: what acting needs of it, on one device.
    updates: how many were begun.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    built: definition.Built,
    state: types.FinetuneState,
    run: run_state.RunState,
    episodes: replay.Replay,
    directory: pathlib.Path,
    log: logger.Logger,
    key: jax.Array,
  ):
    """Begins to compile the update, in a thread.

    Args:
      config: configs/base.py.
      built: the system.
      state: to continue from.
      run: to continue from.
      episodes: what updates learn from.
      directory: the workdir.
      log: where metrics go.
      key: typed key of all updates.
    """
    self._config, self._run, self._episodes = config, run, episodes
    self._log, self._key = log, key
    self.state = parallel.replicate(state)
    self.variables = self._variables()
    # A minute on two cores, in which the first episodes are collected.
    shape = config.replay.batch_size, config.replay.segment_length
    self._update, self._compiled = parallel.compile_ahead(
      parallel.pmap_step(built.finetuning.update),
      self.state,
      parallel.shard(built.finetuning.example(shape)),
      key,
    )
    self.updates = int(state.step)
    self._bad = bad_steps.BadSteps(
      directory, config.optim.max_bad_steps, run.bad_steps
    )
    self._alarms = alarms.Alarms(built.max_entropy)
    self._log_clock = clocks.Every(config.finetune.log_every)
    self._speed = clocks.Speed(agent_steps=run.agent_step, updates=self.updates)

  def wait(self, leave: Callable[[], None]) -> None:
    """Waits until the update is compiled.

    Args:
      leave: called meanwhile; raises if the run is to end.
    """
    while not self._compiled():
      leave()
      time.sleep(_POLL)

  def update(self) -> None:
    """Begins one update. Returns before it is computed."""
    c = self._config
    arrays = self._episodes.sample(
      np.random.default_rng([c.seed, 1, self.updates]),
      c.replay.batch_size,
      c.replay.segment_length,
      c.replay.prioritize_ends,
      across_ends=c.behavior.continuation,
    )
    batch = batches.replay_batch(arrays)
    self.state, metrics = self._update(
      self.state, parallel.shard(batch), self._key
    )
    self.variables = self._variables()
    self.updates += 1
    self._bad.add(self.updates, batch, metrics['skipped'], self.state)
    if self._log_clock.at(self.updates):
      self._write(metrics)

  def settle(self) -> None:
    """Waits for the last update, and notes in the run what was skipped."""
    self._bad.settle(self.state, self.updates)
    self._run.bad_steps = self._bad.counts

  def _write(self, metrics: dict[str, jax.Array]) -> None:
    self.settle()
    step = self._run.agent_step
    found = {
      **jax.device_get(metrics),
      **self._speed.measure(agent_steps=step, updates=self.updates),
      'updates': self.updates,
      'env_step': step * self._config.env.action_repeat,
      'skipped': self._bad.total,
      'replay/corrupt': self._episodes.num_corrupt,
    }
    self._log.scalars(step, found)
    self._alarms.look(self.updates, found)

  def _variables(self) -> dict[str, Any]:
    return parallel.on_one_device(
      {'params': self.state.params, **self.state.collections}
    )
