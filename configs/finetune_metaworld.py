r"""DRP fine-tuning on Meta-World (paper Secs. 5.2, 10.2.2, Algorithm 2).

  python -m experiments.run_metaworld --config=configs/finetune_metaworld.py \
      --config.task=door-lock --config.init_from=runs/pretrain \
      --workdir=runs/door_lock

The paper's tasks are dial-turn, drawer-open, lever-pull, reach, door-lock and
button-press-topdown-wall. The suite's other 44 tasks can be named, too.

Presets: --config=configs/finetune_metaworld.py:nano (two CPU cores), :small,
:debug.

Recorded result: none.
"""

import ml_collections

from configs import base


def get_config(preset: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the config of a preset, see configs/base.py."""
  config = base.get_config(preset)
  config.task = 'dial-turn'
  config.env.suite = 'metaworld'
  config.env.action_repeat = 1  #                               [Sec. 10.2.2]
  config.image.context_erasing = True  # except in no_erasing_in [IPV]
  config.adapter.concat_embed = False  #                        [D7]
  config.loss.free_nats = 0.0  #                                [IPV]
  config.intrinsic.scale = 1.0  # lambda                        [Table 5]
  config.optim.encoder_frozen_updates = 100  #                  [IPV]
  config.replay.prioritize_ends = True  #                       [IPV]
  if preset != 'debug':
    config.finetune.prefill = 5_000  # agent steps, random      [Table 5]
  if preset in ('paper', 'small'):
    config.env.shadow_size = 4096  # texels, as in the suite    [Meta-World]
    config.replay.batch_size = 50  #                            [Table 5]
    config.finetune.num_steps = 255_000  # agent steps          [Sec. 10.2.2]
  return config
