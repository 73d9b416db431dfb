"""The estimators of extraction, chosen by name: flow, mask, tracker.

Packages that a back-end needs besides OpenCV (torch, transformers, onnxruntime)
are imported only if it is chosen.
"""

import dataclasses
import importlib.metadata
import pathlib
from typing import Any

import cv2

from drp_jax import extras
from drp_jax import weights as weights_lib
from drp_jax.preprocess import flow as flow_lib
from drp_jax.preprocess import segment as segment_lib
from drp_jax.preprocess import track as track_lib

FLOWS = ('dis', 'farneback', 'sea_raft', 'sim')
MASKS = ('motion_colour', 'grounded_sam', 'onnx', 'sim')
TRACKERS = ('farneback', 'cotracker3', 'tapir', 'sim')
WHILE_ACTING = ('farneback', 'tapir', 'sim')  # trackers


@dataclasses.dataclass(frozen=True)
class Settings:
  """Settings of the back-ends, one field for each key of `config.extract`.

  Attributes:
    flow: one of `FLOWS`.
    mask: one of `MASKS`; the chosen flow helps some of them.
    tracker: one of `TRACKERS`.
    device: of learned models, as torch names it: 'cpu', 'cuda', 'cuda:1'.
    torch_threads: of torch and of onnxruntime, for the whole process; more than
      one is slower where other processes want the cores.
    sea_raft: arguments of `sea_raft.make_flow`; read only if it is chosen, and
      so for the others.
    grounded_sam: of `grounded_sam.make_mask`.
    onnx: of `onnx_mask.make_mask`.
    cotracker3: of `cotracker.CoTracker3`.
    tapir: of `tapir.Tapir`.
  """

  flow: str = 'dis'
  mask: str = 'motion_colour'
  tracker: str = 'farneback'
  device: str = 'cpu'
  torch_threads: int = 1
  sea_raft: dict[str, Any] = dataclasses.field(default_factory=dict)
  grounded_sam: dict[str, Any] = dataclasses.field(default_factory=dict)
  onnx: dict[str, Any] = dataclasses.field(default_factory=dict)
  cotracker3: dict[str, Any] = dataclasses.field(default_factory=dict)
  tapir: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Backends:
  """The three estimators that extraction uses.

  Threads must not share them, because some own buffers.

  Attributes:
    flow: see preprocess/flow.py.
    mask: see preprocess/segment.py.
    tracker: see preprocess/track.py.
    description: their names, the settings that change results, SHA-256 of their
      weights and versions of libraries, stored with the data. Values of `dis`
      differ between versions of OpenCV.
  """

  flow: flow_lib.FlowFn
  mask: segment_lib.MaskFn
  tracker: track_lib.Tracker
  description: str


def make_backends(settings: Settings) -> Backends:
  """Makes back-ends by name.

  Raises:
    ValueError: for an unknown name, an invalid setting, missing weights, or an
      extra that is not installed.
  """
  _check_name('flow', settings.flow, FLOWS)
  _check_name('mask', settings.mask, MASKS)
  _check_name('tracker', settings.tracker, TRACKERS)
  # Builds run one process per core, actors beside XLA's threads: OpenCV's own
  # would only compete with them, and 64-pixel frames are too small to split.
  cv2.setNumThreads(1)
  flow, flow_text = _make_flow(settings)
  mask, mask_text = _make_mask(settings, flow)
  tracker, tracker_text = _make_tracker(settings)
  return Backends(
    flow=flow,
    mask=mask,
    tracker=tracker,
    description=(
      f'flow={flow_text} mask={mask_text} tracker={tracker_text} '
      f'opencv={cv2.__version__}'
    ),
  )


def _make_flow(settings: Settings) -> tuple[flow_lib.FlowFn, str]:
  """Returns a flow function and its part of the description."""
  name, sea_raft = settings.flow, settings.sea_raft
  if name == 'dis':
    return flow_lib.make_dis(), name
  if name == 'farneback':
    return flow_lib.make_farneback(), name
  if name == 'sim':
    from drp_jax.preprocess import truth

    return truth.flow, name

  _prepare_torch('flow', name, 'torch', (), settings)
  from drp_jax.preprocess import sea_raft as sea_raft_lib

  flow = sea_raft_lib.make_flow(device=settings.device, **sea_raft)
  return flow, _describe(
    name,
    {key: sea_raft[key] for key in ('size', 'frame_side')},
    {'weights': sea_raft['weights']},
    ('torch',),
  )


def _make_mask(
  settings: Settings, flow: flow_lib.FlowFn
) -> tuple[segment_lib.MaskFn, str]:
  """Returns a mask function and its part of the description."""
  name, device = settings.mask, settings.device
  if name == 'motion_colour':
    return segment_lib.make_motion_color(flow), name
  if name == 'sim':
    from drp_jax.preprocess import truth

    return truth.mask, name

  if name == 'grounded_sam':
    _prepare_torch('mask', name, name, ('transformers',), settings)
    from drp_jax.preprocess import grounded_sam as grounded_sam_lib

    sam = settings.grounded_sam
    mask = grounded_sam_lib.make_mask(device=device, flow=flow, **sam)
    folders = {key: sam[key] for key in ('detector', 'segmenter')}
    return mask, _describe(
      name,
      {key: sam[key] for key in ('prompt', 'threshold')},
      {
        key: pathlib.Path(folder, grounded_sam_lib.MODEL_FILE)
        for key, folder in folders.items()
      },
      ('torch', 'transformers'),
    )

  extras.require(f'config.extract.mask={name!r}', 'onnx', 'onnxruntime')
  from drp_jax.preprocess import onnx_mask

  onnx, threads = settings.onnx, settings.torch_threads
  mask = onnx_mask.make_mask(device=device, threads=threads, flow=flow, **onnx)
  values = {key: onnx[key] for key in ('side', 'mean', 'scale', 'threshold')}
  files = {'model': onnx['model']}
  return mask, _describe(name, values, files, ('onnxruntime',))


def _make_tracker(settings: Settings) -> tuple[track_lib.Tracker, str]:
  """Returns a tracker and its part of the description."""
  name, device = settings.tracker, settings.device
  if name == 'farneback':
    return track_lib.Farneback(), name
  if name == 'sim':
    from drp_jax.preprocess import truth

    return truth.Tracker(), name

  if name == 'cotracker3':
    _prepare_torch('tracker', name, 'torch', (), settings)
    from drp_jax.preprocess import cotracker

    tracker = cotracker.CoTracker3(device=device, **settings.cotracker3)
    files = {'weights': settings.cotracker3['weights']}
    return tracker, _describe(name, {}, files, ('torch',))

  _prepare_torch('tracker', name, name, ('einshape', 'tree'), settings)
  from drp_jax.preprocess import tapir as tapir_lib

  tracker = tapir_lib.Tapir(device=device, **settings.tapir)
  files = {'weights': settings.tapir['weights']}
  return tracker, _describe(name, {}, files, ('torch',))


def _check_name(key: str, name: str, allowed: tuple[str, ...]) -> None:
  """Raises ValueError for an unknown name of a back-end."""
  if name not in allowed:
    raise ValueError(
      f'config.extract.{key}={name!r} must be one of {list(allowed)}.'
    )


def _prepare_torch(
  key: str,
  name: str,
  extra: str,
  packages: tuple[str, ...],
  settings: Settings,
) -> None:
  """Checks that torch, `packages` and the device exist; sets threads."""
  extras.require(
    f'config.extract.{key}={name!r}', extra, 'torch', 'safetensors', *packages
  )
  import torch

  # Left to itself torch takes all cores: up to ten times slower when shared.
  torch.set_num_threads(settings.torch_threads)
  device = settings.device
  if device != 'cpu' and not torch.cuda.is_available():
    raise ValueError(
      f"config.extract.device={device!r}: torch finds no GPU; use 'cpu'."
    )


def _describe(
  name: str,
  settings: dict[str, Any],
  files: dict[str, str | pathlib.Path],
  packages: tuple[str, ...],
) -> str:
  """Describes a back-end: settings, digests, versions; never a path."""
  # JSON turns a config's tuples into lists.
  entries = [
    f'{key}={tuple(value) if isinstance(value, list) else value!r}'
    for key, value in settings.items()
  ]
  for key, path in files.items():
    entries.append(f'{key}.sha256={weights_lib.sha256(path)}')
  for package in packages:
    entries.append(f'{package}={importlib.metadata.version(package)}')
  return f'{name}({", ".join(entries)})'
