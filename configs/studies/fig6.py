"""Without one of the two attentions (paper Fig. 6)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'fig6'
  config.title = 'Fig. 6: dual attention'
  config.systems = (
    'drp',
    'without_intra',
    'without_inter',
  )
  config.tasks = (  # [Sec. 5.4.1]
    'dmcr/walker_run',
    'dmcr/hopper_stand',
    'metaworld/drawer-open',
    'metaworld/dial-turn',
  )
  return config
