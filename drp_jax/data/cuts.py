"""Hard cuts: where one shot of a video ends and the next begins.

No motion leads across a cut: flow is noise there, and all tracks are lost.
"""

import numpy as np

from drp_jax.data import schema

# What of a frame t and the one before it makes a cut. Chosen on real videos and
# on renders of 22 bodies and of hands, as they are and three times as fast, with
# shaking and sweeping cameras and with flashes, against joins of their shots.
_REACH = (
  3  # frames on each side that are all unlike: a flash is shorter  [ours]
)
_LEVELS = (
  15.0  # mean difference of the pixels, of 255                    [ours]
)
_HISTOGRAMS = (
  0.25  # share of the pixels that changes its colour          [ours]
)
_TIMES = (
  3.0  # as far apart as neighbouring frames are                    [ours]
)
_NOISE = (
  1.0  # levels by which frames differ in which nothing moves       [ours]
)
_CELL = (
  4  # pixels that are averaged, so that small motion counts less    [ours]
)
_BITS = (
  2  # of each channel, for histograms                               [ours]
)


def find_cuts(image: np.ndarray) -> list[int]:
  """Finds the first frames of all shots but the first.

  A cut is where all frames close before it are unlike all close after it, in
  their pixels and in their histograms of colours, and more so than neighbours
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
  cells, histograms = _cells(image), _histograms(image)
  apart = range(1, min(2 * _REACH, N))
  levels = {k: _distances(cells, k) for k in apart}
  colours = {k: _distances(histograms, k) * _share() for k in apart}
  cuts = []
  # Most frames are ruled out by the one before them.
  likely = (levels[1] > _LEVELS) & (colours[1] > _HISTOGRAMS)
  for t in np.flatnonzero(likely) + 1:
    pairs = [
      (before, after - before)
      for before in range(max(0, t - _REACH), t)
      for after in range(t, min(t + _REACH, N))
    ]
    least = min(levels[k][before] for before, k in pairs)
    least_colour = min(colours[k][before] for before, k in pairs)
    # levels[1][t - 1] is the difference at the cut itself.
    near = [levels[1][max(0, t - 1 - _REACH) : t - 1], levels[1][t:][:_REACH]]
    usual = np.median(np.concatenate(near)) if N > 2 else 0.0
    if (
      least > max(_LEVELS, _TIMES * (usual + _NOISE))
      and least_colour > _HISTOGRAMS
    ):
      cuts.append(int(t))
  return cuts


def shots(image: np.ndarray) -> list[tuple[int, int]]:
  """Beginning and end (exclusive) of every shot, [N, 64, 64, 3] uint8 RGB."""
  borders = [0, *find_cuts(image), len(image)]
  return list(zip(borders[:-1], borders[1:], strict=True))


def _cells(image: np.ndarray) -> np.ndarray:
  """Mean colours of cells, [N, cells * 3]."""
  N, side = len(image), schema.IMAGE_SIZE // _CELL
  cells = image.reshape(N, side, _CELL, side, _CELL, 3)
  return cells.mean((2, 4), dtype=np.float32).reshape(N, -1)


def _histograms(image: np.ndarray) -> np.ndarray:
  """Shares of the colours in the pixels of each frame, [N, colours]."""
  colours = np.zeros(image.shape[:3], np.int64)
  for channel in range(3):
    colours = (colours << _BITS) + (image[..., channel] >> (8 - _BITS))
  bins = 2 ** (3 * _BITS)
  counts = [np.bincount(frame.ravel(), minlength=bins) for frame in colours]
  return np.stack(counts).astype(np.float32) / colours[0].size


def _share() -> float:
  """From a mean difference of histograms to the pixels that changed."""
  return 2 ** (3 * _BITS) / 2


def _distances(frames: np.ndarray, apart: int) -> np.ndarray:
  """Mean absolute differences of frames t and t + apart, [N - apart]."""
  return np.abs(frames[apart:] - frames[:-apart]).mean(-1)
