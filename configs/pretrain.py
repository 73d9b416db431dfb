r"""DRP pre-training (paper Secs. 7.1, 10.1, Algorithm 1).

  python -m experiments.run_pretrain --config=configs/pretrain.py \
      --config.data.shards_dir=shards/mine --workdir=runs/pretrain

Presets: --config=configs/pretrain.py:nano (two CPU cores), :small, :debug.
Other systems: --config.agent=ipv, apv, prelar or diswm, which read only the
images of the shards. Ablations: configs/ablations.py.

Recorded result: none at the paper's size (docs/status.md).
"""

import ml_collections

from configs import base


def get_config(preset: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the config of a preset, see configs/base.py."""
  return base.get_config(preset)
