"""Optimizers of both stages, made from a config (Table 5; D3)."""

import ml_collections
import optax

from drp_jax.train import build, optim

# Optimizer groups of fine-tuning, each clipped by itself: 'slow' and 'encoder'
# stand still at first where the config says so, and 'slow' then learns slowly.
_DRP_GROUPS = {  # [D3]
  'dae': 'slow',
  'mae_decoder': 'slow',
  'flow_encoder': 'slow',
  'latent_dynamics': 'slow',
  'image_encoder': 'encoder',
  'context_encoder': 'encoder',
  'image_decoder': 'model',
  'adapter': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
  'aux_reward': 'model',
}
_IPV_GROUPS = {  # [IPV]
  'latent_dynamics': 'encoder',
  'image_encoder': 'encoder',
  'context_encoder': 'encoder',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
  'aux_reward': 'model',
}
_PRELAR_GROUPS = {  # [PreLAR]
  'latent_dynamics': 'encoder',
  'image_encoder': 'encoder',
  'image_decoder': 'model',
  'action_encoder': 'model',
  'reward': 'model',
  'continuation': 'model',
  'aux_reward': 'model',
}
_DREAMERV2_GROUPS = {
  'image_encoder': 'model',
  'image_decoder': 'model',
  'action_dynamics': 'model',
  'reward': 'model',
  'continuation': 'model',
}
_DISWM_GROUPS = {**_DREAMERV2_GROUPS, 'teacher': 'frozen'}  # [DisWM]
_GROUPS = {
  'drp': _DRP_GROUPS,
  'ipv': _IPV_GROUPS,
  'apv': _IPV_GROUPS,
  'dreamerv2': _DREAMERV2_GROUPS,
  'prelar': _PRELAR_GROUPS,
  'diswm': _DISWM_GROUPS,
}


def pretraining(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """One Adam for everything (Table 5)."""
  return optim.adam(config.optim.lr, **_adam_settings(config))


def world_model(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Up to three groups of the world model: slow, encoder, model."""
  if build.learns_jointly(config):
    return _dreamerv3_optimizer(config)
  c, settings = config.optim, _adam_settings(config)

  def frozen(rate):
    rate = optim.frozen_at_first(rate, c.encoder_frozen_updates)
    return optim.adam(rate, **settings)

  groups = {
    'slow': frozen(c.lr * c.slow_lr_scale),
    'encoder': frozen(c.lr),
    'model': optim.adam(c.lr, **settings),
  }
  members = _GROUPS[config.agent]
  if 'frozen' in members.values():
    groups['frozen'] = optax.set_to_zero()
  return optim.grouped(groups, members)


def behavior(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Actor and critic."""
  if build.learns_jointly(config):
    return _dreamerv3_optimizer(config)
  c, settings = config.optim, _adam_settings(config)
  return optim.grouped(
    {
      'actor': optim.adam(c.actor_lr, **settings),
      'critic': optim.adam(c.critic_lr, **settings),
    },
    {'actor': 'actor', 'critic': 'critic'},
  )


def _dreamerv3_optimizer(config) -> optax.GradientTransformation:
  """Of every parameter: no array's update depends on another's."""
  c = config.dreamerv3
  rate = optim.warmed_up(c.lr, c.warmup)
  return optim.laprop(rate, clip=c.adaptive_clip)


def _adam_settings(config):
  c = config.optim
  return dict(eps=c.eps, grad_clip=c.grad_clip, weight_decay=c.weight_decay)
