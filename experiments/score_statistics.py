"""Scores of few seeds: interquartile means, intervals, improvement.

These are the measures and the stratified bootstrap of Agarwal et al. (2021,
Deep RL at the edge of the statistical precipice). Intervals are 95 % percentile
intervals of a bootstrap that draws seeds within each task. It has a fixed seed,
so they are the same at every call. The interquartile mean of fewer than four
scores is their mean.
"""

import numpy as np

Interval = tuple[float, float, float]  # point, lower end, upper end

_REPS = 5_000
_PERCENTILES = (2.5, 97.5)
_SEED = 0


def iqm(scores: np.ndarray) -> Interval:
  """Computes the interquartile mean over seeds and tasks.

  Args:
    scores: [runs, tasks].
  """
  point, low, high = iqm_curve(scores[..., None])[0]
  return float(point), float(low), float(high)


def iqm_curve(scores: np.ndarray) -> np.ndarray:
  """Computes interquartile means along a curve.

  Args:
    scores: [runs, tasks, n]. A run is drawn with all its steps.

  Returns:
    [n, 3]: point, lower end, upper end.
  """
  drawn = _resample(scores, np.random.default_rng(_SEED))
  ends = np.percentile(_iqm(drawn), _PERCENTILES, 0)
  return np.stack([_iqm(scores[None])[0], *ends], -1)


def improvement(ours: np.ndarray, other: np.ndarray) -> Interval:
  """Computes the chance that a run of ours beats another, mean over tasks.

  Equal scores count half.

  Args:
    ours: [runs, tasks].
    other: [other runs, tasks].
  """
  rng = np.random.default_rng(_SEED)
  drawn = _chance(_resample(ours, rng), _resample(other, rng))
  low, high = np.percentile(drawn, _PERCENTILES)
  return float(_chance(ours[None], other[None])[0]), float(low), float(high)


def _resample(scores: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """Resamples runs, in every task separately: [_REPS, runs, tasks, ...]."""
  runs, tasks = scores.shape[:2]
  chosen = rng.integers(runs, size=(_REPS, runs, tasks))
  return scores[chosen, np.arange(tasks)]


def _iqm(scores: np.ndarray) -> np.ndarray:
  """Averages [reps, runs, tasks, n] without the outer quarters: [reps, n]."""
  reps, runs, tasks, n = scores.shape
  ordered = np.sort(scores.reshape(reps, runs * tasks, n), 1)
  cut = runs * tasks // 4
  return ordered[:, cut : runs * tasks - cut].mean(1)


def _chance(ours: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Compares [reps, runs, tasks] with [reps, other runs, tasks]: [reps]."""
  difference = ours[:, :, None] - other[:, None]  # [reps, runs, others, tasks]
  return (np.sign(difference) / 2 + 0.5).mean((1, 2, 3))
