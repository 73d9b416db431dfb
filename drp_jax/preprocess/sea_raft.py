"""SEA-RAFT (Wang, Lipson, Deng, 2024): the paper's optical flow, in torch.

This is written from the architecture. Parameters have the official names, so
official files load strictly. Outputs agree with the official code
(third_party/README.md says how this is checked).
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from drp_jax import weights as weights_lib
from drp_jax.data import schema
from drp_jax.preprocess import flow as flow_lib

# Name -> blocks of the three stages of a tower, iterations. L is M's weights.
SIZES = {
  'S': ((2, 2, 2), 4),
  'M': ((3, 4, 6), 4),
  'L': ((3, 4, 6), 12),
}
MIN_SIDE = 128  # below, the coarsest correlation has one pixel: a division by 0
SOURCE = weights_lib.Source(
  key='config.extract.sea_raft.weights',
  files=(
    'Tartan-C-T-TSKH-spring540x960-{S,M}.pth (L uses M), a model.safetensors '
    'of the hub, or a ptlflow .ckpt'
  ),
  origin=(
    'github.com/princeton-vl/SEA-RAFT, or MemorySlices/'
    'Tartan-C-T-TSKH-spring540x960-M of the Hugging Face hub'
  ),
  license='BSD-3-Clause',
)

_STAGES = (64, 128, 256)  # channels at 1/2, 1/4, 1/8 of the frame
_WIDTH = 128  # channels of the recurrent state, and of the context
_STRIDE = 8
_LEVELS, _RADIUS = 4, 4  # scales and window of the correlation
_REFINEMENTS = 2  # ConvNeXt blocks per iteration


def make_flow(
  size: str, weights: str, frame_side: int, batch_size: int, device: str
) -> flow_lib.FlowFn:
  """Makes the back-end: SEA-RAFT with weights from a file.

  Frames are enlarged by the smallest whole factor that makes the shorter side
  `frame_side` or more, and the flow is scaled back to their size (A1).

  Args:
    size: size of the network, a key of `SIZES`.
    weights: path of a file, see `SOURCE`.
    frame_side: pixels, 128 or more.
    batch_size: pairs per batch.
    device: torch device.

  Raises:
    ValueError: for an invalid setting or file.
  """
  if size not in SIZES:
    raise ValueError(
      f'config.extract.sea_raft.size={size!r} must be one of {list(SIZES)}.'
    )
  if frame_side < MIN_SIDE:
    raise ValueError(
      f'config.extract.sea_raft.frame_side={frame_side} must be at least '
      f'{MIN_SIDE}.'
    )
  path = weights_lib.find_file(weights, SOURCE)
  model = SeaRaft(*SIZES[size])
  tensors = weights_lib.read(path, SOURCE)
  weights_lib.fill(model, complete(model, tensors), SOURCE)
  model = model.eval().to(device)

  def flow(start: schema.Footage, end: schema.Footage) -> np.ndarray:
    out = [
      _estimate(
        model,
        start.image[i : i + batch_size],
        end.image[i:][:batch_size],
        frame_side,
      )
      for i in range(0, len(start), batch_size)
    ]
    return np.concatenate(out)

  return flow


def complete(model: 'SeaRaft', tensors: dict[str, Any]) -> dict[str, Any]:
  """Adds second names of arrays that a file stores once.

  The norm of a shortcut has two names in the official code. `.pth` files hold
  both. safetensors stores no array twice and holds only the first.
  """
  names = {
    name: name.replace('.downsample.1.', '.bn3.') for name in model.state_dict()
  }
  second = {
    name: tensors[first]
    for name, first in names.items()
    if name not in tensors and first in tensors
  }
  return {**tensors, **second}


class SeaRaft(nn.Module):
  """Flow of pairs of frames: a first guess, then recurrent refinement."""

  def __init__(self, num_blocks: tuple[int, int, int], iterations: int):
    """Makes a network with random weights.

    Args:
      num_blocks: residual blocks of the three stages of both towers.
      iterations: iterations of the refinement.
    """
    super().__init__()
    self._iterations = iterations
    self.cnet = _Tower(6, num_blocks)
    self.init_conv = _conv(2 * _WIDTH, 2 * _WIDTH, 3)
    self.upsample_weight = nn.Sequential(
      _conv(_WIDTH, 2 * _WIDTH, 3),
      nn.ReLU(),
      _conv(2 * _WIDTH, 9 * _STRIDE**2, 1),
    )
    # Flow, then weights and scales of a mixture that only training uses.
    self.flow_head = nn.Sequential(
      _conv(_WIDTH, 2 * _WIDTH, 3), nn.ReLU(), _conv(2 * _WIDTH, 6, 3)
    )
    self.fnet = _Tower(3, num_blocks)
    self.update_block = _Update()

  def forward(self, start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Estimates flow.

    Args:
      start: [N, 3, H, W] float, 0..255 RGB, H and W at least 128.
      end: [N, 3, H, W] likewise.

    Returns:
      [N, 2, H, W] float, (x, y) in pixels.
    """
    height, width = start.shape[-2:]
    left, top = -width % _STRIDE // 2, -height % _STRIDE // 2
    padding = (left, -width % _STRIDE - left, top, -height % _STRIDE - top)
    start, end = (
      functional.pad(frames / 127.5 - 1, padding, mode='replicate')
      for frames in (start, end)
    )
    context = self.init_conv(self.cnet(torch.cat([start, end], 1)))
    state, context = context.split(_WIDTH, dim=1)  # [N, D, H/8, W/8] both
    flow = self.flow_head(state)[:, :2]
    pyramid = _correlations(self.fnet(start), self.fnet(end))
    for _ in range(self._iterations):
      state = self.update_block(state, context, _look_up(pyramid, flow), flow)
      flow = flow + self.flow_head(state)[:, :2]
    flow = _enlarge(flow, 0.25 * self.upsample_weight(state))
    return flow[..., top : top + height, left : left + width]


class _Tower(nn.Module):
  """ResNet to an eighth of the frame: [N, C, H, W] to [N, 256, H/8, W/8]."""

  def __init__(self, channels: int, num_blocks: tuple[int, int, int]):
    super().__init__()
    self.conv1 = nn.Conv2d(channels, _STAGES[0], 7, stride=2, padding=3)
    self.bn1 = nn.BatchNorm2d(_STAGES[0])
    self.layer1 = _stage(_STAGES[0], _STAGES[0], 1, num_blocks[0])
    self.layer2 = _stage(_STAGES[0], _STAGES[1], 2, num_blocks[1])
    self.layer3 = _stage(_STAGES[1], _STAGES[2], 2, num_blocks[2])
    self.final_conv = _conv(_STAGES[2], 2 * _WIDTH, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    x = torch.relu(self.bn1(self.conv1(x)))
    x = self.layer3(self.layer2(self.layer1(x)))
    return self.final_conv(x)


class _Residual(nn.Module):
  """Two convolutions and a shortcut."""

  def __init__(self, inputs: int, outputs: int, stride: int):
    super().__init__()
    self.conv1 = _conv(inputs, outputs, 3, stride)
    self.bn1 = nn.BatchNorm2d(outputs)
    self.conv2 = _conv(outputs, outputs, 3)
    self.bn2 = nn.BatchNorm2d(outputs)
    if stride == 1:
      self.downsample = nn.Identity()
    else:
      self.bn3 = nn.BatchNorm2d(outputs)  # has two names, as in official files
      self.downsample = nn.Sequential(
        _conv(inputs, outputs, 1, stride), self.bn3
      )

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    h = torch.relu(self.bn1(self.conv1(x)))
    h = torch.relu(self.bn2(self.conv2(h)))
    return torch.relu(self.downsample(x) + h)


class _Update(nn.Module):
  """One step of the recurrent state, from context, correlation and flow."""

  def __init__(self):
    super().__init__()
    self.encoder = _MotionEncoder()
    self.refine = nn.ModuleList(_ConvNext() for _ in range(_REFINEMENTS))

  def forward(
    self,
    state: torch.Tensor,
    context: torch.Tensor,
    correlation: torch.Tensor,
    flow: torch.Tensor,
  ) -> torch.Tensor:
    motion = self.encoder(correlation, flow)
    for block in self.refine:
      state = block(torch.cat([state, context, motion], 1))
    return state


class _MotionEncoder(nn.Module):
  """[N, 4 * 81, h, w] and [N, 2, h, w] to [N, D, h, w], which ends in flow."""

  def __init__(self):
    super().__init__()
    correlations = _LEVELS * (2 * _RADIUS + 1) ** 2
    self.convc1 = _conv(correlations, 2 * _WIDTH, 1)
    self.convc2 = _conv(2 * _WIDTH, 3 * _WIDTH // 2, 3)
    self.convf1 = _conv(2, _WIDTH, 7)
    self.convf2 = _conv(_WIDTH, _WIDTH // 2, 3)
    self.conv = _conv(2 * _WIDTH, _WIDTH - 2, 3)

  def forward(
    self, correlation: torch.Tensor, flow: torch.Tensor
  ) -> torch.Tensor:
    seen = torch.relu(self.convc2(torch.relu(self.convc1(correlation))))
    moved = torch.relu(self.convf2(torch.relu(self.convf1(flow))))
    both = torch.relu(self.conv(torch.cat([seen, moved], 1)))
    return torch.cat([both, flow], 1)


class _ConvNext(nn.Module):
  """A ConvNeXt block that ends in fewer channels: [N, 3D, ...] to [N, D]."""

  def __init__(self):
    super().__init__()
    channels = 3 * _WIDTH
    self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
    self.norm = nn.LayerNorm(channels, eps=1e-6)
    self.pwconv1 = nn.Linear(channels, 4 * _WIDTH)
    self.pwconv2 = nn.Linear(4 * _WIDTH, channels)
    self.gamma = nn.Parameter(torch.full([channels], 1e-6))
    self.final = _conv(channels, _WIDTH, 1)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    h = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # channels last
    h = self.gamma * self.pwconv2(functional.gelu(self.pwconv1(h)))
    return self.final(x + h.permute(0, 3, 1, 2))


def _conv(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
  """Makes a convolution that keeps the size, except for the stride."""
  return nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2)


def _stage(inputs: int, outputs: int, stride: int, count: int) -> nn.Sequential:
  """Makes residual blocks, of which the first may halve the size."""
  rest = [_Residual(outputs, outputs, 1) for _ in range(count - 1)]
  return nn.Sequential(_Residual(inputs, outputs, stride), *rest)


def _correlations(start: torch.Tensor, end: torch.Tensor) -> list[torch.Tensor]:
  """Correlates every place of `start` with every place of `end`, at 4 scales.

  Args:
    start: [N, C, h, w] features.
    end: [N, C, h, w].

  Returns:
    Four of [N*h*w, 1, h', w']; h' is h, h/2, h/4, h/8.
  """
  channels = start.shape[1]
  start = start.flatten(2).transpose(1, 2) / channels**0.5  # [N, h*w, C]
  pyramid = []
  for level in range(_LEVELS):
    if level:
      end = functional.interpolate(
        end, scale_factor=0.5, mode='bilinear', align_corners=False
      )
    products = start @ end.flatten(2)  # [N, h*w, h'*w']
    pyramid.append(products.reshape(-1, 1, *end.shape[-2:]))
  return pyramid


def _look_up(pyramid: list[torch.Tensor], flow: torch.Tensor) -> torch.Tensor:
  """Looks up correlations around the places that the flow points to.

  Args:
    pyramid: from `_correlations`.
    flow: [N, 2, h, w], in pixels of the eighth.

  Returns:
    [N, 4 * 81, h, w].
  """
  count, _, height, width = flow.shape
  y, x = torch.meshgrid(
    torch.arange(height, device=flow.device),
    torch.arange(width, device=flow.device),
    indexing='ij',
  )
  target = (flow + torch.stack([x, y])).permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
  steps = torch.arange(-_RADIUS, _RADIUS + 1, device=flow.device)
  # x changes along the first axis, the order that the weights expect.
  around = torch.stack(torch.meshgrid(steps, steps, indexing='ij'), -1)
  found = []
  for level, correlation in enumerate(pyramid):
    places = target / 2**level + around  # [N*h*w, 9, 9, 2]
    sides = torch.tensor(
      correlation.shape[:-3:-1], device=flow.device
    )  # w', h'
    found.append(
      functional.grid_sample(
        correlation, 2 * places / (sides - 1) - 1, align_corners=True
      ).reshape(count, height, width, -1)
    )
  return torch.cat(found, -1).permute(0, 3, 1, 2)


def _enlarge(flow: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
  """Enlarges flow 8x; each pixel is a convex mixture of 3x3 coarse pixels.

  Args:
    flow: [N, 2, h, w], in pixels of the eighth.
    logits: [N, 9 * 8 * 8, h, w], of the mixtures.

  Returns:
    [N, 2, 8h, 8w], in pixels of the frame.
  """
  count, _, height, width = flow.shape
  mixture = logits.reshape(count, 1, 9, _STRIDE, _STRIDE, height, width)
  coarse = functional.unfold(_STRIDE * flow, 3, padding=1)
  coarse = coarse.reshape(count, 2, 9, 1, 1, height, width)
  fine = (mixture.softmax(2) * coarse).sum(2)  # [N, 2, 8, 8, h, w]
  fine = fine.permute(0, 1, 4, 2, 5, 3)
  return fine.reshape(count, 2, _STRIDE * height, _STRIDE * width)


@torch.inference_mode()
def _estimate(
  model: SeaRaft, start: np.ndarray, end: np.ndarray, frame_side: int
) -> np.ndarray:
  """Estimates flow [n, H, W, 2] float32 of n pairs [n, H, W, 3] uint8."""
  device = next(model.parameters()).device
  height, width = start.shape[1:3]
  factor = max(1, -(-frame_side // min(height, width)))

  def enlarged(frames: np.ndarray) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(frames)).to(device)
    x = x.permute(0, 3, 1, 2).float()
    x = functional.interpolate(
      x, scale_factor=factor, mode='bicubic', align_corners=False
    )
    return x.clamp(0, 255)  # bicubic overshoots at edges

  flow = model(enlarged(start), enlarged(end))
  flow = functional.avg_pool2d(flow, factor) / factor
  return flow.permute(0, 2, 3, 1).cpu().numpy()
