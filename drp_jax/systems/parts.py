"""Makes networks that several systems have from a config."""

from typing import Any

import jax.numpy as jnp
import ml_collections

from drp_jax.data import schema
from drp_jax.models import (
  heads,
  image_decoder,
  image_encoder,
  rssm,
  stacked_model,
  transition_encoder,
)

DTYPES = {'float32': jnp.float32, 'bfloat16': jnp.bfloat16}


def dtype(config: ml_collections.ConfigDict) -> jnp.dtype:
  """Returns what networks compute in."""
  return DTYPES[config.compute_dtype]


def stacked(
  config: ml_collections.ConfigDict,
  action_size: int,
  axis_name: str | None,
  *,
  drive: int,
  adapter: Any,
  adapter_size: int | None,
  action_slot: int,
  has_context: bool,
) -> stacked_model.StackedModel:
  """Makes the two dynamics models of DRP, or of IPV and APV.

  Args:
    config: configs/base.py.
    action_size: A, of the policy.
    axis_name: device axis, or None.
    drive: width of what drives z.
    adapter: from z to s; None is the identity.
    adapter_size: width of what comes out of it; None without one.
    action_slot: width of the actions that drive s.
    has_context: whether there are contexts and the representative reward head.
  """
  c = config
  embed_size = 4 * c.image.depth * (schema.IMAGE_SIZE // 16) ** 2
  latent = dynamics(config, drive, embed_size)
  observed = latent.feat_size if adapter_size is None else adapter_size
  if c.adapter.concat_embed:
    observed += embed_size
  return stacked_model.StackedModel(
    image_encoder=tower(config, axis_name),
    context_encoder=tower(config, axis_name) if has_context else None,
    image_decoder=decoder(config, axis_name),
    latent_dynamics=latent,
    adapter=adapter,
    action_dynamics=dynamics(config, action_slot, observed),
    aux_reward=scalar(config) if has_context else None,
    concat_embed=c.adapter.concat_embed,
    context_erasing=(
      c.image.context_erasing and c.task not in c.image.no_erasing_in
    ),
    dtype=dtype(config),
    **policy_heads(config, action_size),
  )


def tower(
  config: ml_collections.ConfigDict, axis_name: str | None
) -> image_encoder.ImageEncoder:
  """Makes a residual tower over images."""
  c = config.image
  return image_encoder.ImageEncoder(
    c.depth, c.num_layers, axis_name, config.remat
  )


def decoder(
  config: ml_collections.ConfigDict, axis_name: str | None
) -> image_decoder.ImageDecoder:
  """Makes the decoder that goes with `tower`."""
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


def transitions(
  config: ml_collections.ConfigDict, features: int, axis_name: str | None
) -> transition_encoder.TransitionEncoder:
  """Makes an encoder of changes, `features` wide."""
  return transition_encoder.TransitionEncoder(
    tower(config, axis_name), config.rssm.hidden, features
  )


def dynamics(
  config: ml_collections.ConfigDict, action_size: int, embed_size: int
) -> rssm.RSSM:
  """Makes a dynamics model.

  Args:
    config: configs/base.py.
    action_size: width of what drives it.
    embed_size: width of what it observes.
  """
  c = config.rssm
  return rssm.RSSM(
    deter_size=c.deter_size,
    hidden=c.hidden,
    groups=c.groups,
    classes=c.classes,
    action_size=action_size,
    embed_size=embed_size,
  )


def policy_heads(
  config: ml_collections.ConfigDict, action_size: int
) -> dict[str, Any]:
  """Makes the heads that imagination reads, by parameter set."""
  c = config.heads
  return dict(
    reward=scalar(config),
    continuation=scalar(config) if config.behavior.continuation else None,
    actor=heads.PolicyHead(action_size, c.width, c.depth),
    critic=scalar(config),
  )


def scalar(config: ml_collections.ConfigDict) -> heads.ScalarHead:
  """Makes a head of one number."""
  return heads.ScalarHead(config.heads.width, config.heads.depth)
