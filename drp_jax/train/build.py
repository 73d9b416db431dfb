"""Builds systems and optimizers from a config. The config stops here."""

from typing import Any

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from drp_jax import types
from drp_jax.agents import behavior, dreamerv2, drp, ipv, world_model
from drp_jax.agents import system as system_lib
from drp_jax.data import schema
from drp_jax.models import (
  adapter,
  cnn,
  dae,
  deconstruction,
  heads,
  image_decoder,
  image_encoder,
  mae_decoder,
  rssm,
  single_model,
  stacked_model,
)
from drp_jax.train import intrinsic, optim

AGENTS = {
  'drp': drp.DRP,
  'ipv': ipv.IPV,
  'apv': ipv.IPV,  # without contexts
  'dreamerv2': dreamerv2.DreamerV2,
}

# Optimizer groups of fine-tuning, each clipped by itself: 'slow' and 'encoder'
# stand still at first where the config says so, and 'slow' then learns slowly.
_DRP_GROUPS = {  # [D3]
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
_IPV_GROUPS = {  # [IPV]
  'latent_dynamics': 'encoder',
  'image_encoder': 'encoder',
  'context_encoder': 'encoder',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'aux_reward': 'model',
}
_DREAMERV2_GROUPS = {
  'image_encoder': 'model',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
}
_GROUPS = {
  'drp': _DRP_GROUPS,
  'ipv': _IPV_GROUPS,
  'apv': _IPV_GROUPS,
  'dreamerv2': _DREAMERV2_GROUPS,
}

_DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def system(
  config: ml_collections.ConfigDict,
  action_size: int,
  axis_name: str | None,
) -> system_lib.System:
  """Builds the system that `config.agent` names.

  Args:
    config: configs/base.py.
    action_size: A; any positive number serves pre-training.
    axis_name: device axis of the training step, or None.

  Returns:
    The system.

  Raises:
    ValueError: for an unknown name, and for values that do not fit each other;
      names the key.
  """
  _check(config)
  kind, c = _kind(config), config
  shared = dict(
    weights=world_model.LossWeights(**config.loss.to_dict()),
    behavior=behavior.Settings(
      horizon=c.behavior.horizon,
      discount=c.behavior.discount,
      lam=c.behavior.lam,
      entropy_scale=c.behavior.entropy_scale,
    ),
    axis_name=axis_name,
  )
  if kind is drp.DRP:
    built = drp.DRP(
      deconstruction=_deconstruction(config),
      model=_stacked_model(config, action_size, axis_name),
      window=schema.WINDOW,
      **shared,
    )
  elif kind is ipv.IPV:
    built = ipv.IPV(
      model=_stacked_model(config, action_size, axis_name), **shared
    )
  else:
    built = dreamerv2.DreamerV2(
      model=_single_model(config, action_size), **shared
    )
  if config.init_from and not built.pretrained:
    raise ValueError(
      f'config.agent={config.agent!r} has no pre-training, so there is nothing'
      f' to load from config.init_from={config.init_from!r}.'
    )
  return built


def keypoints(config: ml_collections.ConfigDict) -> int | None:
  """K of the motion that the system sees, None if it sees none."""
  return config.dae.num_keypoints if _kind(config).sees_motion else None


def _kind(config):
  if config.agent not in AGENTS:
    raise ValueError(
      f'config.agent={config.agent!r} must be one of {tuple(AGENTS)}.'
    )
  return AGENTS[config.agent]


def _deconstruction(config) -> deconstruction.Deconstruction:
  c, size = config.dae, schema.IMAGE_SIZE
  return deconstruction.Deconstruction(
    dae=dae.DAE(
      num_blocks=c.num_blocks,
      width=c.width,
      num_heads=c.num_heads,
      mlp_ratio=c.mlp_ratio,
      image_size=size,
    ),
    mae_decoder=mae_decoder.MAEDecoder(
      num_blocks=c.decoder_blocks,
      width=c.decoder_width,
      num_heads=c.num_heads,
      mlp_ratio=c.mlp_ratio,
      image_size=size,
      patch_values=2 * c.patch_size**2,
    ),
    patch_size=c.patch_size,
    mask_ratio=c.mask_ratio,
    dtype=_DTYPES[config.compute_dtype],
  )


def _stacked_model(config, action_size, axis_name):
  """Of DRP, or of IPV and APV: no adapter, slots for actions of any robot."""
  c, size = config, schema.IMAGE_SIZE
  embed_size = 4 * c.image.depth * (size // 16) ** 2
  is_drp, has_context = c.agent == 'drp', c.agent != 'apv'
  slot = ipv.ACTION_SLOT
  if not is_drp and action_size > slot:
    raise ValueError(
      f'An action of {action_size} numbers does not fit the slot of {slot} of'
      f' config.agent={c.agent!r}.'
    )

  def tower():
    return image_encoder.ImageEncoder(
      c.image.depth, c.image.num_layers, axis_name
    )

  latent = _dynamics(config, c.dae.width if is_drp else slot, embed_size)
  observed = c.adapter.width if is_drp else latent.feat_size
  if c.adapter.concat_embed:
    observed += embed_size
  return stacked_model.StackedModel(
    image_encoder=tower(),
    context_encoder=tower() if has_context else None,
    image_decoder=image_decoder.ImageDecoder(
      depth=c.image.depth,
      num_layers=c.image.num_layers,
      num_heads=c.image.num_heads,
      image_size=size,
      mask_ratio=c.image.context_mask_ratio,
      axis_name=axis_name,
    ),
    latent_dynamics=latent,
    adapter=(
      adapter.Adapter(c.adapter.width, c.adapter.num_blocks) if is_drp else None
    ),
    action_dynamics=_dynamics(
      config, action_size if is_drp else slot, observed
    ),
    aux_reward=_scalar(config) if has_context else None,
    concat_embed=c.adapter.concat_embed,
    # IPV's results on this one task are without it.
    context_erasing=c.image.context_erasing and c.task != 'drawer-open',
    dtype=_DTYPES[c.compute_dtype],
    **_heads(config, action_size),
  )


def _single_model(config, action_size) -> single_model.SingleModel:
  return single_model.SingleModel(
    image_encoder=cnn.CNNEncoder(config.image.depth),
    image_decoder=cnn.CNNDecoder(config.image.depth),
    action_dynamics=_dynamics(config, action_size, 32 * config.image.depth),
    dtype=_DTYPES[config.compute_dtype],
    **_heads(config, action_size),
  )


def _dynamics(config, action_size, embed_size) -> rssm.RSSM:
  c = config.rssm
  return rssm.RSSM(
    deter_size=c.deter_size,
    hidden=c.hidden,
    groups=c.groups,
    classes=c.classes,
    action_size=action_size,
    embed_size=embed_size,
  )


def _heads(config, action_size) -> dict[str, Any]:
  c = config.heads
  return dict(
    reward=_scalar(config),
    actor=heads.PolicyHead(action_size, c.width, c.depth),
    critic=_scalar(config),
  )


def _scalar(config) -> heads.ScalarHead:
  return heads.ScalarHead(config.heads.width, config.heads.depth)


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
  """Up to three groups of the world model: slow, encoder, model."""
  c, settings = config.optim, _adam_settings(config)

  def frozen(rate):
    rate = optim.frozen_at_first(rate, c.encoder_frozen_updates)
    return optim.adam(rate, **settings)

  return optim.grouped(
    {
      'slow': frozen(c.lr * c.slow_lr_scale),
      'encoder': frozen(c.lr),
      'model': optim.adam(c.lr, **settings),
    },
    _GROUPS[config.agent],
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
  S, K = schema.IMAGE_SIZE, keypoints(config)
  motion = None
  if K is not None:
    motion = types.Motion(
      flow=np.zeros((B, T, S, S, 2), np.float16),
      points=np.zeros((B, T, K, 2), np.float32),
      visible=np.ones((B, T, K), bool),
      window_step=np.zeros((B, T), np.int32),
    )
  return types.VideoBatch(
    image=np.zeros((B, T, S, S, 3), np.uint8),
    motion=motion,
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
  window_step = np.maximum(time - 1, 0).astype(np.int32)
  return types.VideoBatch(
    image=arrays['image'],
    motion=motion({**arrays, 'window_step': window_step}),
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


def motion(arrays: dict[str, Any]) -> types.Motion | None:
  """Picks the motion fields of a replay step or batch; None without any."""
  if 'flow' not in arrays:
    return None
  names = ('flow', 'points', 'visible', 'window_step')
  return types.Motion(**{name: arrays[name] for name in names})


def _adam_settings(config):
  c = config.optim
  return dict(eps=c.eps, grad_clip=c.grad_clip, weight_decay=c.weight_decay)


def _check(config: ml_collections.ConfigDict) -> None:
  if config.compute_dtype not in _DTYPES:
    raise ValueError(
      f'config.compute_dtype={config.compute_dtype!r} must be one of'
      f' {tuple(_DTYPES)}.'
    )
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
