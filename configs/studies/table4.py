"""Side of the flow patches P (paper Table 4)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'table4'
  config.title = 'Table 4: patch size P'
  config.systems = (
    'patch_16',
    'patch_12',
    'patch_24',
  )
  config.tasks = (  # [Table 4]
    'dmcr/walker_run',
  )
  return config
