"""Evaluation: held-out clips after pre-training, episodes of an agent."""

import functools
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from drp_jax import losses, types
from drp_jax.agents import drp
from drp_jax.data import input_pipeline
from drp_jax.ops import images, noise
from drp_jax.train import build, rollout

CONTEXT_STEPS = 5  # frames seen before open-loop prediction       [E9]
_SEED = 1_000_003  # of episodes and noise; training never uses it


def held_out_batches(
  config: ml_collections.ConfigDict,
) -> list[types.VideoBatch]:
  """Reads a fixed sample of the validation split, the same at every call."""
  iterator = input_pipeline.make_iterator(
    config.data.shards_dir,
    'validation',
    config.data.batch_size,
    config.dae.num_keypoints,
    _SEED,
  )
  count = config.pretrain.eval_batches
  return [build.video_batch(next(iterator)) for _ in range(count)]


def held_out(
  system: drp.DRP, variables: Any, batches: list[types.VideoBatch]
) -> tuple[dict[str, float], np.ndarray]:
  """Measures a pre-trained model on clips it was not trained on.

  MAE losses are those of Eq. 5, beside them what constant predictions reach: no
  motion, and the mean patch of the very clips (no constant does better). Image
  errors are means over pixels of squared differences at 0..1, in the frames
  after the context, beside what copying the last context frame reaches.

  Args:
    system: from `build.system`.
    variables: params and collections.
    batches: from `held_out_batches`.

  Returns:
    Metrics, and a clip [T, H, 4 W, 3] uint8: four examples, true frames over
    open-loop predictions.
  """
  results = [_held_out(system, variables, batch) for batch in batches]
  metrics = jax.tree.map(lambda *x: float(np.mean(x)), *[r[0] for r in results])
  _, _, predicted = results[0]
  true = np.asarray(batches[0].image)[:4]
  both = np.concatenate([true, np.asarray(predicted)[:4]], 2)  # [n, T, 2H, W]
  return metrics, np.concatenate(list(both), 2)


@functools.partial(jax.jit, static_argnums=0)
def _held_out(system: drp.DRP, variables: Any, batch: types.VideoBatch):
  keys = noise.example_keys(jax.random.key(_SEED), 0, batch.image.shape[0])
  mae_keys, image_keys = noise.split(keys, 2)
  recon, patches, hidden = system.reconstruct_motion(variables, batch, mae_keys)
  moving = ~batch.is_first
  mean_patch = patches[:, 1:].mean((0, 1, 2))
  n = CONTEXT_STEPS
  image = images.to_float(batch.image)
  decoded, predicted = system.open_loop(variables, batch, image_keys, n)

  def mse(x):
    return jnp.square(x - image)[:, n:].mean()

  metrics = {
    'held_out/mae': losses.mae_loss(recon, patches, hidden),
    'held_out/mae_zero_flow': losses.mae_loss(
      jnp.zeros_like(patches), patches, hidden
    ),
    'held_out/mae_mean_patch': losses.mae_loss(
      jnp.broadcast_to(mean_patch, patches.shape), patches, hidden
    ),
    'held_out/recon_mse': mse(decoded),
    'held_out/open_loop_mse': mse(predicted),
    'held_out/copy_last_mse': mse(image[:, n - 1 : n]),
    'held_out/visible': (batch.motion.visible & moving[..., None]).sum()
    / (moving.sum() * batch.motion.visible.shape[-1]),
  }
  return metrics, images.to_uint8(decoded), images.to_uint8(predicted)


def agent_returns(
  env: gymnasium.Env,
  extractor: Any,
  actor: rollout.PolicyActor,
  variables: Any,
  episodes: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Runs seeded evaluation episodes: mode actions, sampled latents (D17).

  Args:
    env: used for evaluation only.
    extractor: used for evaluation only.
    actor: made with explore=False.
    variables: params and collections.
    episodes: how many; episode i has the same seed at every call.

  Returns:
    Returns [episodes], successes [episodes] bool, and the frames of the last
    episode [T, H, W, 3] uint8.
  """
  returns, successes, frames = [], [], []
  for number in range(episodes):
    actor.begin(number)
    act = functools.partial(actor, variables)
    steps = rollout.episode(env, extractor, act, _SEED, number)
    total, success, frames = 0.0, False, []
    for step, info in steps:
      total += float(step['reward'])
      success |= bool(info.get('success', False))
      frames.append(step['image'])
    returns.append(total)
    successes.append(success)
  return np.array(returns), np.array(successes), np.stack(frames)


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
      action = rollout.random_action(rng, env)
      _, reward, terminated, truncated, _ = env.step(action)
      total += float(reward)
      over = terminated or truncated
    returns.append(total)
  return np.array(returns)
