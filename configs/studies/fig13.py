"""Adapter against one projection (paper Fig. 13)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'fig13'
  config.title = 'Fig. 13: adapter'
  config.systems = (
    'drp',
    'mlp_projection',
  )
  config.tasks = (  # [Fig. 13]
    'dmcr/walker_run',
    'metaworld/drawer-open',
  )
  return config
