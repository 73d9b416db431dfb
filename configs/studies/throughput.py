"""How fast runs were seen to go; what a study's estimated hours are made of.

An entry holds for its preset and system only. Nothing was measured on GPUs or
TPUs yet, nor at the paper's size.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Throughput:
  """Updates per second of one stage.

  Attributes:
    hardware: on which it was seen.
    stage: 'pretrain' or 'finetune'.
    preset: of configs/base.py.
    agent: `config.agent`.
    motion: `config.motion`.
    rate: gradient steps per second. In fine-tuning acting and evaluation are
      paid out of it.
    frames: of a batch; time is taken to grow with it.
    source: where it is written down.
  """

  hardware: str
  stage: str
  preset: str
  agent: str
  motion: str
  rate: float
  frames: int
  source: str


_TWO_CORES = '2 cores of a 2 GHz Xeon'

MEASURED = (
  Throughput(
    _TWO_CORES,
    'pretrain',
    'nano',
    'drp',
    'atomic_actions',
    rate=0.84,
    frames=8 * 25,
    source='make demo at 4e7c413, nothing else running',
  ),
  Throughput(
    _TWO_CORES,
    'finetune',
    'nano',
    'drp',
    'atomic_actions',
    rate=1.5,
    frames=4 * 16,
    source='docs/learning.md: walker_stand, an update every 2 agent steps',
  ),
)
