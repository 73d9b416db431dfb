"""Without one of the two embeddings (paper Fig. 12)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'fig12'
  config.title = 'Fig. 12: positional embeddings'
  config.systems = (
    'drp',
    'without_coordinate',
    'without_temporal',
  )
  config.tasks = (  # [Fig. 12]
    'dmcr/walker_run',
    'dmcr/hopper_stand',
    'metaworld/drawer-open',
    'metaworld/dial-turn',
  )
  return config
