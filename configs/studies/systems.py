"""The systems of the paper's figures and tables: their names, what they load.

A name is an ablation of configs/ablations.py, or else DRP with `changes`.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class System:
  """One line of a figure, or one row of a table.

  Attributes:
    label: as the paper writes it.
    pretraining: the system whose pre-training it loads; None for none.
    changes: 'name=value' of configs/base.py, in both stages.
  """

  label: str
  pretraining: str | None = None
  changes: tuple[str, ...] = ()


SYSTEMS = {
  # Figs. 4, 5a
  'drp': System('DRP', 'drp'),
  'dreamerv2': System('DreamerV2', None, ('agent=dreamerv2',)),
  'dreamerv3': System('DreamerV3', None, ('agent=dreamerv3',)),
  'apv': System('APV', 'apv', ('agent=apv',)),
  'ipv': System('IPV', 'ipv', ('agent=ipv',)),
  'prelar': System('PreLAR', 'prelar', ('agent=prelar',)),
  'diswm': System('DisWM', 'diswm', ('agent=diswm',)),
  # Fig. 5b
  'global_flow': System('Global Flow', 'global_flow'),
  # Fig. 6
  'without_intra': System('w/o Intra-Atten', 'without_intra'),
  'without_inter': System('w/o Inter-Atten', 'without_inter'),
  # Fig. 7
  'without_pretraining': System('DRP w/o pre'),
  'after_ipv': System('IPV_pre_DRP_ft', 'ipv'),
  # Table 1
  'without_dynamics': System('DRP w/o dyn.', 'drp'),
  'ipv_without_dynamics': System('IPV w/o dyn.', 'ipv'),
  # Tables 2 to 4: the middle values are the paper's DRP, a smaller preset may
  # have another one.
  'keypoints_8': System('K = 8', 'keypoints_8'),
  'keypoints_16': System('K = 16', 'keypoints_16', ('dae.num_keypoints=16',)),
  'keypoints_32': System('K = 32', 'keypoints_32'),
  'mask_ratio_30': System('ρ = 0.3', 'mask_ratio_30'),
  'mask_ratio_50': System('ρ = 0.5', 'mask_ratio_50', ('dae.mask_ratio=0.5',)),
  'mask_ratio_70': System('ρ = 0.7', 'mask_ratio_70'),
  'patch_12': System('P = 12', 'patch_12'),
  'patch_16': System('P = 16', 'patch_16', ('dae.patch_size=16',)),
  'patch_24': System('P = 24', 'patch_24'),
  # Fig. 12
  'without_coordinate': System('w/o Coord. Emb.', 'without_coordinate'),
  'without_temporal': System('w/o Temp. Emb.', 'without_temporal'),
  # Fig. 13
  'mlp_projection': System('DRP MLP Projection', 'drp'),
}
