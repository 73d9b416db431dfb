"""Plays episodes of training (Algorithm 2, lines 6-9), in rounds.

Every episode is a function of the run's seed and its number. A round that was
left in the middle is continued: the saved actions are replayed to restore the
environments.
"""

from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from drp_jax.runs import checkpoint
from drp_jax.systems import definition
from drp_jax.train import rollout, run_state


class Collector:
  """Plays rounds, and continues one that was left in the middle.

  Attributes:
    middle: arrays that the checkpoint of a round left in the middle needs, None
      between rounds.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    built: definition.Built,
    envs: rollout.Environments,
    extractor: rollout.Extractor | None,
    key: jax.Array,
  ):
    """Prepares to act.

    Args:
      config: configs/base.py.
      built: the system.
      envs: for training only.
      extractor: None for systems that see no motion.
      key: typed key of the policy's noise.
    """
    self._seed, self._envs, self._extractor = config.seed, envs, extractor
    self._random = rollout.RandomActor(config.seed, envs.action_size)
    self._policy = rollout.PolicyActor(
      built.system, envs.num_envs, built.num_keypoints, key, explore=True
    )
    self.middle: dict[str, Any] | None = None

  def play(
    self,
    run: run_state.RunState,
    saved: checkpoint.Checkpoints,
    explore: bool,
    variables: Callable[[], Any],
    meanwhile: Callable[[int], None],
    stop: Callable[[], bool],
  ) -> list[rollout.Episode]:
    """Plays a round: an episode of every environment.

    Args:
      run: its round is continued, if there is one; its counts of episodes move.
      saved: where that round's arrays are.
      explore: whether actions are random.
      variables: called before each step: params and collections by now.
      meanwhile: see `rollout.play_round`.
      stop: see `rollout.play_round`.

    Returns:
      The episodes, without those whose environment failed.

    Raises:
      rollout.Stopped: if `stop` says so. The round is noted in `run`.
    """
    count, before = self._envs.num_envs, run.round
    numbers = range(run.episode, run.episode + count)
    actor = self._random if explore else self._policy
    actor.begin(numbers)
    taken = self._continue(before, saved) if before else ()
    try:
      episodes = rollout.play_round(
        self._envs,
        self._extractor,
        self._random
        if explore
        else lambda steps: self._policy(variables(), steps),
        self._seed,
        numbers,
        meanwhile,
        stop,
        taken,
        before.failed if before else (),
      )
    except rollout.Stopped as stopped:
      steps = len(stopped.actions)
      if steps:  # otherwise the round has not begun
        run.round = run_state.Round(steps, explore, stopped.failed, count)
        self.middle = {'actions': stopped.actions, 'carry': self._policy.carry}
      raise
    run.round = None
    run.episode += count
    run.dropped += count - len(episodes)
    return episodes

  def _continue(
    self, middle: run_state.Round, saved: checkpoint.Checkpoints
  ) -> np.ndarray:
    """Moves the actor into the middle of a round; actions taken [t, N, A]."""
    envs = self._envs
    shape = middle.steps, envs.num_envs, envs.action_size
    found = saved.restore_extra(
      {
        'actions': jax.ShapeDtypeStruct(shape, np.float32),
        'carry': self._policy.carry,
      }
    )
    if middle.explore:
      self._random.skip(middle.steps)
    else:
      self._policy.go_on(found['carry'], middle.steps)
    return np.asarray(found['actions'])
