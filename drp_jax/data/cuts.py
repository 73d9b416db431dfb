"""Hard cuts: where one shot of a video ends and the next begins.

No motion leads across a cut: flow is noise there, and all tracks are lost.
"""

import numpy as np

from drp_jax.data import schema

DESCRIPTION = 'clips end at hard cuts'  # in a plan, which older rules lack

# Chosen on real videos, on renders of 22 bodies and of hands, all of them also
# three times as fast, with shaking and sweeping cameras and with flashes, and
# on joins of their shots.                                        [ours]
_REACH = 3  # frames on each side that are all unlike; a flash is shorter
_LEVELS = 15.0  # mean difference, of 255
_COLORS = 0.25  # share of the pixels that changes its color
_TIMES = 3.0  # as far apart as neighbors within shots are
_NOISE = 1.0  # levels by which neighbors differ where nothing moves
_CELL = 4  # pixels that are averaged, so that small motion counts less
_BITS = 2  # of each channel that tell colors apart


def find_cuts(image: np.ndarray) -> list[int]:
  """Finds the first frames of all shots but the first.

  A cut is where all frames close before it are unlike all close after it, in
  their pixels and in their histograms of colors, and more so than neighbors
  within the shots are. So moving cameras, fast motion and flashes are none. A
  light that is switched is one; a fade is none.

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
  """Mean colors of cells, [N, cells * 3]."""
  N, side = len(image), schema.IMAGE_SIZE // _CELL
  cells = image.reshape(N, side, _CELL, side, _CELL, 3)
  return cells.mean((2, 4), dtype=np.float32).reshape(N, -1)


def _histograms(image: np.ndarray) -> np.ndarray:
  """Shares of the colors in the pixels of each frame, [N, colors]."""
  colors = np.zeros(image.shape[:3], np.uint8)
  for channel in range(3):
    colors = (colors << _BITS) + (image[..., channel] >> (8 - _BITS))
  bins = 2 ** (3 * _BITS)
  counts = [np.bincount(frame.ravel(), minlength=bins) for frame in colors]
  return np.stack(counts).astype(np.float32) / colors[0].size
