"""Compares drp_jax's SEA-RAFT with the official code, on the same weights.

  make parity SYSTEM=sea_raft CHECKOUT=DIR

DIR is a checkout of github.com/princeton-vl/SEA-RAFT, which is run as it is,
but for torchvision: its constructor would fetch ImageNet weights, which the
random weights below replace anyhow. Needs the extra `grounded_sam` (the
official code imports huggingface_hub). FLAGS=--seed=1 draws other weights and
frames. Exits with 1 above 1e-4 pixels.
"""

import argparse
import os
import pathlib
import sys
import tempfile
import types

import numpy as np
import torch

from drp_jax import weights as weights_lib
from drp_jax.preprocess import sea_raft

_TOLERANCE = 1e-4  # pixels, where flow is some pixels
_SHAPES = ((128, 128), (130, 157), (256, 256))  # the second one is padded
_TRUNKS = {'S': 'resnet18', 'M': 'resnet34', 'L': 'resnet34'}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--checkout', required=True, type=os.path.expanduser)
  parser.add_argument('--seed', type=int, default=0, help='By default 0.')
  args = parser.parse_args()
  checkout, seed = pathlib.Path(args.checkout), args.seed
  if not (checkout / 'core' / 'raft.py').is_file():
    parser.error(f'{checkout} holds no core/raft.py')
  torch.set_num_threads(1)
  torch.manual_seed(seed)
  _stand_in_for_torchvision()
  sys.path.insert(0, str(checkout / 'core'))
  import raft  # of the checkout

  worst = 0.0
  print(f'seed {seed}')
  print('size keys shape      mean |flow|  largest difference')
  for size, (_, iterations) in sea_raft.SIZES.items():
    official = raft.RAFT(_settings(size, iterations)).eval()
    _randomize(official, iterations, seed)
    ours = _through_a_file(official, size)
    for shape in _SHAPES:
      frames = _frames(shape, seed)
      with torch.inference_mode():
        expected = official(*frames, iters=iterations, test_mode=True)['final']
        found = ours(*frames)
      difference = (expected - found).abs().max().item()
      worst = max(worst, difference)
      print(
        f'{size:4} {len(official.state_dict()):4} {shape[0]}x{shape[1]:<6} '
        f'{expected.abs().mean().item():8.2f}     {difference:.1e}'
      )
  print(f'largest difference {worst:.1e}, allowed {_TOLERANCE:.0e}')
  sys.exit(worst > _TOLERANCE)


def _stand_in_for_torchvision() -> None:
  """Trunks without any pre-trained weights."""

  def trunk(weights):
    del weights
    return torch.nn.Module()

  models = types.ModuleType('torchvision.models')
  for number in (18, 34):
    setattr(models, f'resnet{number}', trunk)
    weights = types.SimpleNamespace(IMAGENET1K_V1=None)
    setattr(models, f'ResNet{number}_Weights', weights)
  torchvision = types.ModuleType('torchvision')
  torchvision.models = models
  sys.modules['torchvision'] = torchvision
  sys.modules['torchvision.models'] = models


def _settings(size: str, iterations: int) -> types.SimpleNamespace:
  """As in the checkout's config/eval/spring-*.json."""
  return types.SimpleNamespace(
    pretrain=_TRUNKS[size],
    initial_dim=64,
    block_dims=[64, 128, 256],
    radius=4,
    dim=128,
    num_blocks=2,
    iters=iterations,
  )


def _randomize(model: torch.nn.Module, iterations: int, seed: int) -> None:
  """Moves all that a fresh network leaves at 0, 1 or 1e-6."""
  generator = torch.Generator().manual_seed(seed)
  for name, value in model.state_dict().items():
    noise = torch.rand(value.shape, generator=generator)
    if name.endswith('gamma') or (value.ndim == 1 and name.endswith('weight')):
      value.copy_(0.5 + noise)
    elif value.ndim == 1 and name.endswith('bias'):
      value.copy_(0.2 * (noise - 0.5))
  for name in ('flow_head.2.weight', 'update_block.refine.1.final.weight'):
    model.state_dict()[name].mul_(0.3)  # flow of pixels, not of hundreds
  # Statistics of the towers as after training: without them activations grow
  # with depth until rounding decides what the flow is.
  for module in model.modules():
    if isinstance(module, torch.nn.BatchNorm2d):
      module.momentum = None  # a plain mean
  with torch.no_grad():
    model.train()(*_frames((256, 256), seed), iters=iterations, test_mode=True)
  model.eval()


def _through_a_file(official: torch.nn.Module, size: str) -> sea_raft.SeaRaft:
  """Our network with the official one's weights, read from a `.pth`."""
  model = sea_raft.SeaRaft(*sea_raft.SIZES[size])
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'random.pth'
    torch.save(official.state_dict(), path)
    tensors = weights_lib.read(path, sea_raft.SOURCE)
  weights_lib.fill(model, tensors, sea_raft.SOURCE)
  return model.eval()


def _frames(
  shape: tuple[int, int], seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
  """Two pairs of smooth noise, moved by three pixels: [2, 3, H, W]."""
  rng = np.random.default_rng([1, seed])
  coarse = rng.uniform(0, 255, (2, 3, shape[0] // 8, shape[1] // 8))
  large = torch.nn.functional.interpolate(
    torch.tensor(coarse, dtype=torch.float32), shape, mode='bicubic'
  ).clamp(0, 255)
  return large, large.roll(3, dims=-1)


if __name__ == '__main__':
  main()
