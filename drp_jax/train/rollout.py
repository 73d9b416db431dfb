"""Episodes: environments, an extractor and something that acts."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from drp_jax import types
from drp_jax.ops import noise
from drp_jax.systems import contract
from drp_jax.train import batches

# Of one step of N environments, by names of `data.schema.replay_fields`.
Steps = dict[str, np.ndarray]
Act = Callable[[Steps], np.ndarray]


class Environments(Protocol):
  """N environments that step at the same time; see envs/driver.py."""

  num_envs: int
  action_size: int

  def reset(
    self, seeds: Sequence[int | None], stop: Callable[[], bool] = ...
  ) -> Any | None:
    """Begins at most N episodes, returns their first frames, as `receive`.

    None in the place of a seed begins none there.
    """

  def send(self, actions: np.ndarray) -> None:
    """Begins a step, by actions [N, A]."""

  def receive(self, stop: Callable[[], bool] = ...) -> Any | None:
    """Waits for its frames; None if `stop`, asked meanwhile, says to leave."""

  def close(self) -> None:
    """Ends the environments."""


class Extractor(Protocol):
  """Finds local motion while acting; see preprocess/stream.py."""

  def step(
    self,
    images: np.ndarray,
    is_first: np.ndarray,
    episodes: np.ndarray,
    scene: dict[str, np.ndarray] | None,
  ) -> Steps:
    """Returns `flow`, `points`, `visible` and `window_step` of n frames."""


@dataclasses.dataclass(frozen=True)
class Episode:
  """An episode that came to its end.

  Attributes:
    number: in the run; with the run's seed it determines `seed`.
    seed: of the environment.
    steps: name -> [T, ...], T - 1 actions were taken.
    success: whether the environment said so at any step.
  """

  number: int
  seed: int
  steps: dict[str, np.ndarray]
  success: bool

  @property
  def length(self) -> int:
    """Actions taken."""
    return len(self.steps['reward']) - 1

  @property
  def total_reward(self) -> float:
    """Sum of rewards, in float64."""
    return float(self.steps['reward'].sum(dtype=np.float64))


class Stopped(Exception):
  """A round was left in the middle, as asked for.

  Attributes:
    actions: [t, N, A] float32, all that were taken in it.
    failed: places in 0..N-1 of the environments that have failed in it.
  """

  def __init__(
    self, actions: np.ndarray | tuple[()], failed: Sequence[int] = ()
  ):
    super().__init__(len(actions), failed)
    self.actions, self.failed = actions, failed


def episode_seed(seed: int, number: int) -> int:
  """Seed of an environment's episode, a function of run and number alone."""
  return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def play_round(
  envs: Environments,
  extractor: Extractor | None,
  act: Act,
  seed: int,
  numbers: Sequence[int],
  meanwhile: Callable[[int], None] = lambda _: None,
  stop: Callable[[], bool] = lambda: False,
  taken: Sequence[np.ndarray] | np.ndarray = (),
  lost: Sequence[int] = (),
) -> list[Episode]:
  """Plays episodes at the same time, until all are over.

  Each is a function of `seed`, its number and what `act` answers, so it can be
  repeated after a restart: from its beginning, or up to where it was stopped.

  Args:
    envs: their images are uint8.
    extractor: sees every frame; None for systems that see no motion.
    act: the steps of all environments [N, ...] -> actions [N, A] in [-1, 1].
      Row i belongs to the i-th of `numbers`; rows of environments that wait for
      the others say nothing.
    seed: of the run.
    numbers: of the episodes, at most N.
    meanwhile: called with the number of steps that have been begun, before
      their frames are waited for.
    stop: asked before each step, and while frames are waited for, whether to
      leave the round. Then the environments can only be closed.
    taken: actions [t, N, A] of a round that was stopped, to be taken again,
      without `act` and `meanwhile`, before it goes on.
    lost: places of environments that failed in that round; their episodes are
      not begun again.

  Returns:
    The episodes in the order of `numbers`, without those whose environment
    failed.

  Raises:
    Stopped: if `stop` says so.
  """
  seeds = [episode_seed(seed, number) for number in numbers]
  actions = np.zeros((envs.num_envs, envs.action_size), np.float32)
  played = [[] for _ in numbers]
  history = []
  success = np.zeros(envs.num_envs, bool)
  failed = np.isin(np.arange(envs.num_envs), lost)
  is_first = True

  def stopped() -> Stopped:
    known = history if len(history) > len(taken) else taken
    return Stopped(np.array(known, np.float32), np.flatnonzero(failed).tolist())

  begun = [None if failed[i] else seeds[i] for i in range(len(seeds))]
  frames = envs.reset(begun, stop)
  if frames is None:
    raise stopped()
  while frames.arrived.any():
    steps = {
      'image': frames.image,
      **_motion(extractor, frames, is_first, numbers),
      'action': actions,
      'reward': frames.reward,
      'is_first': np.full(envs.num_envs, is_first),
      'is_last': frames.is_last,
      'is_terminal': frames.is_terminal,
    }
    for i in np.flatnonzero(frames.arrived):
      played[i].append({name: rows[i] for name, rows in steps.items()})
    success |= frames.success
    failed |= frames.failed
    going_on = frames.arrived & ~frames.is_last
    if not going_on.any():
      break
    if stop():
      raise stopped()
    again = len(history) < len(taken)
    actions = np.asarray(
      taken[len(history)] if again else act(steps), np.float32
    )
    history.append(actions)
    envs.send(actions)
    if not again:
      meanwhile(int(going_on.sum()))
    frames, is_first = envs.receive(stop), False
    if frames is None:
      raise stopped()
  failed |= frames.failed
  return [
    Episode(
      number,
      seeds[i],
      {n: np.stack([step[n] for step in played[i]]) for n in played[i][0]},
      bool(success[i]),
    )
    for i, number in enumerate(numbers)
    if not failed[i]
  ]


class RandomActor:
  """Uniform actions, a function of the run's seed and the episode's number."""

  def __init__(self, seed: int, action_size: int):
    self._seed, self._action_size = seed, action_size

  def begin(self, numbers: Sequence[int]) -> None:
    """Starts anew; call before each round."""
    self._rngs = [np.random.default_rng([self._seed, n]) for n in numbers]

  def skip(self, steps: int) -> None:
    """Goes on as if it had been called so often."""
    for rng in self._rngs:
      rng.uniform(-1, 1, (steps, self._action_size))

  def __call__(self, steps: Steps) -> np.ndarray:
    """Draws actions [N, A] in [-1, 1]."""
    actions = np.zeros((len(steps['image']), self._action_size), np.float32)
    for i, rng in enumerate(self._rngs):
      actions[i] = rng.uniform(-1, 1, self._action_size)
    return actions


class PolicyActor:
  """Acts in N environments, remembering what the policy needs to.

  Its noise depends on the key, the episode's number and the step in it; not on
  N, nor on what happens in the other environments.
  """

  def __init__(
    self,
    system: contract.System,
    num_envs: int,
    num_keypoints: int | None,
    key: jax.Array,
    explore: bool,
  ):
    """Prepares to act.

    Args:
      system: from `registry.build`.
      num_envs: N.
      num_keypoints: K of the extractor; None for systems that see no motion.
      key: typed key of all noise.
      explore: sample actions (True) or take modes.
    """
    self._system, self._explore = system, explore
    # On a device like what comes out of a step, or a step is compiled twice.
    self._start = jax.device_put(
      system.initial_carry(num_envs, num_keypoints), jax.local_devices()[0]
    )
    self._num_envs = num_envs
    self._key = key
    self.begin(())

  def begin(self, numbers: Sequence[int]) -> None:
    """Forgets the past; call before each round.

    Args:
      numbers: of at most N episodes.
    """
    self._carry, self._time = self._start, 0
    self._numbers = np.zeros(self._num_envs, np.int32)
    self._numbers[: len(numbers)] = numbers

  @property
  def carry(self) -> Any:
    """What it remembers, a pytree of arrays."""
    return self._carry

  def go_on(self, carry: Any, steps: int) -> None:
    """Goes on as if it had been called so often; call after `begin`.

    Args:
      carry: what it remembered then.
      steps: how often.
    """
    self._carry, self._time = carry, steps

  def __call__(self, variables: Any, steps: Steps) -> np.ndarray:
    """Chooses actions [N, A]."""
    host: Any = steps  # the arrays go to the device with the call
    obs = types.Observation(
      image=host['image'],
      motion=batches.motion(host),
      is_first=host['is_first'],
    )
    self._carry, actions = _policy_step(
      self._system,
      self._explore,
      variables,
      self._carry,
      obs,
      self._key,
      self._numbers,
      np.int32(self._time),
    )
    self._time += 1
    return np.asarray(actions)


def _motion(extractor, frames, is_first, numbers) -> Steps:
  """What the extractor finds in the frames that arrived; rows [N, ...]."""
  if extractor is None:
    return {}
  index = np.flatnonzero(frames.arrived)
  found = extractor.step(
    frames.image[index],
    np.full(len(index), is_first),
    np.asarray(numbers)[index],
    frames.scene,
  )
  out = {}
  for name, rows in found.items():
    out[name] = np.zeros((len(frames.arrived), *rows.shape[1:]), rows.dtype)
    out[name][index] = rows
  return out


@functools.partial(jax.jit, static_argnums=(0, 1))
def _policy_step(system, explore, variables, carry, obs, key, numbers, time):
  def example_key(number):
    own = jax.random.fold_in(jax.random.fold_in(key, number), time)
    return noise.example_keys(own, 0, 1)[0]

  keys = jax.vmap(example_key)(numbers)
  return system.policy_step(variables, carry, obs, keys, explore)
