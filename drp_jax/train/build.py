"""Builds systems and optimizers from a config. The config stops here."""

from typing import Any

import ml_collections
import numpy as np
import optax

from drp_jax import types
from drp_jax.agents import behavior, drp
from drp_jax.data import schema
from drp_jax.models import (
  adapter,
  dae,
  drp_model,
  heads,
  image_decoder,
  image_encoder,
  mae_decoder,
  rssm,
)
from drp_jax.train import intrinsic, optim

# Optimizer groups of fine-tuning (D3): what learns slowly, what may be frozen
# at first, and the rest.
_GROUPS = {
  'dae': 'slow',
  'mae_decoder': 'slow',
  'latent_dynamics': 'slow',
  'image_encoder': 'encoder',
  'context_encoder': 'encoder',
  'image_decoder': 'model',
  'adapter': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'aux_reward': 'model',
}


def system(
  config: ml_collections.ConfigDict,
  action_size: int,
  axis_name: str | None,
) -> drp.DRP:
  """Builds DRP.

  Args:
    config: configs/base.py.
    action_size: A; any positive number serves pre-training.
    axis_name: device axis of the training step, or None.

  Returns:
    The system.

  Raises:
    ValueError: for sizes that do not fit each other, naming the key.
  """
  _check(config)
  c, size = config, schema.IMAGE_SIZE
  embed_size = 4 * c.image.depth * (size // 16) ** 2

  def tower():
    return image_encoder.ImageEncoder(
      c.image.depth, c.image.num_layers, axis_name
    )

  def dynamics(action_size, embed_size):
    return rssm.RSSM(
      deter_size=c.rssm.deter_size,
      hidden=c.rssm.hidden,
      groups=c.rssm.groups,
      classes=c.rssm.classes,
      action_size=action_size,
      embed_size=embed_size,
    )

  def scalar():
    return heads.ScalarHead(c.heads.width, c.heads.depth)

  model = drp_model.DRPModel(
    dae=dae.DAE(
      num_blocks=c.dae.num_blocks,
      width=c.dae.width,
      num_heads=c.dae.num_heads,
      mlp_ratio=c.dae.mlp_ratio,
      image_size=size,
    ),
    mae_decoder=mae_decoder.MAEDecoder(
      num_blocks=c.dae.decoder_blocks,
      width=c.dae.decoder_width,
      num_heads=c.dae.num_heads,
      mlp_ratio=c.dae.mlp_ratio,
      image_size=size,
      patch_values=2 * c.dae.patch_size**2,
    ),
    image_encoder=tower(),
    context_encoder=tower(),
    image_decoder=image_decoder.ImageDecoder(
      depth=c.image.depth,
      num_layers=c.image.num_layers,
      num_heads=c.image.num_heads,
      image_size=size,
      mask_ratio=c.image.context_mask_ratio,
      axis_name=axis_name,
    ),
    latent_dynamics=dynamics(c.dae.width, embed_size),
    adapter=adapter.Adapter(c.adapter.width, c.adapter.num_blocks),
    action_dynamics=dynamics(
      action_size,
      c.adapter.width + (embed_size if c.adapter.concat_embed else 0),
    ),
    reward=scalar(),
    aux_reward=scalar(),
    actor=heads.PolicyHead(action_size, c.heads.width, c.heads.depth),
    critic=scalar(),
    patch_size=c.dae.patch_size,
    mask_ratio=c.dae.mask_ratio,
    embed_in_adapter=c.adapter.concat_embed,
  )
  return drp.DRP(
    model=model,
    weights=drp.LossWeights(
      mae=c.loss.mae,
      dyn=c.loss.dyn,
      image=c.loss.image,
      kl_z=c.loss.kl_z,
      kl_s=c.loss.kl_s,
      reward=c.loss.reward,
      aux_reward=c.loss.aux_reward,
      kl_balance=c.loss.kl_balance,
      free_nats=c.loss.free_nats,
    ),
    behavior=behavior.Settings(
      horizon=c.behavior.horizon,
      discount=c.behavior.discount,
      lam=c.behavior.lam,
      entropy_scale=c.behavior.entropy_scale,
    ),
    window=schema.WINDOW,
    axis_name=axis_name,
  )


def intrinsic_settings(config: ml_collections.ConfigDict) -> intrinsic.Settings:
  """Numbers of the intrinsic bonus."""
  return intrinsic.Settings(**config.intrinsic.to_dict())


def pretrain_optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """One Adam for everything (Table 5)."""
  return optim.adam(config.optim.lr, **_adam_settings(config))


def model_optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Three groups of the world model: slow, encoder, model (D3)."""
  c, settings = config.optim, _adam_settings(config)
  encoder_lr = optim.frozen_at_first(c.lr, c.encoder_frozen_updates)
  return optim.grouped(
    {
      'slow': optim.adam(c.lr * c.slow_lr_scale, **settings),
      'encoder': optim.adam(encoder_lr, **settings),
      'model': optim.adam(c.lr, **settings),
    },
    _GROUPS,
  )


def behavior_optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Actor and critic."""
  c, settings = config.optim, _adam_settings(config)
  return optim.grouped(
    {
      'actor': optim.adam(c.actor_lr, **settings),
      'critic': optim.adam(c.critic_lr, **settings),
    },
    {'actor': 'actor', 'critic': 'critic'},
  )


def example_video_batch(
  config: ml_collections.ConfigDict, shape: tuple[int, int] = (1, 2)
) -> types.VideoBatch:
  """Zeros in the shapes of `shape` = (B, T) frames of video."""
  B, T = shape
  S, K = schema.IMAGE_SIZE, config.dae.num_keypoints
  return types.VideoBatch(
    image=np.zeros((B, T, S, S, 3), np.uint8),
    motion=types.Motion(
      flow=np.zeros((B, T, S, S, 2), np.float16),
      points=np.zeros((B, T, K, 2), np.float32),
      visible=np.ones((B, T, K), bool),
      window_step=np.zeros((B, T), np.int32),
    ),
    is_first=np.broadcast_to(np.arange(T) == 0, (B, T)),
  )


def example_replay_batch(
  config: ml_collections.ConfigDict,
  action_size: int,
  shape: tuple[int, int] = (1, 2),
) -> types.ReplayBatch:
  """Zeros in the shapes of `shape` = (B, T) steps of replay."""
  video = example_video_batch(config, shape)
  return types.ReplayBatch(
    image=video.image,
    motion=video.motion,
    action=np.zeros((*shape, action_size), np.float32),
    reward=np.zeros(shape, np.float32),
    is_first=video.is_first,
    is_terminal=np.zeros(shape, bool),
  )


def video_batch(arrays: dict[str, np.ndarray]) -> types.VideoBatch:
  """Turns a batch of clips (data/input_pipeline.py) into the pytree."""
  B, T = arrays['image'].shape[:2]
  time = np.broadcast_to(np.arange(T), (B, T))
  return types.VideoBatch(
    image=arrays['image'],
    motion=types.Motion(
      flow=arrays['flow'],
      points=arrays['points'],
      visible=arrays['visible'],
      window_step=np.maximum(time - 1, 0).astype(np.int32),
    ),
    is_first=time == 0,
  )


def replay_batch(arrays: dict[str, np.ndarray]) -> types.ReplayBatch:
  """Turns a batch of segments (data/replay.py) into the pytree."""
  return types.ReplayBatch(
    image=arrays['image'],
    motion=motion(arrays),
    action=arrays['action'],
    reward=arrays['reward'],
    is_first=arrays['is_first'],
    is_terminal=arrays['is_terminal'],
  )


def motion(arrays: dict[str, Any]) -> types.Motion:
  """Picks the motion fields of a replay step or batch."""
  names = ('flow', 'points', 'visible', 'window_step')
  return types.Motion(**{name: arrays[name] for name in names})


def _adam_settings(config):
  c = config.optim
  return dict(eps=c.eps, grad_clip=c.grad_clip, weight_decay=c.weight_decay)


def _check(config: ml_collections.ConfigDict) -> None:
  c = config.dae
  if not 1 <= c.num_keypoints <= schema.MAX_KEYPOINTS:
    raise ValueError(
      f'config.dae.num_keypoints={c.num_keypoints} must be in'
      f' 1..{schema.MAX_KEYPOINTS}, what the shards hold.'
    )
  if not 1 <= c.patch_size <= schema.IMAGE_SIZE:
    raise ValueError(
      f'config.dae.patch_size={c.patch_size} must be in'
      f' 1..{schema.IMAGE_SIZE}, the image side.'
    )
  if not 0.0 < c.mask_ratio < 1.0:
    raise ValueError(f'config.dae.mask_ratio={c.mask_ratio} must be in (0, 1).')
  if not 2 <= config.data.clip_length <= schema.WINDOW + 1:
    raise ValueError(
      f'config.data.clip_length={config.data.clip_length} must be in'
      f' 2..{schema.WINDOW + 1}, one tracking window.'
    )
  if c.width % 2:
    raise ValueError(
      f'config.dae.width={c.width} must be even: sines and cosines.'
    )
  bonus = config.intrinsic
  if not 1 <= bonus.neighbours <= bonus.queue_size:
    raise ValueError(
      f'config.intrinsic.neighbours={bonus.neighbours} must be in'
      f' 1..{bonus.queue_size}, config.intrinsic.queue_size.'
    )
  if config.replay.segment_length <= config.intrinsic.window:
    raise ValueError(
      f'config.replay.segment_length={config.replay.segment_length} must'
      f' exceed config.intrinsic.window={config.intrinsic.window}.'
    )
