"""How fast runs go; what a study's estimated hours are made of.

An entry holds for its preset and system only. Those of accelerators are bounds
by the compiler's count of arithmetic and memory traffic (docs/speed.md):
nothing was measured on any, real steps are slower, and acting comes on top.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Throughput:
  """Updates per second of one stage.

  Attributes:
    hardware: on which it was seen, or for which it is computed.
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


_XEON = '2 cores of a 2 GHz Xeon'
_EPYC = '1 core of an AMD EPYC'
_V5E = '4 chips of TPU v5e, at least'
_H100 = 'one H100, at least'

_NANO_STUDY = 'docs/learning.md: the nano study, the other core busy too'
_COMPILED = 'docs/speed.md: benchmarks/results/aot_compile.json'

KNOWN = (
  Throughput(
    _XEON,
    'pretrain',
    'nano',
    'drp',
    'atomic_actions',
    rate=0.84,
    frames=8 * 25,
    source='make demo at 4e7c413, nothing else running',
  ),
  Throughput(
    _XEON,
    'finetune',
    'nano',
    'drp',
    'atomic_actions',
    rate=1.5,
    frames=4 * 16,
    source='docs/learning.md: walker_stand, an update every 2 agent steps',
  ),
  Throughput(
    _XEON,
    'pretrain',
    'paper',
    'drp',
    'atomic_actions',
    rate=1 / 32,
    frames=16 * 25,
    source='benchmarks/results/memory_paper.json, beside other work',
  ),
  Throughput(
    _XEON,
    'finetune',
    'paper',
    'drp',
    'atomic_actions',
    rate=1 / 118,
    frames=16 * 50,
    source='benchmarks/results/memory_paper.json: updates alone',
  ),
  Throughput(
    _EPYC,
    'pretrain',
    'nano',
    'drp',
    'atomic_actions',
    rate=1.2,
    frames=8 * 25,
    source=_NANO_STUDY,
  ),
  Throughput(
    _EPYC,
    'pretrain',
    'nano',
    'drp',
    'global_flow',
    rate=1.1,
    frames=8 * 25,
    source=_NANO_STUDY,
  ),
  Throughput(
    _EPYC,
    'pretrain',
    'nano',
    'ipv',
    'atomic_actions',
    rate=1.4,
    frames=8 * 25,
    source=_NANO_STUDY,
  ),
  Throughput(
    _EPYC,
    'finetune',
    'nano',
    'drp',
    'atomic_actions',
    rate=2.2,
    frames=4 * 16,
    source=_NANO_STUDY,
  ),
  Throughput(
    _EPYC,
    'finetune',
    'nano',
    'drp',
    'global_flow',
    rate=2.2,
    frames=4 * 16,
    source=_NANO_STUDY,
  ),
  Throughput(
    _EPYC,
    'finetune',
    'nano',
    'ipv',
    'atomic_actions',
    rate=3.5,
    frames=4 * 16,
    source=_NANO_STUDY,
  ),
  Throughput(
    _V5E,
    'pretrain',
    'paper',
    'drp',
    'atomic_actions',
    rate=1 / 0.023,
    frames=16 * 25,
    source=_COMPILED,
  ),
  Throughput(
    _V5E,
    'finetune',
    'paper',
    'drp',
    'atomic_actions',
    rate=1 / 0.059,
    frames=16 * 50,
    source=_COMPILED,
  ),
  Throughput(
    _H100,
    'pretrain',
    'paper',
    'drp',
    'atomic_actions',
    rate=1 / 0.019,
    frames=16 * 25,
    source=_COMPILED,
  ),
  Throughput(
    _H100,
    'finetune',
    'paper',
    'drp',
    'atomic_actions',
    rate=1 / 0.045,
    frames=16 * 50,
    source=_COMPILED,
  ),
)
