"""Scores of probes: how well vectors predict motion on held-out videos.

A probe is ridge regression. Its folds consist of whole videos, and so do the
inner folds that choose its strength, because neighboring steps are similar and
steps of one video must not help each other. Intervals are 95 % percentile
intervals of a bootstrap over videos with a fixed seed, so they are the same at
every call.
"""

import dataclasses
from collections.abc import Iterator

import numpy as np

FOLDS = 5
INNER_FOLDS = 4
STRENGTHS = tuple(10.0**exponent for exponent in range(-1, 6))
_REPS = 2_000
_PERCENTILES = (2.5, 97.5)


@dataclasses.dataclass(frozen=True)
class Fit:
  """Errors of a probe on M held-out videos, summed by video.

  Attributes:
    error: [M, V] squared errors.
    spread: [M, V] squared errors of the mean of the training steps.
    right: [M] number of steps with the right class.
    steps: [M] number of steps.
    chance: share of the most frequent class in all steps.
  """

  error: np.ndarray
  spread: np.ndarray
  right: np.ndarray
  steps: np.ndarray
  chance: float

  def r2(self, weights: np.ndarray) -> np.ndarray:
    """Computes R2, mean over the predicted values.

    Args:
      weights: [S, M], how often each video counts, from `draws`.

    Returns:
      [S]. 1 is perfect, and 0 is as good as the mean of the training steps.
    """
    error, spread = weights @ self.error, weights @ self.spread
    with np.errstate(divide='ignore', invalid='ignore'):
      found = np.where(spread > 0, 1 - error / spread, np.nan)
    return np.nanmean(found, 1)

  def accuracy(self, weights: np.ndarray) -> np.ndarray:
    """Computes the share of steps with the right class, [S]."""
    return weights @ self.right / (weights @ self.steps)


def fit(
  vectors: np.ndarray,
  values: np.ndarray,
  classes: np.ndarray,
  videos: np.ndarray,
) -> Fit:
  """Fits and tests both probes of one representation.

  Args:
    vectors: [N, D], a representation of N steps.
    values: [N, V], values to predict.
    classes: [N] int from 0, class of the action of each step.
    videos: [N] int from 0, the video of each step.

  Returns:
    The sums over each video.

  Raises:
    ValueError: if there are fewer videos than folds.
  """
  num_videos = int(videos.max()) + 1
  if num_videos < FOLDS:
    raise ValueError(
      f'A probe needs at least {FOLDS} videos of a body, not {num_videos}.'
    )
  scaled = values / values.std(0)
  predicted, mean = _held_out(vectors, scaled, videos)
  # A linear classifier: one output for each class, the largest wins.
  named, _ = _held_out(vectors, np.eye(classes.max() + 1)[classes], videos)

  def by_video(x: np.ndarray) -> np.ndarray:
    sums = np.zeros((num_videos, *x.shape[1:]))
    np.add.at(sums, videos, x)
    return sums

  return Fit(
    error=by_video((predicted - scaled) ** 2),
    spread=by_video((mean - scaled) ** 2),
    right=by_video((named.argmax(1) == classes).astype(float)),
    steps=by_video(np.ones(len(videos))),
    chance=round(float(np.bincount(classes).max() / len(classes)), 4),
  )


def classes_of(values: np.ndarray, count: int) -> np.ndarray:
  """Clusters the values of a body into `count` actions by k-means.

  Shafiullah et al. (2022, Behavior Transformers) do so with the continuous
  actions of robots.

  Args:
    values: [N, V], of one body; all V vary.
    count: number of actions; fewer if there are fewer different values.

  Returns:
    [N] int in [0, count).
  """
  from sklearn import cluster

  count = min(count, len(np.unique(values, axis=0)))
  means = cluster.KMeans(count, n_init=10, random_state=0)
  return means.fit_predict((values - values.mean(0)) / values.std(0))


def draws(num_videos: int) -> np.ndarray:
  """Resamples videos: [1 + S, M], how often each counts.

  The first row counts each video once and gives the point estimate; the others
  give the interval. They are the same for all representations, so differences
  of scores are paired.
  """
  rng = np.random.default_rng(0)
  drawn = rng.multinomial(
    num_videos, np.full(num_videos, 1 / num_videos), _REPS
  )
  return np.concatenate([np.ones((1, num_videos)), drawn])


def interval(scores: np.ndarray) -> list[float]:
  """Returns point, lower and upper end of scores [1 + S] over `draws`."""
  ends = np.percentile(scores[1:], _PERCENTILES)
  return [round(float(x), 4) for x in (scores[0], *ends)]


def _held_out(
  x: np.ndarray, y: np.ndarray, videos: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Predicts each fold from the others: [N, V], and their means [N, V]."""
  predicted, mean = np.empty_like(y), np.empty_like(y)
  for train, test in _folds(videos, FOLDS):
    errors = np.zeros(len(STRENGTHS))
    for inner, left in _folds(videos[train], INNER_FOLDS):
      inner, left = train[inner], train[left]
      wrong = _ridge(x[inner], y[inner], x[left]) - y[left]
      errors += (wrong**2).sum((1, 2))
    predicted[test] = _ridge(x[train], y[train], x[test])[errors.argmin()]
    mean[test] = y[train].mean(0)
  return predicted, mean


def _folds(
  videos: np.ndarray, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields the steps to train on and to test with; videos stay whole."""
  shuffled = np.random.default_rng(0).permutation(np.unique(videos))
  for held_out in np.array_split(shuffled, count):
    test = np.isin(videos, held_out)
    yield np.flatnonzero(~test), np.flatnonzero(test)


def _ridge(x: np.ndarray, y: np.ndarray, x_new: np.ndarray) -> np.ndarray:
  """Fits (x, y) with every one of STRENGTHS and predicts: [S, N, V].

  It uses the closed form, in which one decomposition serves all strengths.
  Inputs are standardized, so a strength means the same for all representations.
  """
  middle, scale = x.mean(0), x.std(0)
  scale = np.where(scale > 0, scale, 1)
  x, x_new = (x - middle) / scale, (x_new - middle) / scale
  squares, basis = np.linalg.eigh(x.T @ x)
  along = basis.T @ (x.T @ (y - y.mean(0)))  # [D, V]
  shrunk = along / (squares + np.array(STRENGTHS)[:, None])[..., None]
  return x_new @ basis @ shrunk + y.mean(0)
