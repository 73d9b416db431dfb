"""Dense optical flow between two frames (F_t, Sec. 4.2.1).

A flow back-end is a function `flow(start, end)` of N pairs of frames that
returns float32 [N, H, W, 2]: the pixel (x, y) of start's frame i is found at
(x, y) + flow[i, y, x] in end's, x right and y down, in pixels of these frames.
"""

from collections.abc import Callable

import cv2
import numpy as np

from drp_jax.data import schema

FlowFn = Callable[[schema.Footage, schema.Footage], np.ndarray]

MIN_SIDE = 128  # A1: flow is more accurate on enlarged 64-pixel frames


def make_farneback() -> FlowFn:
  """Makes the back-end that the default tracker uses, see `farneback`.

  It is sharper at thin limbs than DIS, and noisier where little moves. Frames
  under 128 pixels are enlarged first, as for DIS (A1).

  Returns:
    A flow function.
  """

  def pair(frame0: np.ndarray, frame1: np.ndarray) -> np.ndarray:
    height, width = frame0.shape[:2]
    factor = -(-MIN_SIDE // min(height, width))
    large = farneback(
      enlarged_gray(frame0, factor), enlarged_gray(frame1, factor)
    )
    small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    return small / factor

  return _of_pairs(pair)


def make_dis() -> FlowFn:
  """Makes the default back-end: dense inverse search (DIS).

  Frames under 128 pixels are enlarged first, and the flow is scaled back to
  their size (A1). The result depends on the two frames only.

  Returns:
    A flow function. It owns OpenCV objects: make one per thread or process.
  """
  # One object per size, because a DISOpticalFlow keeps scales of the sizes that
  # it has seen, which would make flow depend on earlier calls.
  estimators = {}

  def pair(frame0: np.ndarray, frame1: np.ndarray) -> np.ndarray:
    height, width = frame0.shape[:2]
    factor = -(-MIN_SIDE // min(height, width))
    gray0, gray1 = enlarged_gray(frame0, factor), enlarged_gray(frame1, factor)
    if gray0.shape not in estimators:
      estimators[gray0.shape] = _dis_estimator()
    large = estimators[gray0.shape].calc(gray0, gray1, None)
    small = cv2.resize(large, (width, height), interpolation=cv2.INTER_AREA)
    return small / factor

  return _of_pairs(pair)


def over_clip(flow: FlowFn, footage: schema.Footage) -> np.ndarray:
  """Computes the flow that led to each frame of a clip.

  Args:
    flow: a back-end.
    footage: T >= 2 frames.

  Returns:
    [T, H, W, 2] float16; entry t is from frame t-1 to frame t, entry 0 zeros.
  """
  out = np.zeros((*footage.image.shape[:3], 2), np.float16)
  out[1:] = flow(footage[:-1], footage[1:])
  return out


def enlarged_gray(frame: np.ndarray, factor: int) -> np.ndarray:
  """Enlarges the luminance of an RGB frame by cubic interpolation.

  Args:
    frame: [H, W, 3] uint8 RGB.
    factor: 1 or more.

  Returns:
    [factor * H, factor * W] uint8. The pixel (x, y) of the frame is found at
    factor * (x + 0.5) - 0.5, and so for y.
  """
  gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
  if factor == 1:
    return gray
  return cv2.resize(
    gray, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC
  )


def farneback(gray0: np.ndarray, gray1: np.ndarray) -> np.ndarray:
  """Computes flow [H, W, 2] of two [H, W] uint8 by polynomial expansion."""
  return cv2.calcOpticalFlowFarneback(
    gray0,
    gray1,
    None,
    pyr_scale=0.5,
    levels=3,
    # Of 21, 17 and 15 the accuracy of tracks over 25 frames is .413, .410 and
    # .405, that of a box of 9 .405 (7 subjects of benchmarks/perception.py, 28
    # clips); 21 takes an eighth longer than 17.
    winsize=17,
    # Three iterations, as in OpenCV's example, take 1.5 times as long, and
    # tracks are not better: .426 over 25 frames and .552 over 8, against .428
    # and .559 (means of plain scenes, textured ones and an arm; 42 clips).
    iterations=1,
    poly_n=5,
    poly_sigma=1.2,
    flags=cv2.OPTFLOW_FARNEBACK_GAUSSIAN,
  )


def _of_pairs(pair: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> FlowFn:
  """Makes a flow function from one for two frames [H, W, 3]."""

  def flow(start: schema.Footage, end: schema.Footage) -> np.ndarray:
    return np.stack(
      [pair(*p) for p in zip(start.image, end.image, strict=True)]
    )

  return flow


def _dis_estimator() -> cv2.DISOpticalFlow:
  """Makes DIS with every parameter set, most as in the MEDIUM preset."""
  dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
  dis.setFinestScale(1)  # half the enlarged size: the frame's own
  dis.setCoarsestScale(-1)  # by the size
  dis.setPatchSize(8)
  dis.setPatchStride(3)
  # MEDIUM has 25 and 5, which is a third slower and less accurate: .333 px
  # against .314 over all pixels and .641 against .636 on the body (means of 7
  # subjects of benchmarks/perception.py, 28 clips).
  dis.setGradientDescentIterations(6)
  dis.setVariationalRefinementIterations(3)
  dis.setVariationalRefinementAlpha(20.0)
  dis.setVariationalRefinementDelta(5.0)
  dis.setVariationalRefinementGamma(10.0)
  dis.setVariationalRefinementEpsilon(0.01)
  dis.setUseMeanNormalization(True)
  dis.setUseSpatialPropagation(True)
  return dis
