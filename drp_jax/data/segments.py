"""Draws the steps of episodes that make up the segments of a batch.

There are two rules. If every episode is at least as long as a segment, a
segment lies within one episode: the episode is drawn uniformly, then the start
in it. This is the rule of the paper's lineage, and it applies in its suites.
Otherwise a segment runs across the ends of episodes (see `across_ends`), so
that short episodes and last steps are drawn as often as any other step.
"""

from typing import NamedTuple

import numpy as np


class Piece(NamedTuple):
  """Consecutive steps of one episode.

  Attributes:
    episode: index of the episode.
    offset: first step, counted within the episode.
    length: number of steps.
  """

  episode: int
  offset: int
  length: int


def within_episodes(
  rng: np.random.Generator,
  lengths: np.ndarray,
  count: int,
  length: int,
  prioritize_ends: bool,
) -> list[list[Piece]]:
  """Draws segments that each lie in one episode.

  Args:
    rng: advanced by two draws of `count` numbers.
    lengths: [E] int, steps of each episode, none below `length`.
    count: number of segments.
    length: T, steps of a segment.
    prioritize_ends: draw start = min(U{0..n}, n - T) in an episode of n steps,
      as IPV in Meta-World, so that its end is drawn more often (in about 10 %
      of the draws with n = 501, T = 50). Otherwise the start is uniform.

  Returns:
    One piece for each segment.
  """
  episodes = rng.integers(len(lengths), size=count)
  totals = lengths[episodes]
  last = totals - length
  # Both upper ends are included.
  draws = rng.integers(0, (totals if prioritize_ends else last) + 1)
  starts = np.minimum(draws, last)
  return [
    [Piece(episode, start, length)]
    for episode, start in zip(episodes.tolist(), starts.tolist(), strict=True)
  ]


def across_ends(
  rng: np.random.Generator, lengths: np.ndarray, count: int, length: int
) -> list[list[Piece]]:
  """Draws segments that continue with another episode where one ends.

  The first step is uniform over all stored steps. Whenever an episode ends
  before the segment is full, the next one is drawn uniformly over all episodes,
  with replacement, and begins at its first step. One short episode is therefore
  enough to draw from. Then **every entry of every segment is each of the N
  stored steps with probability exactly 1/N**. Entry t + 1 is step o + 1 > 0 of
  an episode if entry t was its step o (probability 1/N). It is step 0 if entry
  t was the last step of any of the E episodes and this episode was drawn
  (E / N times 1/E).

  A segment holds the end of an episode of n steps with probability about T / n.
  This is the effect of `prioritize_ends` within episodes, so that option does
  not exist here.

  Args:
    rng: advanced by a draw of `count` numbers, and by another draw each time
      that some segments are not full yet.
    lengths: [E] int, steps of each episode.
    count: number of segments.
    length: T, steps of a segment.

  Returns:
    The pieces of each segment, in order; together they have T steps.
  """
  ends = np.cumsum(lengths)
  steps = rng.integers(ends[-1], size=count)
  episodes = np.searchsorted(ends, steps, side='right')
  offsets = steps - (ends - lengths)[episodes]
  segments = [[] for _ in range(count)]
  missing = np.full(count, length)
  rows = np.arange(count)
  while rows.size:
    sizes = np.minimum(lengths[episodes] - offsets, missing[rows])
    pieces = np.stack([episodes, offsets, sizes], -1).tolist()
    for row, piece in zip(rows.tolist(), pieces, strict=True):
      segments[row].append(Piece(*piece))
    missing[rows] -= sizes
    rows = rows[missing[rows] > 0]
    episodes = rng.integers(len(lengths), size=rows.size)
    offsets = np.zeros_like(rows)
  return segments
