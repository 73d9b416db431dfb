"""Learning curves on DMC Remastered (paper Fig. 4)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'fig4'
  config.title = 'Fig. 4: DMC Remastered'
  config.systems = (
    'drp',
    'dreamerv2',
    'dreamerv3',
    'apv',
    'ipv',
    'prelar',
    'diswm',
  )
  config.tasks = (  # [Sec. 5.1]
    'dmcr/walker_run',
    'dmcr/hopper_stand',
    'dmcr/cheetah_run',
  )
  return config
