"""Hard cuts: where one shot of a video ends and the next begins.

No motion crosses a cut: flow is noise there, and all tracks are lost.
"""

import numpy as np

from drp_jax.data import schema

DESCRIPTION = 'clips end at hard cuts'  # in plans; older plans lack it

# Chosen on real videos, on renders of 22 bodies and of hands, all of them also
# three times as fast, with shaking and sweeping cameras and with flashes, and
# on joins of their shots.                                        [ours]
_REACH = 3  # frames on each side that all differ; a flash is shorter
_LEVELS = 15.0  # mean difference, gray levels of 255
_COLORS = 0.25  # share of the pixels whose color changes
_TIMES = 3.0  # times the difference of neighbors within shots
_NOISE = 1.0  # levels by which neighbors differ if nothing moves
_CELL = 4  # pixels, side of cells; their means count small motion less
_BITS = 2  # bits of each channel in a histogram of colors


def find_cuts(image: np.ndarray) -> list[int]:
  """Finds the first frames of all shots except the first.

  At a cut all frames shortly before differ from all frames shortly after, in
  pixels and in histograms of colors, and they differ more than neighbors within
  the shots. Moving cameras, fast motion, flashes and fades are therefore not
  cuts. A light that is switched counts as a cut.

  Args:
    image: [N, 64, 64, 3] uint8 RGB.

  Returns:
    Numbers of frames in ascending order, each in 1..N-1.
  """
  N = len(image)
  if N < 2:
    return []
  cells, colors = _cells(image), _histograms(image)
  apart = range(1, min(2 * _REACH, N))
  # Entry t of number k: between frames t and t + k.
  levels = {k: np.abs(cells[k:] - cells[:-k]).mean(-1) for k in apart}
  shares = {k: np.abs(colors[k:] - colors[:-k]).sum(-1) / 2 for k in apart}
  cuts = []
  likely = (levels[1] > _LEVELS) & (shares[1] > _COLORS)
  for t in np.flatnonzero(likely).tolist():  # between t and t + 1
    across = [
      (before, after - before)
      for before in range(max(0, t + 1 - _REACH), t + 1)
      for after in range(t + 1, min(t + 1 + _REACH, N))
    ]
    near = np.r_[levels[1][max(0, t - _REACH) : t], levels[1][t + 1 :][:_REACH]]
    usual = _NOISE + (np.median(near) if len(near) else 0.0)
    if (
      min(levels[k][before] for before, k in across)
      > max(_LEVELS, _TIMES * usual)
    ) and min(shares[k][before] for before, k in across) > _COLORS:
      cuts.append(t + 1)
  return cuts


def _cells(image: np.ndarray) -> np.ndarray:
  """Returns mean colors of cells, [N, cells * 3]."""
  N, side = len(image), schema.IMAGE_SIZE // _CELL
  cells = image.reshape(N, side, _CELL, side, _CELL, 3)
  return cells.mean((2, 4), dtype=np.float32).reshape(N, -1)


def _histograms(image: np.ndarray) -> np.ndarray:
  """Returns the share of each color in each frame, [N, colors]."""
  colors = np.zeros(image.shape[:3], np.uint8)
  for channel in range(3):
    colors = (colors << _BITS) + (image[..., channel] >> (8 - _BITS))
  bins = 2 ** (3 * _BITS)
  counts = [np.bincount(frame.ravel(), minlength=bins) for frame in colors]
  return np.stack(counts).astype(np.float32) / colors[0].size
