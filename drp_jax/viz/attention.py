"""Draws the attention of a model to keypoints into a clip."""

import cv2
import matplotlib
import numpy as np

from drp_jax.viz import overlay

_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_RADIUS = 3.0  # pixels, of a keypoint with an even share of the attention
_TOP = 4.0  # times the even share, drawn in the brightest color


def attention_panels(
  image: np.ndarray, points: np.ndarray, weights: np.ndarray, scale: int
) -> np.ndarray:
  """Draws a frame for every block, with discs at the keypoints.

  The area of a disc shows the attention to its keypoint. So does its color,
  from purple over orange to yellow at four times an even share.

  Args:
    image: [T, H, W, 3] uint8.
    points: [T, K, 2], (x, y) pixels; those of entry t lie in frame t-1 and are
      drawn into it.
    weights: [T, L, K], shares of the keypoints in each block.
    scale: factor by which frames are enlarged.

  Returns:
    [T, h, w, 3] uint8, blocks from left to right; entry 0, which has no points,
    is the bare frame.
  """
  T, L, K = weights.shape
  frames = overlay.upscale(image[[0, *range(T - 1)]], scale) // 2 + 48
  share = weights * K
  colors = matplotlib.colormaps['inferno'](0.3 + 0.7 * share / _TOP)
  colors = np.round(255 * colors[..., :3]).astype(int)
  panels = np.repeat(frames[:, None], L, 1)  # [T, L, h, w, 3]
  for t in range(1, T):
    spots = np.round(((points[t] + 0.5) * scale - 0.5) * 2**_SHIFT).astype(int)
    for block in range(L):
      radii = _RADIUS * np.sqrt(share[t, block]) * 2**_SHIFT
      for k in np.argsort(-radii):  # small ones on top
        spot, radius = tuple(spots[k].tolist()), round(float(radii[k]))
        panel, color = panels[t, block], colors[t, block, k].tolist()
        cv2.circle(panel, spot, radius, color, -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(panel, spot, radius, (255,) * 3, 1, cv2.LINE_AA, _SHIFT)
  return np.concatenate(list(np.swapaxes(panels, 0, 1)), 2)
