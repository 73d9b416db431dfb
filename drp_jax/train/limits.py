"""What values of a config are possible, before anything is built of them.

`drp_jax/train/build.py` checks what has to be one of several names; the rest is
here: a range for every number, and what numbers have to do with each other.
"""

import math

import ml_collections

from drp_jax.data import schema

_INF = math.inf

# Key -> smallest and largest value that is possible.
RANGES = {
  'dae.num_keypoints': (1, schema.MAX_KEYPOINTS),  # what the shards hold
  'dae.patch_size': (1, schema.IMAGE_SIZE),  # the image's side
  'dae.num_blocks': (1, _INF),
  'dae.width': (2, _INF),
  'dae.num_heads': (1, _INF),
  'dae.mlp_ratio': (1, _INF),
  'dae.decoder_width': (2, _INF),
  'dae.decoder_blocks': (1, _INF),
  'image.depth': (1, _INF),
  'image.num_layers': (1, _INF),
  'image.num_heads': (1, _INF),
  'image.context_mask_ratio': (0, 1),
  'rssm.deter_size': (1, _INF),
  'rssm.hidden': (1, _INF),
  'rssm.groups': (1, _INF),
  'rssm.classes': (2, _INF),
  'adapter.width': (1, _INF),
  'adapter.num_blocks': (1, _INF),
  'heads.width': (1, _INF),
  'heads.depth': (1, _INF),
  'diswm.depth': (1, _INF),
  'diswm.latent_size': (1, _INF),
  'diswm.stoch_size': (1, _INF),
  'diswm.width': (1, _INF),
  'diswm.beta': (0, _INF),
  'diswm.reward_scale': (0, _INF),
  'diswm.free_nats': (0, _INF),
  'diswm.distill_scale': (0, _INF),
  'diswm.distill_steps': (1, _INF),
  'loss.kl_balance': (0, 1),
  'loss.free_nats': (0, _INF),
  'optim.lr': (0, 1),
  'optim.actor_lr': (0, 1),
  'optim.critic_lr': (0, 1),
  'optim.slow_lr_scale': (0, 1),
  'optim.encoder_frozen_updates': (0, _INF),
  'optim.eps': (1e-20, 1),
  'optim.grad_clip': (1e-20, _INF),
  'optim.weight_decay': (0, 1),
  'optim.max_bad_steps': (1, _INF),
  'behavior.horizon': (1, _INF),
  'behavior.discount': (0, 1),
  'behavior.lam': (0, 1),
  'behavior.entropy_scale': (0, _INF),
  'behavior.slow_critic_every': (1, _INF),
  'intrinsic.scale': (0, _INF),
  'intrinsic.window': (1, _INF),
  'intrinsic.queue_size': (1, _INF),
  'intrinsic.projection': (1, _INF),
  'intrinsic.neighbours': (1, _INF),
  'intrinsic.momentum': (0, 1),
  'data.batch_size': (1, _INF),
  'data.clip_length': (2, schema.WINDOW + 1),  # one tracking window
  'pretrain.num_steps': (1, _INF),
  'pretrain.log_every': (1, _INF),
  'pretrain.eval_every': (1, _INF),
  'pretrain.eval_batches': (1, _INF),
  'pretrain.checkpoint_every': (1, _INF),
  'env.num_envs': (1, _INF),
  'env.action_repeat': (1, _INF),
  'env.episode_length': (1, _INF),
  'replay.capacity': (1, _INF),
  'replay.batch_size': (1, _INF),
  'replay.segment_length': (1, _INF),
  'finetune.flow_scale': (1e-20, _INF),
  'finetune.num_steps': (1, _INF),
  'finetune.prefill': (0, _INF),
  'finetune.initial_updates': (0, _INF),
  'finetune.train_every': (1, _INF),
  'finetune.log_every': (1, _INF),
  'finetune.eval_every': (1, _INF),
  'finetune.eval_episodes': (1, _INF),
  'finetune.checkpoint_every': (1, _INF),
}


def check(config: ml_collections.ConfigDict) -> None:
  """Raises ValueError for what is not possible, naming value, limit and key."""
  values = {key: _value(config, key) for key in RANGES}
  for key, (low, high) in RANGES.items():
    value = values[key]
    _check_number(key, value)
    # Not `value < low or value > high`, which is false for NaN.
    if not (low <= value <= high) or math.isinf(value):
      what = f'in {low}..{high}' if high < _INF else f'at least {low}'
      raise ValueError(f'config.{key}={value} must be {what}.')
  for key, value in config.loss.items():
    _check_number(f'loss.{key}', value)
    if not 0 <= value < _INF:
      raise ValueError(f'config.loss.{key}={value} must be at least 0.')
  for key in ('dae.width', 'dae.decoder_width'):
    if values[key] % 2:
      raise ValueError(
        f'config.{key}={values[key]} must be even: sines and cosines.'
      )
    if values[key] % values['dae.num_heads']:
      raise ValueError(
        f'config.dae.num_heads={values["dae.num_heads"]} must divide'
        f' config.{key}={values[key]}.'
      )
  for key, limit in (
    ('intrinsic.neighbours', 'intrinsic.queue_size'),
    ('replay.segment_length', 'replay.capacity'),
  ):
    if values[key] > values[limit]:
      raise ValueError(
        f'config.{key}={values[key]} must not exceed'
        f' config.{limit}={values[limit]}.'
      )
  T, window = values['replay.segment_length'], values['intrinsic.window']
  if T <= window:
    raise ValueError(
      f'config.replay.segment_length={T} must exceed'
      f' config.intrinsic.window={window}.'
    )
  if T > values['env.episode_length'] + 1:
    raise ValueError(
      f'config.replay.segment_length={T} must not exceed the frames of an'
      f' episode, config.env.episode_length={values["env.episode_length"]} + 1.'
    )


def _check_number(key, value):
  # A config takes None, and True for an integer, whatever its type is.
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise ValueError(f'config.{key}={value!r} must be a number.')


def _value(config, key):
  section, name = key.split('.')
  return config[section][name]
