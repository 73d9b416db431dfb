"""Every setting of a study; see experiments/study.py. A study's file sets them.

A study is a matrix: every system on every task, with every seed, at every
preset.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of a study without runs."""
  config = ml_collections.ConfigDict()
  config.name = ''  # of its files among the results
  config.title = ''  # what a person reads
  config.systems = ()  # of configs/studies/systems.py; the first is ours
  config.tasks = ()  # 'dmcr/walker_run', 'dmc/...', 'metaworld/drawer-open'
  # Of fine-tuning. Pre-training has one seed, and all of them load it. [ours]
  config.seeds = (0, 1, 2, 3, 4)  #                             [Sec. 5.1]
  config.presets = ('paper',)  # of configs/base.py
  config.shards_dir = ''  # what run_preprocess wrote
  # 'name=value' of configs/base.py, in every run of a stage.
  config.pretrain = ()
  config.finetune = ()
  return config.lock()
