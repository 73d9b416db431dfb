"""Evaluation: held-out clips after pre-training, episodes of an agent."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from drp_jax import extras, losses, types
from drp_jax.data import input_pipeline, report
from drp_jax.ops import images, noise
from drp_jax.runs import clocks, ranges
from drp_jax.systems import contract
from drp_jax.train import batches, rollout

with extras.brings('train', __name__):
  import gymnasium

_log = logging.getLogger(__name__)

CONTEXT_STEPS = ranges.CONTEXT_STEPS  # of open-loop prediction    [E9]
_SEED = 1_000_003  # of episodes and noise; training never uses it


def held_out_batches(
  config: ml_collections.ConfigDict, num_keypoints: int | None
) -> list[types.VideoBatch]:
  """Reads a fixed sample of the validation split, the same at every call.

  Args:
    config: configs/base.py.
    num_keypoints: K, None for systems that see no motion.

  Returns:
    `pretrain.eval_batches` batches of `data.batch_size` clips, or all clips
    there are, in as many batches as they fill; then the last may be smaller.
    None where the shards hold no validation clip, with a warning.
  """
  data = config.data
  if not report.read_report(data.shards_dir)['num_clips']['validation']:
    _log.warning(
      'config.data.shards_dir=%r holds no validation clip: nothing is measured'
      ' on held-out clips.',
      str(data.shards_dir),
    )
    return []
  found = input_pipeline.sample(
    data.shards_dir,
    'validation',
    data.clip_length,
    data.batch_size,
    config.pretrain.eval_batches,
    num_keypoints,
    _SEED,
  )
  return [batches.video_batch(arrays) for arrays in found]


def held_out(
  system: contract.Pretrains, variables: Any, batches: list[types.VideoBatch]
) -> tuple[dict[str, float], np.ndarray]:
  """Measures a pre-trained model on clips it was not trained on.

  MAE losses are those of Eq. 5, beside them what constant predictions reach: no
  motion, and the mean patch of the very clips (no constant does better); only
  of systems that see motion. Image errors are means over pixels of squared
  differences at 0..1, in the frames after the context, beside what copying the
  last context frame reaches.

  Args:
    system: a system that pre-trains.
    variables: params and collections.
    batches: from `held_out_batches`, at least one.

  Returns:
    Metrics, in which every clip counts alike, and a clip [T, H, 4 W, 3] uint8:
    up to four examples, true frames over open-loop predictions.
  """
  results = [_held_out(system, variables, batch) for batch in batches]
  sizes = [len(batch.image) for batch in batches]
  metrics = jax.tree.map(
    lambda *x: float(np.average(x, weights=sizes)), *[r[0] for r in results]
  )
  _, _, predicted = results[0]
  true = np.asarray(batches[0].image)[:4]
  both = np.concatenate([true, np.asarray(predicted)[:4]], 2)  # [n, T, 2H, W]
  return metrics, np.concatenate(list(both), 2)


@functools.partial(jax.jit, static_argnums=0)
def _held_out(
  system: contract.Pretrains, variables: Any, batch: types.VideoBatch
):
  keys = noise.example_keys(jax.random.key(_SEED), 0, batch.image.shape[0])
  mae_keys, image_keys = noise.split(keys, 2)
  n = CONTEXT_STEPS
  image = images.to_float(batch.image)
  decoded, predicted = system.open_loop(variables, batch, image_keys, n)

  def mse(x):
    return jnp.square(x - image)[:, n:].mean()

  metrics = {
    'held_out/recon_mse': mse(decoded),
    'held_out/open_loop_mse': mse(predicted),
    'held_out/copy_last_mse': mse(image[:, n - 1 : n]),
  }
  if system.sees_motion:
    metrics |= _held_out_motion(system, variables, batch, mae_keys)
  return metrics, images.to_uint8(decoded), images.to_uint8(predicted)


def _held_out_motion(system, variables, batch, keys):
  masked = system.reconstruct_motion(variables, batch, keys)
  if masked is None:
    return {}
  recon, patches, hidden = masked
  moving = ~batch.is_first
  mean_patch = patches[:, 1:].mean((0, 1, 2))
  return {
    'held_out/mae': losses.mae_loss(recon, patches, hidden),
    'held_out/mae_zero_flow': losses.mae_loss(
      jnp.zeros_like(patches), patches, hidden
    ),
    'held_out/mae_mean_patch': losses.mae_loss(
      jnp.broadcast_to(mean_patch, patches.shape), patches, hidden
    ),
    'held_out/visible': (batch.motion.visible & moving[..., None]).sum()
    / (moving.sum() * batch.motion.visible.shape[-1]),
  }


def agent_episodes(
  envs: rollout.Environments,
  extractor: rollout.Extractor | None,
  actor: rollout.PolicyActor,
  variables: Any,
  episodes: int,
  stop: Callable[[], bool] = lambda: False,
) -> tuple[list[dict[str, Any]], np.ndarray | None]:
  """Plays seeded evaluation episodes: mode actions, sampled latents (D17).

  Args:
    envs: used for evaluation only.
    extractor: None for systems that see no motion.
    actor: made with explore=False, for all of `envs`.
    variables: params and collections.
    episodes: how many; episode i has the same seed at every call.
    stop: see `rollout.play_round`.

  Returns:
    A row of `episode_table.COLUMNS` for each, but the steps of the agent, and
    the frames of the last [T, H, W, 3] uint8. Episodes whose environment failed
    are not among them; without any there are no frames.

  Raises:
    rollout.Stopped: if `stop` says so.
  """
  rows, frames = [], None
  for first in range(0, episodes, envs.num_envs):
    numbers = range(first, min(first + envs.num_envs, episodes))
    actor.begin(numbers)
    act = functools.partial(actor, variables)
    played = rollout.play_round(envs, extractor, act, _SEED, numbers, stop=stop)
    for episode in played:
      frames = episode.steps['image']
      rows.append(
        {
          'episode': episode.number,
          'seed': episode.seed,
          'return': episode.total_reward,
          'success': int(episode.success),
          'length': episode.length,
        }
      )
  return rows, frames


def summary(rows: list[dict[str, Any]], episodes: int) -> dict[str, float]:
  """Metrics of evaluation episodes.

  Args:
    rows: from `agent_episodes`.
    episodes: how many there should be.
  """
  metrics: dict[str, Any] = {'eval/dropped': episodes - len(rows)}
  if rows:
    returns = np.array([row['return'] for row in rows])
    metrics |= {
      'eval/return': returns.mean(),
      'eval/return_std': returns.std(),
      'eval/return_min': returns.min(),
      'eval/return_max': returns.max(),
      'eval/success': np.mean([row['success'] for row in rows]),
    }
  return metrics


def due(
  config: ml_collections.ConfigDict, agent_step: int, evaluated: int
) -> bool:
  """Whether it is time: right after prefill, every so often, and at the end.

  1000, 11 000, ... agent steps on DMC Remastered, 5000, 15 000, ... on
  Meta-World (IPV, D14), or the first ends of rounds after these.

  Args:
    config: configs/base.py.
    agent_step: steps taken, no fewer than `finetune.prefill`.
    evaluated: of them at the newest evaluation; -1 if there was none.
  """
  c = config.finetune
  clock = clocks.Every(c.eval_every, first=c.prefill)
  return clock.passed(evaluated, agent_step) > 0 or agent_step >= c.num_steps


def schedule(config: ml_collections.ConfigDict) -> str:
  """When evaluations come, in agent and in environment steps, for people."""
  c, repeat = config.finetune, config.env.action_repeat

  def steps(count):
    return f'{count:_} agent steps ({count * repeat:_} environment steps)'

  return (
    f'Evaluation by {c.eval_episodes} episodes after {steps(c.prefill)}, every'
    f' {steps(c.eval_every)} from then on, and at the end, after'
    f' {steps(c.num_steps)}.'
  )


def random_returns(env: gymnasium.Env, episodes: int) -> np.ndarray:
  """Returns [episodes] of uniformly random actions on the same episodes.

  Args:
    env: may be one that draws no images.
    episodes: how many.
  """
  returns = []
  for number in range(episodes):
    env.reset(seed=rollout.episode_seed(_SEED, number))
    rng = np.random.default_rng([_SEED, number])
    total, over = 0.0, False
    while not over:
      action = rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)
      _, reward, terminated, truncated, _ = env.step(action)
      total += float(reward)
      over = terminated or truncated
    returns.append(total)
  return np.array(returns)
