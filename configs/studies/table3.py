"""Mask ratio rho (paper Table 3)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'table3'
  config.title = 'Table 3: mask ratio ρ'
  config.systems = (
    'mask_ratio_50',
    'mask_ratio_30',
    'mask_ratio_70',
  )
  config.tasks = (  # [Table 3]
    'dmcr/walker_run',
  )
  return config
