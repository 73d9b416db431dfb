"""Episodes: an environment, an extractor and something that acts."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import gymnasium
import jax
import numpy as np

from drp_jax import types
from drp_jax.agents import drp
from drp_jax.ops import noise
from drp_jax.train import build

Step = dict[str, np.ndarray]


class Extractor(Protocol):
  """Finds local motion while acting; see preprocess/stream.py."""

  def step(self, image: np.ndarray, is_first: bool, episode: int) -> Step:
    """Returns `flow`, `points`, `visible` and `window_step` of one frame."""


def episode_seed(seed: int, number: int) -> int:
  """Seed of an environment's episode, a function of run and number alone."""
  return int(np.random.SeedSequence([seed, number]).generate_state(1)[0] >> 1)


def episode(
  env: gymnasium.Env,
  extractor: Extractor,
  act: Callable[[Step], np.ndarray],
  seed: int,
  number: int,
) -> Iterator[tuple[Step, dict[str, Any]]]:
  """Runs one episode.

  Everything in it is a function of `seed`, `number` and what `act` answers, so
  an episode can be repeated after a restart.

  Args:
    env: gymnasium environment with uint8 images as observations.
    extractor: sees every frame.
    act: step -> action [A] in [-1, 1].
    seed: of the run.
    number: of the episode.

  Yields:
    Each step as `data.schema.replay_fields` has it, and the info of the
    environment. The first one has no action, no motion and no reward.
  """
  image, info = env.reset(seed=episode_seed(seed, number))
  action = np.zeros(env.action_space.shape, np.float32)
  reward, over, terminal = 0.0, False, False
  first = True
  while True:
    step = {
      'image': image,
      **extractor.step(image, first, number),
      'action': action,
      'reward': np.float32(reward),
      'is_first': np.bool_(first),
      'is_last': np.bool_(over),
      'is_terminal': np.bool_(terminal),
    }
    yield step, info
    if over:
      return
    action = np.asarray(act(step), np.float32)
    image, reward, terminal, truncated, info = env.step(action)
    over, first = terminal or truncated, False


def random_action(rng: np.random.Generator, env: gymnasium.Env) -> np.ndarray:
  """A uniform action [A] in [-1, 1]."""
  return rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)


class PolicyActor:
  """Acts in one environment, remembering what the policy needs to.

  Its noise depends on the key, the episode's number and the step in it.
  """

  def __init__(
    self, system: drp.DRP, num_keypoints: int, key: jax.Array, explore: bool
  ):
    """Prepares to act.

    Args:
      system: from `build.system`.
      num_keypoints: K of the extractor.
      key: typed key of all noise.
      explore: sample actions (True) or take modes.
    """
    self._start = system.initial_carry(1, num_keypoints)
    self._step = jax.jit(functools.partial(_policy_step, system, explore))
    self._key = key
    self.begin(0)

  def begin(self, number: int) -> None:
    """Forgets the past; call before each episode."""
    self._carry = self._start
    self._number, self._time = number, 0

  def __call__(self, variables: Any, step: Step) -> np.ndarray:
    """Chooses an action [A]."""
    counters = np.array([self._number, self._time], np.int32)
    motion = jax.tree.map(lambda x: np.asarray(x)[None], build.motion(step))
    obs = types.Observation(
      image=step['image'][None],
      motion=motion,
      is_first=np.asarray(step['is_first'])[None],
    )
    self._carry, action = self._step(
      variables, self._carry, obs, self._key, counters
    )
    self._time += 1
    return np.asarray(action)[0]


def _policy_step(system, explore, variables, carry, obs, key, counters):
  key = jax.random.fold_in(jax.random.fold_in(key, counters[0]), counters[1])
  keys = noise.example_keys(key, 0, 1)
  return system.policy_step(variables, carry, obs, keys, explore)
