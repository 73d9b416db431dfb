"""Number of keypoints K (paper Table 2)."""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'table2'
  config.title = 'Table 2: keypoints K'
  config.systems = (
    'keypoints_16',
    'keypoints_8',
    'keypoints_32',
  )
  config.tasks = (  # [Table 2]
    'dmcr/walker_run',
    'dmcr/hopper_stand',
  )
  return config
