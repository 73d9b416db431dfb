r"""Times the training step of the official ContextWM on a GPU.

  python -m benchmarks.accelerator_contextwm \
      '["DIR", "pretrain", "nano", "bfloat16"]'

DIR is a checkout of github.com/thuml/ContextWM. The step is that of its
scripts. The process answers as described in benchmarks/servers.py. `float32` is
torch's
default: convolutions in TF32, matrix products in float32. `bfloat16` means
ContextWM's own mixed precision, float16 by torch.cuda.amp (`precision: 16` in
its configs).
"""

import json
import pathlib
import sys
import time
from typing import Any

import jax
import numpy as np
import torch

from benchmarks import servers, steps
from third_party import contextwm_agents, contextwm_imports

_GIB = 2**30


class TimedStep:
  """ContextWM's agent on the device."""

  def __init__(self, checkout: str, stage: str, preset: str, precision: str):
    mixed = precision == 'bfloat16'
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    if mixed and device == 'cpu':
      raise ValueError('Their mixed precision needs CUDA.')
    contextwm_imports.prepare(pathlib.Path(checkout))
    import wmlib  # of the checkout

    # All of this is in ContextWM's scripts.
    wmlib.ENABLE_FP16 = mixed
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = True
    self._device = torch.device(device)
    self._dtype = torch.float16 if mixed else torch.float32
    step = steps.make_step(stage, 'float32', preset, 'ipv')
    pretrained, tuned = contextwm_agents.make_agents(
      pathlib.Path(checkout), step.config, step.action_size
    )
    agent = pretrained if stage == 'pretrain' else tuned
    self._agent = agent.to(self._device)
    self._agent.init_optimizers()
    self._batch = _batch(step)

  def answer(self, question: Any) -> Any:
    """Answers ['host', steps] with seconds, ['end'] with `peak_gib`."""
    kind, *count = question
    if kind == 'end':
      peak = None
      if self._device.type == 'cuda':
        peak = torch.cuda.max_memory_allocated() / _GIB
      return {'peak_gib': peak}
    begin = time.perf_counter()
    for _ in range(count[0]):
      self._agent.train(
        {
          name: x.to(device=self._device, dtype=self._dtype)
          for name, x in self._batch.items()
        }
      )
    if self._device.type == 'cuda':
      torch.cuda.synchronize()
    return time.perf_counter() - begin


def _batch(step: steps.Step) -> dict[str, torch.Tensor]:
  """Makes a batch in the form of ContextWM's replay, on the host."""
  B, T = step.example.is_first.shape
  rng = np.random.default_rng(0)
  is_first = torch.zeros(B, T)
  is_first[:, 0] = 1.0
  image = rng.integers(0, 256, (B, T, 3, 64, 64), np.uint8)
  action = rng.uniform(-1, 1, (B, T, step.action_size)).astype(np.float32)
  return {
    'image': torch.from_numpy(image),
    'action': torch.from_numpy(action),
    'reward': torch.randn(B, T),
    'is_first': is_first,
    'is_last': torch.zeros(B, T),
    'is_terminal': torch.zeros(B, T),
  }


def main() -> None:
  # Sizes come from our configs; torch has the device's memory to itself.
  jax.config.update('jax_platforms', 'cpu')

  def start():
    step = TimedStep(*json.loads(sys.argv[1]))
    return None, step.answer

  servers.serve(start)


if __name__ == '__main__':
  main()
