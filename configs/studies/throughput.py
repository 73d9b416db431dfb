"""How fast runs go; what a study's estimated hours are made of.

What is known stands in throughput.json. An entry holds for its preset and
system only. Those of accelerators are bounds by the compiler's count of
arithmetic and memory traffic (docs/speed.md): nothing was measured on any, real
steps are slower, and acting comes on top.
"""

import dataclasses
import json
import pathlib


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


KNOWN = tuple(
  Throughput(**row)
  for row in json.loads(
    pathlib.Path(__file__).with_suffix('.json').read_text('utf-8')
  )
)
