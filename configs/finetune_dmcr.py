r"""DRP fine-tuning on DMC Remastered (paper Secs. 5.1, 7.2, Algorithm 2).

  python -m experiments.run_dmcr --config=configs/finetune_dmcr.py \
      --config.task=walker_run --config.init_from=runs/pretrain \
      --workdir=runs/walker_run

Presets: --config=configs/finetune_dmcr.py:nano (two CPU cores), :small, :debug.
Other systems: --config.agent=ipv, apv, prelar, diswm, dreamerv2 or dreamerv3,
with the same settings. Ablations: configs/ablations.py.

Recorded result: none at the paper's size (docs/status.md).
"""

import ml_collections

from configs import base


def get_config(preset: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the config of a preset, see configs/base.py."""
  config = base.get_config(preset)
  config.adapter.concat_embed = True  #                         [D7]
  config.loss.free_nats = 1.0  #                                [IPV]
  config.intrinsic.scale = 0.1  # lambda                        [Table 5]
  return config
