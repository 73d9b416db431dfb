"""Draws the results of extraction into a clip: mask, tracks, flow, patches.

Arrays follow `drp_jax/types.py`: entry t led to frame t, and points[t] lie in
frame t-1. A point (x, y) of the stored image has its pixel's center at whole
numbers. In a picture `scale` times as large it therefore lies at
((x + 0.5) * scale - 0.5, ...), where `cv2.resize` puts it too.
"""

import math

import cv2
import matplotlib
import numpy as np
from matplotlib import colors

MASK_COLOR = (255, 194, 10)  # amber, distinct from most skin, cloth and tables
_LOST_COLOR = (225, 225, 225)
_TAIL = 8  # frames a track's tail goes back
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_GUTTER = 4  # pixels between the panels
_BACKGROUND = 24  # gray level of gutters


def clip_panels(
  image: np.ndarray,
  flow: np.ndarray,
  points: np.ndarray,
  visible: np.ndarray,
  mask: np.ndarray,
  patches: np.ndarray,
  scale: int = 4,
) -> np.ndarray:
  """Draws frame | mask and tracks | flow and windows | patches, side by side.

  Args:
    image: [T, H, W, 3] uint8.
    flow: [T, H, W, 2], pixels per frame.
    points: [T, K, 2], (x, y) pixels.
    visible: [T, K] bool.
    mask: [H, W] bool, foreground of frame 0: filled there, outlined later.
    patches: [T, K, P, P, 2], crops of `flow` at `points`, pixels per frame.
    scale: factor by which frames are enlarged.

  Returns:
    [T, h, w, 3] uint8.

  Raises:
    ValueError: if T, K, H or W disagree.
  """
  T, H, W, _ = image.shape
  K = points.shape[1]
  P = patches.shape[-2]
  expected = {
    'flow': (flow, (T, H, W, 2)),
    'points': (points, (T, K, 2)),
    'visible': (visible, (T, K)),
    'mask': (mask, (H, W)),
    'patches': (patches, (T, K, P, P, 2)),
  }
  for name, (array, shape) in expected.items():
    if array.shape != shape:
      raise ValueError(
        f'{name} has shape {list(array.shape)}, expected {list(shape)}.'
      )
  top = top_speed(flow)
  frames = upscale(image, scale)
  tracked, alive = points_in_frames(points, visible, flow)
  colored = np.stack(
    [cv2.resize(f, frames.shape[2:0:-1]) for f in flow_colors(flow, top)]
  )
  colored = draw_windows(colored, points, P, scale)
  panels = [
    frames,
    draw_tracks(draw_mask(frames, mask, scale), tracked, alive, scale),
    _with_wheel(colored),
    patch_grid(flow_colors(patches, top), *frames.shape[1:3]),
  ]
  gutter = np.full_like(frames[:, :, :_GUTTER], _BACKGROUND)
  return np.concatenate(
    [part for panel in panels for part in (panel, gutter)][:-1], axis=2
  )


def upscale(image: np.ndarray, scale: int) -> np.ndarray:
  """Enlarges [T, H, W, 3] uint8 frames smoothly, `scale` times."""
  size = (image.shape[2] * scale, image.shape[1] * scale)
  return np.stack(
    [cv2.resize(f, size, interpolation=cv2.INTER_CUBIC) for f in image]
  )


def top_speed(flow: np.ndarray) -> float:
  """Returns the speed drawn in full color: the 99th percentile, at least 0.5.

  The minimum of half a pixel per frame keeps the noise of a still clip pale.
  """
  speed = np.linalg.norm(flow.astype(np.float32), axis=-1)
  return max(0.5, float(np.percentile(speed, 99)))


def flow_colors(flow: np.ndarray, top: float) -> np.ndarray:
  """Colors flow: hue is direction, saturation speed, white no motion.

  Right is red, down yellow-green, left cyan, up violet.

  Args:
    flow: [..., 2], pixels per frame, (x, y).
    top: pixels per frame; this speed and more is fully saturated.

  Returns:
    [..., 3] uint8.
  """
  x, y = np.moveaxis(flow.astype(np.float32), -1, 0)
  hue = (np.arctan2(y, x) / (2 * np.pi)) % 1.0
  saturation = np.clip(np.hypot(x, y) / top, 0.0, 1.0)
  hsv = np.stack([hue, saturation, np.ones_like(hue)], -1)
  return np.round(255 * colors.hsv_to_rgb(hsv)).astype(np.uint8)


def points_in_frames(
  points: np.ndarray, visible: np.ndarray, flow: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Computes the keypoints in each frame, rather than in the frame before.

  Those of the last frame are the last points moved by the last flow.

  Args:
    points: [T, K, 2], (x, y) pixels.
    visible: [T, K] bool.
    flow: [T, H, W, 2], pixels per frame.

  Returns:
    Positions [T, K, 2] float32; [T, K] bool, whether the track is not lost.
  """
  last = points[-1].astype(np.float32)
  motion = cv2.remap(  # bilinear
    flow[-1].astype(np.float32),
    last[:, None, 0],
    last[:, None, 1],
    cv2.INTER_LINEAR,
    borderMode=cv2.BORDER_REPLICATE,
  )[:, 0]  # [K, 2]
  positions = np.concatenate([points[1:], (last + motion)[None]])
  return positions, np.concatenate([visible[1:], visible[-1:]])


def draw_mask(frames: np.ndarray, mask: np.ndarray, scale: int) -> np.ndarray:
  """Fills the mask in frame 0, and draws its outline in the later frames."""
  size = (mask.shape[1] * scale, mask.shape[0] * scale)
  large = cv2.resize(
    mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST
  )
  outline, _ = cv2.findContours(large, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
  drawn = frames.copy()
  inside = large.astype(bool)
  tint = 0.55 * frames[0][inside] + 0.45 * np.array(MASK_COLOR)
  drawn[0][inside] = tint.astype(np.uint8)
  for frame in drawn:
    cv2.drawContours(frame, outline, -1, MASK_COLOR, 1, cv2.LINE_AA)
  return drawn


def draw_tracks(
  frames: np.ndarray, positions: np.ndarray, alive: np.ndarray, scale: int
) -> np.ndarray:
  """Draws keypoints with fading tails, and lost keypoints as gray rings.

  Args:
    frames: [T, h, w, 3] uint8, `scale` times the stored image.
    positions: [T, K, 2], (x, y) pixels of the stored image, in frame t.
    alive: [T, K] bool.
    scale: as above.

  Returns:
    [T, h, w, 3] uint8.
  """
  drawn = frames.copy()
  palette = _palette(positions.shape[1])
  spots = _enlarged(positions, scale)
  for t, frame in enumerate(drawn):
    for age in range(min(_TAIL, t), 0, -1):  # oldest piece first, at the bottom
      layer = frame.copy()
      pieces = zip(spots[t - age], spots[t - age + 1], alive[t], strict=True)
      for k, (start, end, lives) in enumerate(pieces):
        if lives:
          cv2.line(layer, start, end, palette[k], 2, cv2.LINE_AA, _SHIFT)
      opacity = 1 - age / (_TAIL + 1)
      cv2.addWeighted(layer, opacity, frame, 1 - opacity, 0, dst=frame)
    for k, spot in enumerate(spots[t]):
      radius = 3 << _SHIFT
      if alive[t, k]:
        cv2.circle(frame, spot, radius, palette[k], -1, cv2.LINE_AA, _SHIFT)
        cv2.circle(frame, spot, radius, (0, 0, 0), 1, cv2.LINE_AA, _SHIFT)
      else:
        cv2.circle(frame, spot, radius, _LOST_COLOR, 1, cv2.LINE_AA, _SHIFT)
  return drawn


def draw_windows(
  frames: np.ndarray, points: np.ndarray, patch_size: int, scale: int
) -> np.ndarray:
  """Outlines the P x P windows that the patches of entry t >= 1 are cut from.

  Args:
    frames: [T, h, w, 3] uint8, flow colors, `scale` times the stored field.
    points: [T, K, 2], (x, y) pixels; the window is [c - P/2, c + P/2) around
      the nearest pixel c (A5).
    patch_size: P.
    scale: as above.
  """
  drawn = frames.copy()
  palette = _palette(points.shape[1])
  corner = np.floor(points + 0.5) - patch_size // 2 - 0.5
  first = _enlarged(corner, scale)
  last = _enlarged(corner + patch_size, scale)
  for t in range(1, len(drawn)):
    for k, color in enumerate(palette):
      cv2.rectangle(
        drawn[t], first[t][k], last[t][k], color, 1, cv2.LINE_AA, _SHIFT
      )
  return drawn


def patch_grid(patches: np.ndarray, height: int, width: int) -> np.ndarray:
  """Arranges K colored patches in a square, framed in their track's color.

  Args:
    patches: [T, K, P, P, 3] uint8.
    height: height of the result, pixels.
    width: width of the result, pixels.

  Returns:
    [T, height, width, 3] uint8; the remaining area is gray.
  """
  T, K = patches.shape[:2]
  side = math.ceil(math.sqrt(K))
  cell = min(height, width) // side
  grid = np.full([T, height, width, 3], _BACKGROUND, np.uint8)
  for k, color in enumerate(_palette(K)):
    y, x = (k // side) * cell, (k % side) * cell
    grid[:, y : y + cell - 1, x : x + cell - 1] = color
    for t in range(T):
      grid[t, y + 2 : y + cell - 3, x + 2 : x + cell - 3] = cv2.resize(
        patches[t, k], (cell - 5, cell - 5), interpolation=cv2.INTER_NEAREST
      )
  return grid


def _palette(num: int) -> list[tuple[int, int, int]]:
  """Returns one color per keypoint, as distinct as a perceptual map allows."""
  rgb = matplotlib.colormaps['turbo'](np.linspace(0.05, 0.95, num))[:, :3]
  return [(int(r), int(g), int(b)) for r, g, b in np.round(255 * rgb)]


def _enlarged(points: np.ndarray, scale: int) -> list[list[tuple[int, int]]]:
  """Converts [T, K, 2] pixels of the stored image to OpenCV's fixed point."""
  fixed = np.round(((points + 0.5) * scale - 0.5) * (1 << _SHIFT))
  return [[(int(x), int(y)) for x, y in row] for row in fixed]


def _with_wheel(frames: np.ndarray) -> np.ndarray:
  """Puts the key to the flow colors into the lower right corner."""
  radius = max(8, frames.shape[1] // 14)
  y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
  wheel = flow_colors(np.stack([x, y], -1), float(radius))
  distance = np.hypot(x, y)[..., None]
  frames = frames.copy()
  corner = frames[:, -2 * radius - 5 : -4, -2 * radius - 5 : -4]
  corner[:] = np.where(distance <= radius, wheel, corner)
  edge = (distance > radius - 1) & (distance <= radius)
  corner[:] = np.where(edge, np.uint8(90), corner)
  return frames
