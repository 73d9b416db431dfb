"""Success on six tasks of Meta-World (paper Fig. 5a)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'fig5a'
  config.title = 'Fig. 5a: Meta-World'
  config.systems = (
    'drp',
    'dreamerv2',
    'dreamerv3',
    'apv',
    'ipv',
    'prelar',
    'diswm',
  )
  config.tasks = (  # [Sec. 5.2]
    'metaworld/dial-turn',
    'metaworld/drawer-open',
    'metaworld/lever-pull',
    'metaworld/button-press-topdown-wall',
    'metaworld/reach',
    'metaworld/door-lock',
  )
  return config
