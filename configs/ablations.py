r"""The paper's ablations, and the settings that each of them changes.

  python -m experiments.run_pretrain \
      --config=configs/ablations.py:without_intra,pretrain \
      --config.data.shards_dir=shards/mine --workdir=runs/without_intra
  python -m experiments.run_dmcr \
      --config=configs/ablations.py:without_intra,dmcr \
      --config.init_from=runs/without_intra --workdir=runs/walker_without_intra

After the colon follow a name in `ABLATIONS`, a stage in `STAGES` and, after
another comma, a preset of configs/base.py ('paper' by default). Ablations that
do not change pre-training load their parent's, and `after_ipv` loads IPV's.
`after_ipv` and `without_pretraining` load no flow scale either. For the same
input as DRP's, pass the flow scale in report.json of the shards as
--config.finetune.flow_scale.

The other values of Tables 2 to 4, K = 16, rho = 0.5 and P = 16, are DRP's.
Smaller presets have another K, which the rows of Table 2 replace.

Recorded result: none.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from configs import finetune_dmcr, finetune_metaworld, pretrain

STAGES = {
  'pretrain': pretrain,
  'dmcr': finetune_dmcr,
  'metaworld': finetune_metaworld,
}


@dataclasses.dataclass(frozen=True)
class Ablation:
  """A system and its changed settings.

  Attributes:
    changes: name in configs/base.py -> value.
    parent: `config.agent`.
    pretrains: whether its pre-training differs from the parent's.
  """

  changes: Mapping[str, Any]
  parent: str = 'drp'
  pretrains: bool = True


def _finetuned(changes: Mapping[str, Any], parent: str = 'drp') -> Ablation:
  return Ablation(changes, parent, pretrains=False)


ABLATIONS = {
  # Fig. 5b
  'global_flow': Ablation({'motion': 'global_flow'}),  #        [E4]
  # Fig. 6
  'without_intra': Ablation({'dae.intra': False}),  #           [E1]
  'without_inter': Ablation({'dae.inter': False}),  #           [E2]
  # Fig. 7: nothing is loaded, or IPV's pre-training.
  'without_pretraining': _finetuned(
    {
      'init_without': (
        'dae',
        'mae_decoder',
        'image_encoder',
        'context_encoder',
        'image_decoder',
        'latent_dynamics',
      )
    }
  ),  #                                                         [E6]
  'after_ipv': _finetuned(
    {
      'init_without': ('dae', 'mae_decoder'),
      'init_zero': ('latent_dynamics/action_in/kernel',),
    }
  ),  #                                                         [E7]
  # Table 1
  'without_dynamics': _finetuned(
    {'init_without': ('latent_dynamics',)}
  ),  #                                                         [E5]
  'ipv_without_dynamics': _finetuned(
    {'init_without': ('latent_dynamics',)}, parent='ipv'
  ),  #                                                         [E5]
  # Table 2: K
  'keypoints_8': Ablation({'dae.num_keypoints': 8}),
  'keypoints_32': Ablation({'dae.num_keypoints': 32}),
  # Table 3: rho
  'mask_ratio_30': Ablation({'dae.mask_ratio': 0.3}),
  'mask_ratio_70': Ablation({'dae.mask_ratio': 0.7}),
  # Table 4: P
  'patch_12': Ablation({'dae.patch_size': 12}),  #              [E13]
  'patch_24': Ablation({'dae.patch_size': 24}),  #              [E13]
  # Fig. 12
  'without_coordinate': Ablation({'dae.coordinate': False}),  # [E3]
  'without_temporal': Ablation({'dae.temporal': False}),  #     [E3]
  # Fig. 13
  'mlp_projection': _finetuned({'adapter.kind': 'mlp'}),  #     [D6]
}


def get_config(variant: str) -> ml_collections.ConfigDict:
  """Returns the locked config of an ablation, 'name,stage' or with ',preset'.

  Raises:
    ValueError: for an unknown name, stage or preset, and for the pre-training
      of an ablation that does not change it.
  """
  name, _, rest = variant.partition(',')
  stage, _, preset = rest.partition(',')
  for value, allowed in ((name, ABLATIONS), (stage, STAGES)):
    if value not in allowed:
      raise ValueError(
        f'variant is a name and a stage, of {tuple(allowed)}, not {variant!r}.'
      )
  ablation = ABLATIONS[name]
  if stage == 'pretrain' and not ablation.pretrains:
    raise ValueError(
      f'variant={variant!r}: {name} differs in fine-tuning only.'
    )
  config = STAGES[stage].get_config(preset or 'paper')
  config.agent = ablation.parent
  config.update_from_flattened_dict(ablation.changes)
  return config
