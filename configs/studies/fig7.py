"""Without pre-training, or with IPV's (paper Fig. 7).

The paper does not name the tasks; these are those of Fig. 6.
"""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'fig7'
  config.title = 'Fig. 7: what pre-training gives'
  config.systems = (
    'drp',
    'without_pretraining',
    'after_ipv',
  )
  config.tasks = (  # [ours]
    'dmcr/walker_run',
    'dmcr/hopper_stand',
    'metaworld/drawer-open',
    'metaworld/dial-turn',
  )
  return config
