"""Lists the studies of the paper's figures and tables by name.

python -m experiments.study --config=configs/studies/paper.py:fig4
"""

import dataclasses

import ml_collections

from configs.studies import base


@dataclasses.dataclass(frozen=True)
class Study:
  """Describes what one figure or table compares.

  Attributes:
    what: one sentence.
    title: above the picture.
    systems: of configs/studies/systems.py; the first is ours.
    tasks: each of them with every system.
  """

  what: str
  title: str
  systems: tuple[str, ...]
  tasks: tuple[str, ...]


_ALL = ('drp', 'dreamerv2', 'dreamerv3', 'apv', 'ipv', 'prelar', 'diswm')
_WALKER, _HOPPER = 'dmcr/walker_run', 'dmcr/hopper_stand'
_DRAWER, _DIAL = 'metaworld/drawer-open', 'metaworld/dial-turn'

STUDIES = {
  'fig4': Study(
    'Learning curves on DMC Remastered (paper Fig. 4).',
    'Fig. 4: DMC Remastered',
    _ALL,
    (_WALKER, _HOPPER, 'dmcr/cheetah_run'),  # [Sec. 5.1]
  ),
  'fig5a': Study(
    'Success on six tasks of Meta-World (paper Fig. 5a).',
    'Fig. 5a: Meta-World',
    _ALL,
    (  # [Sec. 5.2]
      _DIAL,
      _DRAWER,
      'metaworld/lever-pull',
      'metaworld/button-press-topdown-wall',
      'metaworld/reach',
      'metaworld/door-lock',
    ),
  ),
  'fig5b': Study(
    'Local motion against the whole flow (paper Fig. 5b).',
    'Fig. 5b: motion deconstruction',
    ('drp', 'global_flow', 'ipv'),
    (_WALKER, _HOPPER),  # [Sec. 5.3]
  ),
  'fig6': Study(
    'Without one of the two attentions (paper Fig. 6).',
    'Fig. 6: dual attention',
    ('drp', 'without_intra', 'without_inter'),
    (_WALKER, _HOPPER, _DRAWER, _DIAL),  # [Sec. 5.4.1]
  ),
  'fig7': Study(
    "Without pre-training, or with IPV's (paper Fig. 7).",
    'Fig. 7: what pre-training gives',
    ('drp', 'without_pretraining', 'after_ipv'),
    # The paper does not name the tasks; these are those of Fig. 6.    [N31]
    (_WALKER, _HOPPER, _DRAWER, _DIAL),
  ),
  'fig12': Study(
    'Without one of the two embeddings (paper Fig. 12).',
    'Fig. 12: positional embeddings',
    ('drp', 'without_coordinate', 'without_temporal'),
    (_WALKER, _HOPPER, _DRAWER, _DIAL),  # [Fig. 12]
  ),
  'fig13': Study(
    'Adapter against one projection (paper Fig. 13).',
    'Fig. 13: adapter',
    ('drp', 'mlp_projection'),
    (_WALKER, _DRAWER),  # [Fig. 13]
  ),
  'table1': Study(
    'Without the pre-trained dynamics model (paper Table 1).',
    'Table 1: pre-trained dynamics model',
    ('drp', 'without_dynamics', 'ipv', 'ipv_without_dynamics'),
    (_WALKER, _HOPPER),  # [Table 1]
  ),
  'table2': Study(
    'Number of keypoints K (paper Table 2).',
    'Table 2: keypoints K',
    ('keypoints_16', 'keypoints_8', 'keypoints_32'),
    (_WALKER, _HOPPER),  # [Table 2]
  ),
  'table3': Study(
    'Mask ratio rho (paper Table 3).',
    'Table 3: mask ratio ρ',
    ('mask_ratio_50', 'mask_ratio_30', 'mask_ratio_70'),
    (_WALKER,),  # [Table 3]
  ),
  'table4': Study(
    'Side of the flow patches P (paper Table 4).',
    'Table 4: patch size P',
    ('patch_16', 'patch_12', 'patch_24'),
    (_WALKER,),  # [Table 4]
  ),
}


def get_config(name: str = '') -> ml_collections.ConfigDict:
  """Returns the locked config of a study.

  Raises:
    ValueError: for another name than those of `STUDIES`.
  """
  if name not in STUDIES:
    raise ValueError(
      f'--config=configs/studies/paper.py:NAME, where NAME is one of'
      f' {", ".join(STUDIES)}; not {name!r}.'
    )
  study = STUDIES[name]
  config = base.get_config()
  config.name, config.title = name, study.title
  config.systems, config.tasks = study.systems, study.tasks
  return config
