"""Builds systems from a config. Models and agents never see it."""

import math
from typing import Any

import jax.numpy as jnp
import ml_collections

from drp_jax.agents import (
  behavior,
  diswm,
  dreamerv2,
  dreamerv3,
  drp,
  ipv,
  prelar,
  world_model,
)
from drp_jax.agents import system as system_lib
from drp_jax.data import schema
from drp_jax.models import (
  adapter,
  cnn,
  dae,
  deconstruction,
  diswm_model,
  diswm_vae,
  dreamerv3_cnn,
  dreamerv3_heads,
  dreamerv3_model,
  dreamerv3_rssm,
  global_flow,
  heads,
  image_decoder,
  image_encoder,
  latent_action_model,
  latent_actions,
  mae_decoder,
  rssm,
  single_model,
  stacked_model,
)
from drp_jax.ops import masking
from drp_jax.train import intrinsic, limits

AGENTS = {
  'drp': drp.DRP,
  'ipv': ipv.IPV,
  'apv': ipv.IPV,  # without contexts
  'dreamerv2': dreamerv2.DreamerV2,
  'dreamerv3': dreamerv3.DreamerV3,
  'prelar': prelar.PreLAR,
  'diswm': diswm.DisWM,
}

_MOTIONS = ('atomic_actions', 'global_flow')
_RANKS = ('sign', 'logistic')
_SCHEDULES = ('intended', 'cross_domain', 'released')
_ADAPTERS = ('residual', 'mlp')

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
  _check_values(config, 'config')
  kind, c = _kind(config), config
  shared = dict(
    weights=world_model.LossWeights(**config.loss.to_dict()),
    behavior=behavior.Settings(
      horizon=c.behavior.horizon,
      discount=c.behavior.discount,
      lam=c.behavior.lam,
      entropy_scale=c.behavior.entropy_scale,
      remat=c.remat,
    ),
    axis_name=axis_name,
  )
  if kind is drp.DRP:
    built = drp.DRP(
      deconstruction=_deconstruction(config, axis_name),
      model=_stacked_model(config, action_size, axis_name),
      window=schema.WINDOW,
      **shared,
    )
  elif kind is ipv.IPV:
    built = ipv.IPV(
      model=_stacked_model(config, action_size, axis_name), **shared
    )
  elif kind is prelar.PreLAR:
    built = prelar.PreLAR(
      model=_latent_action_model(config, action_size, axis_name),
      rank=c.prelar.rank,
      rank_temperature=c.prelar.rank_temperature,
      **shared,
    )
  elif kind is diswm.DisWM:
    built = diswm.DisWM(
      model=_diswm_model(config, action_size),
      settings=_diswm_settings(config),
      **shared,
    )
  elif kind is dreamerv3.DreamerV3:
    built = _dreamerv3(config, action_size, axis_name)
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


def learns_jointly(config: ml_collections.ConfigDict) -> bool:
  """Whether the system has one loss for everything: `joint_loss`."""
  return _kind(config) is dreamerv3.DreamerV3


def learns_terminations(config: ml_collections.ConfigDict) -> bool:
  """Tells whether the system predicts where episodes terminate."""
  return config.behavior.continuation or learns_jointly(config)


def _kind(config):
  return AGENTS[config.agent]


def _deconstruction(config, axis_name):
  c, size = config.dae, schema.IMAGE_SIZE
  if config.motion == 'global_flow':  # [E4]
    return global_flow.GlobalFlow(
      flow_encoder=_transition_encoder(config, c.width, axis_name),
      dtype=_DTYPES[config.compute_dtype],
    )
  return deconstruction.Deconstruction(
    dae=dae.DAE(
      num_blocks=c.num_blocks,
      width=c.width,
      num_heads=c.num_heads,
      mlp_ratio=c.mlp_ratio,
      image_size=size,
      intra=c.intra,
      inter=c.inter,
      coordinate=c.coordinate,
      temporal=c.temporal,
      remat=config.remat,
    ),
    mae_decoder=mae_decoder.MAEDecoder(
      num_blocks=c.decoder_blocks,
      width=c.decoder_width,
      num_heads=c.num_heads,
      mlp_ratio=c.mlp_ratio,
      image_size=size,
      patch_values=2 * c.patch_size**2,
      coordinate=c.coordinate,
      temporal=c.temporal,
      remat=config.remat,
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

  latent = _dynamics(config, c.dae.width if is_drp else slot, embed_size)
  observed = c.adapter.width if is_drp else latent.feat_size
  if c.adapter.concat_embed:
    observed += embed_size
  return stacked_model.StackedModel(
    image_encoder=_tower(config, axis_name),
    context_encoder=_tower(config, axis_name) if has_context else None,
    image_decoder=_image_decoder(config, axis_name),
    latent_dynamics=latent,
    adapter=_adapter(config) if is_drp else None,
    action_dynamics=_dynamics(
      config, action_size if is_drp else slot, observed
    ),
    aux_reward=_scalar(config) if has_context else None,
    concat_embed=c.adapter.concat_embed,
    context_erasing=(
      c.image.context_erasing and c.task not in c.image.no_erasing_in
    ),
    dtype=_DTYPES[c.compute_dtype],
    **_heads(config, action_size),
  )


def _adapter(config):
  c = config.adapter
  if c.kind == 'mlp':  # [D6]
    return adapter.MLPProjection(c.width)
  return adapter.Adapter(c.width, c.num_blocks)


def _tower(config, axis_name) -> image_encoder.ImageEncoder:
  c = config.image
  return image_encoder.ImageEncoder(
    c.depth, c.num_layers, axis_name, config.remat
  )


def _image_decoder(config, axis_name) -> image_decoder.ImageDecoder:
  c = config.image
  return image_decoder.ImageDecoder(
    depth=c.depth,
    num_layers=c.num_layers,
    num_heads=c.num_heads,
    image_size=schema.IMAGE_SIZE,
    mask_ratio=c.context_mask_ratio,
    local_start=c.local_start,
    axis_name=axis_name,
    remat=config.remat,
  )


def _transition_encoder(
  config, features, axis_name
) -> latent_actions.TransitionEncoder:
  return latent_actions.TransitionEncoder(
    _tower(config, axis_name), config.rssm.hidden, features
  )


def _latent_action_model(
  config, action_size, axis_name
) -> latent_action_model.LatentActionModel:
  Z, hidden = config.prelar.latent_size, config.rssm.hidden
  embed_size = 4 * config.image.depth * (schema.IMAGE_SIZE // 16) ** 2
  return latent_action_model.LatentActionModel(
    image_encoder=_tower(config, axis_name),
    image_decoder=_image_decoder(config, axis_name),
    inverse_dynamics=latent_actions.InverseDynamics(
      _transition_encoder(config, 2 * Z, axis_name)
    ),
    latent_dynamics=_dynamics(config, Z, embed_size),
    action_encoder=latent_actions.ActionEncoder(hidden, Z),
    aux_reward=_scalar(config),
    dtype=_DTYPES[config.compute_dtype],
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


def _diswm_model(config, action_size) -> diswm_model.DisWMModel:
  c, width = config.diswm, config.heads.width
  size = dict(depth=c.depth, latent_size=c.latent_size)
  return diswm_model.DisWMModel(
    teacher=diswm_vae.VAEEncoder(**size),
    image_encoder=diswm_vae.VAEEncoder(**size),
    image_decoder=diswm_vae.VAEDecoder(**size),
    action_dynamics=rssm.RSSM(
      deter_size=c.width,
      hidden=c.width,
      groups=c.stoch_size,
      classes=1,
      action_size=action_size,
      embed_size=c.latent_size,
      normal=True,
    ),
    reward=heads.ScalarHead(width, depth=2),
    continuation=heads.ScalarHead(width, depth=2)
    if config.behavior.continuation
    else None,
    actor=heads.PolicyHead(action_size, width, depth=4),
    critic=heads.ScalarHead(width, depth=3),
    dtype=_DTYPES[config.compute_dtype],
  )


def _diswm_settings(config) -> diswm.Settings:
  c = config.diswm
  has_teacher = config.init_from and 'teacher' not in config.init_without
  return diswm.Settings(
    beta=c.beta,
    reward_scale=c.reward_scale,
    free_nats=c.free_nats,
    distill_scale=c.distill_scale if has_teacher else 0.0,
    distill_updates=c.distill_steps / config.finetune.train_every,
    schedule=c.schedule,
  )


def _dreamerv3(config, action_size, axis_name) -> dreamerv3.DreamerV3:
  c, b = config.dreamerv3, config.behavior
  size = dreamerv3_model.SIZES[c.size]
  model = dreamerv3_model.DreamerV3Model(
    image_encoder=dreamerv3_cnn.CNNEncoder(size.depth),
    image_decoder=dreamerv3_cnn.CNNDecoder(size.depth, size.width, size.blocks),
    action_dynamics=dreamerv3_rssm.RSSM(
      deter_size=size.deter,
      hidden=size.hidden,
      groups=size.groups,
      classes=size.classes,
      blocks=size.blocks,
    ),
    reward=dreamerv3_heads.TwoHotHead(size.width, depth=1),
    cont=dreamerv3_heads.ContinueHead(size.width, depth=1),
    actor=dreamerv3_heads.PolicyHead(action_size, size.width, depth=3),
    critic=dreamerv3_heads.TwoHotHead(size.width, depth=3),
    dtype=_DTYPES[config.compute_dtype],
  )
  settings = dreamerv3.Settings(
    horizon=b.horizon,
    lam=b.lam,
    discount=c.discount,
    entropy_scale=c.entropy_scale,
    dyn_scale=c.dyn_scale,
    rep_scale=c.rep_scale,
    replay_value_scale=c.replay_value_scale,
    free_nats=c.free_nats,
    slow_scale=c.slow_scale,
    return_rate=c.return_rate,
    return_limit=c.return_limit,
  )
  return dreamerv3.DreamerV3(model, settings, axis_name)


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
    continuation=_scalar(config) if config.behavior.continuation else None,
    actor=heads.PolicyHead(action_size, c.width, c.depth),
    critic=_scalar(config),
  )


def _scalar(config) -> heads.ScalarHead:
  return heads.ScalarHead(config.heads.width, config.heads.depth)


def max_entropy(config: ml_collections.ConfigDict) -> float:
  """Of a latent state, nats."""
  return config.rssm.groups * math.log(config.rssm.classes)


def intrinsic_settings(config: ml_collections.ConfigDict) -> intrinsic.Settings:
  """Numbers of the intrinsic bonus."""
  return intrinsic.Settings(**config.intrinsic.to_dict())


def check(config: ml_collections.ConfigDict, prefix: str = 'config') -> None:
  """Checks all settings of a run, before it writes or loads anything.

  Args:
    config: configs/base.py.
    prefix: stands before the key in errors.

  Raises:
    ValueError: for unknown names, impossible numbers and values that do not fit
      each other; names the key, the value and what is allowed.
  """
  _check_values(config, prefix)
  # What leaves everything out needs nothing to leave it out of (E6).
  pretrained = system(config, 1, None).pretrained
  none = pretrained and set(pretrained) <= set(config.init_without)
  for key in ('init_without', 'init_zero'):
    if config[key] and not config.init_from and not none:
      raise ValueError(
        f'{prefix}.{key}={config[key]} is about what is loaded, but'
        f" {prefix}.init_from='' must name a pre-training then."
      )


def _check_values(config, prefix):
  for key, value, allowed in (
    ('agent', config.agent, tuple(AGENTS)),
    ('compute_dtype', config.compute_dtype, tuple(_DTYPES)),
    ('motion', config.motion, _MOTIONS),
    ('adapter.kind', config.adapter.kind, _ADAPTERS),
    ('prelar.rank', config.prelar.rank, _RANKS),
    ('diswm.schedule', config.diswm.schedule, _SCHEDULES),
    ('dreamerv3.size', config.dreamerv3.size, tuple(dreamerv3_model.SIZES)),
  ):
    if value not in allowed:
      raise ValueError(f'{prefix}.{key}={value!r} must be one of {allowed}.')
  limits.check_run(config, prefix)
  K, ratio = config.dae.num_keypoints, config.dae.mask_ratio
  for key in ('data.clip_length', 'replay.segment_length'):
    section, name = key.split('.')
    T = config[section][name]
    count, total = masking.num_hidden(T, K, ratio), K * (T - 1)
    if not 0 < count < total:
      raise ValueError(
        f'{prefix}.dae.mask_ratio={ratio} hides {count} of the {total} patches'
        f' of {prefix}.dae.num_keypoints={K} in {prefix}.{key}={T} frames; it'
        ' must hide at least one and leave at least one.'
      )
