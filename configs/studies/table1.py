"""Without the pre-trained dynamics model (paper Table 1)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'table1'
  config.title = 'Table 1: pre-trained dynamics model'
  config.systems = (
    'drp',
    'without_dynamics',
    'ipv',
    'ipv_without_dynamics',
  )
  config.tasks = (  # [Table 1]
    'dmcr/walker_run',
    'dmcr/hopper_stand',
  )
  return config
