"""Makes DRP's own networks from a config, and checks their settings."""

import ml_collections

from drp_jax.data import schema
from drp_jax.models import (
  adapter,
  dae,
  deconstruction,
  global_flow,
  mae_decoder,
)
from drp_jax.ops import masking
from drp_jax.runs import limits, ranges
from drp_jax.systems import parts

RANGES = {
  'dae.num_keypoints': (1, schema.MAX_KEYPOINTS),  # what the shards hold
  'dae.patch_size': (1, schema.IMAGE_SIZE),  # the image's side
  'dae.mask_ratio': ranges.CHANCE,
  'dae.num_blocks': ranges.BLOCKS,
  'dae.width': (2, 2**13),
  'dae.num_heads': ranges.WIDTH,
  'dae.mlp_ratio': (1, 64),
  'dae.decoder_width': (2, 2**13),
  'dae.decoder_blocks': ranges.BLOCKS,
}
CHOICES = {
  'motion': ('atomic_actions', 'global_flow'),
  'adapter.kind': ('residual', 'mlp'),
}


def check(config: ml_collections.ConfigDict, prefix: str) -> None:
  """Checks what several numbers of the DAE have to do with each other.

  Args:
    config: configs/base.py.
    prefix: stands before the key in errors.

  Raises:
    ValueError: naming the keys and their values.
  """
  named = limits.Named(config, prefix)
  for key in ('dae.width', 'dae.decoder_width'):
    if named.value(key) % 2:
      raise ValueError(f'{named(key)} must be even: sines and cosines.')
    if named.value(key) % config.dae.num_heads:
      raise ValueError(f'{named("dae.num_heads")} must divide {named(key)}.')
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


def adapt(
  config: ml_collections.ConfigDict,
) -> adapter.Adapter | adapter.MLPProjection:
  """Makes the adapter from z to s."""
  c = config.adapter
  if c.kind == 'mlp':  # [D6]
    return adapter.MLPProjection(c.width)
  return adapter.Adapter(c.width, c.num_blocks)


def deconstruct(
  config: ml_collections.ConfigDict, axis_name: str | None
) -> deconstruction.Deconstruction | global_flow.GlobalFlow:
  """Makes what leads from motion to a_agg."""
  c, size = config.dae, schema.IMAGE_SIZE
  if config.motion == 'global_flow':  # [E4]
    return global_flow.GlobalFlow(
      flow_encoder=parts.transitions(config, c.width, axis_name),
      dtype=parts.dtype(config),
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
    dtype=parts.dtype(config),
  )
