"""Local motion against the whole flow (paper Fig. 5b)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'fig5b'
  config.title = 'Fig. 5b: motion deconstruction'
  config.systems = (
    'drp',
    'global_flow',
    'ipv',
  )
  config.tasks = (  # [Sec. 5.3]
    'dmcr/walker_run',
    'dmcr/hopper_stand',
  )
  return config
