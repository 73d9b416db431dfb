"""The mask of the foreground, which moves by itself (M_1 of Sec. 4.2.1).

A mask back-end is a function `mask(footage)` of n >= 2 frames that returns the
bool mask [H, W] of the first frame. With n = 2 it is the causal form for
acting: the mask of frame t-1 from frames t-1 and t (A15).
"""

from collections.abc import Callable

import cv2
import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import flow as flow_lib

MaskFn = Callable[[schema.Footage], np.ndarray]

_GAPS = (1, 2, 4)  # frames; slow parts are visible over the longer gaps
_BORDER = 4  # pixels along the frame that count as background
# Colors of the background. Against 4 and all parts, 8 and the largest parts
# raise the share of keypoints on the body from .74 to .90 in the looks of DMC
# Remastered (42 MuJoCo clips); plain scenes stay at 1.00, and Meta-World's arm,
# which reaches the border, goes from .95 to .91. benchmarks/perception.py.
_CLUSTERS = 8
_PART = 0.5  # share of the largest part's score; parts with less are dropped
_SURE = (
  0.15  # upper part of the scores above the threshold: certainly foreground
)
_MIN_AREA, _MAX_AREA = 0.003, 0.6  # share of the image of a plausible mask
_FASTEST = 0.2  # share of the pixels in the mask if a model finds nothing (A10)
_MIN_SPEED = 0.1  # pixels per frame; less is noise of the flow
_MIN_CONTRAST = 5.0  # Lab units; less is noise of the camera


def make_motion_color(flow: flow_lib.FlowFn) -> MaskFn:
  """Makes the default back-end: motion and color that stand out (A10, A16).

  Motion alone fails if floor, shadow and reflection move too. Color alone fails
  on textured backgrounds. sqrt(motion) * color, times a soft center prior,
  initializes GrabCut. Of six such products it is among the most precise (45
  MuJoCo clips, a third with the scene's own background, the others with a
  textured one). Of the parts that GrabCut finds, those that stand out most are
  kept. If they cover almost nothing or most of the image, the mask is the whole
  frame.

  Args:
    flow: a flow back-end.

  Returns:
    A mask function, which depends on its frames only.
  """

  def mask(footage: schema.Footage) -> np.ndarray:
    # k-means, also within GrabCut, draws from OpenCV's generator of the thread.
    cv2.setRNGSeed(0)
    frame = footage.image[0]
    score = np.sqrt(_motion(footage, flow)) * _color(frame)
    score = score * _center_prior(*score.shape)
    found = _main_parts(_grab_cut(frame, score), score)
    if _MIN_AREA <= found.mean() <= _MAX_AREA:
      return found
    return np.ones_like(found)

  return mask


def found_or_fastest(
  found: np.ndarray, footage: schema.Footage, flow: flow_lib.FlowFn
) -> np.ndarray:
  """Returns a model's mask or, if it is almost empty, the fastest pixels (A10).

  These are the fastest fifth of the pixels from the first frame to the second,
  or the whole frame if hardly any pixel moves.

  Args:
    found: [H, W] bool, the model's mask.
    footage: n >= 2 frames.
    flow: a flow back-end.

  Returns:
    [H, W] bool, not empty.
  """
  if found.mean() >= _MIN_AREA:
    return found
  speed = np.linalg.norm(flow(footage[:1], footage[1:2])[0], axis=-1)
  fastest = speed > max(np.quantile(speed, 1 - _FASTEST), _MIN_SPEED)
  return fastest if fastest.mean() >= _MIN_AREA else np.ones_like(found)


def _motion(footage: schema.Footage, flow: flow_lib.FlowFn) -> np.ndarray:
  """Computes speed without the camera's motion, [H, W] in [0, 1]."""
  gaps = [gap for gap in _GAPS if gap < len(footage)]
  motions = flow(footage[[0] * len(gaps)], footage[gaps])
  speeds = [
    np.linalg.norm(motion - _camera_motion(motion), axis=-1) / gap
    for motion, gap in zip(motions, gaps, strict=True)
  ]
  return _to_unit(np.max(speeds, axis=0), _MIN_SPEED)


def _camera_motion(motion: np.ndarray) -> np.ndarray:
  """Fits the affine field that most of a flow agrees with, both [H, W, 2]."""
  height, width = motion.shape[:2]
  y, x = np.mgrid[:height, :width] / max(height, width)
  inputs = np.stack([x, y, np.ones_like(x)], -1).reshape(-1, 3)
  targets = motion.reshape(-1, 2).astype(np.float64)
  weights = np.ones(len(inputs))
  for _ in range(5):  # reweighted least squares, robust to outliers
    weighted = inputs * weights[:, None]
    affine = np.linalg.solve(weighted.T @ inputs, weighted.T @ targets)
    error = np.linalg.norm(targets - inputs @ affine, axis=-1)
    scale = max(1.5 * np.median(error), 0.05)
    weights = 1 / (1 + (error / scale) ** 2) ** 2
  return (inputs @ affine).reshape(motion.shape)


def _color(frame: np.ndarray) -> np.ndarray:
  """Computes the distance to the border's colors, [H, W] in [0, 1]."""
  lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32)
  border = np.ones(lab.shape[:2], bool)
  border[_BORDER:-_BORDER, _BORDER:-_BORDER] = False
  stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 10, 1.0)
  _, _, centers = cv2.kmeans(
    lab[border], _CLUSTERS, None, stop, 1, cv2.KMEANS_PP_CENTERS
  )
  distance = np.linalg.norm(lab[..., None, :] - centers, axis=-1)
  return _to_unit(distance.min(-1), _MIN_CONTRAST)


def _center_prior(height: int, width: int) -> np.ndarray:
  """Returns a soft preference for the center, [H, W] in [0.4, 1]."""
  y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
  return 0.4 + 0.6 * np.exp(-(x**2 + y**2) / (2 * 0.6**2))


def _grab_cut(frame: np.ndarray, score: np.ndarray) -> np.ndarray:
  """Refines a score [H, W] in [0, 1] to a bool mask along color edges."""
  levels = np.uint8(255 * _to_unit(score, 1e-6))
  threshold, _ = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
  labels = np.full(levels.shape, cv2.GC_PR_BGD, np.uint8)
  labels[levels > threshold] = cv2.GC_PR_FGD
  labels[levels < 0.2 * threshold] = cv2.GC_BGD
  # Without some certain foreground GrabCut collapses on textured backgrounds:
  # IoU is 0.15 without and 0.5 with it. On plain MuJoCo scenes it is 0.88 in
  # both cases.
  labels[levels > 255 - _SURE * (255 - threshold)] = cv2.GC_FGD
  if not np.any(labels == cv2.GC_PR_FGD):
    return np.zeros(levels.shape, bool)
  cv2.grabCut(
    np.ascontiguousarray(frame[..., ::-1]),
    labels,
    None,
    np.zeros((1, 65)),
    np.zeros((1, 65)),
    2,
    cv2.GC_INIT_WITH_MASK,
  )
  return (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)


def _main_parts(found: np.ndarray, score: np.ndarray) -> np.ndarray:
  """Drops connected parts [H, W] bool with a low sum of scores [H, W]."""
  count, part = cv2.connectedComponents(found.astype(np.uint8), connectivity=8)
  sums = np.bincount(part.ravel(), (score * found).ravel(), minlength=count)
  return found & (sums >= _PART * sums.max())[part]


def _to_unit(values: np.ndarray, least: float) -> np.ndarray:
  """Scales values >= 0 to [0, 1] by their 99th percentile; 0 if it is noise."""
  top = np.percentile(values, 99)
  if top < least:
    return np.zeros_like(values)
  return np.clip(values / top, 0, 1)
