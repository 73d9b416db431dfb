"""Compares our measures of few seeds with those of scipy.stats."""

import numpy as np
import pytest
import scipy.stats

from experiments import score_statistics


def _scores(runs, tasks, seed):
  return np.random.default_rng(seed).gamma(2.0, size=(runs, tasks))


@pytest.mark.parametrize(('runs', 'tasks'), [(3, 1), (5, 1), (4, 3), (10, 2)])
def test_the_interquartile_mean_is_a_trimmed_mean(runs, tasks):
  scores = _scores(runs, tasks, seed=runs)
  point, low, high = score_statistics.iqm(scores)
  assert point == pytest.approx(scipy.stats.trim_mean(scores.ravel(), 0.25))
  assert low < point < high


def test_the_interval_of_one_task_is_that_of_a_percentile_bootstrap():
  scores = _scores(20, 1, seed=0)
  _, *ends = score_statistics.iqm(scores)
  expected = scipy.stats.bootstrap(
    (scores[:, 0],),
    lambda x, axis: scipy.stats.trim_mean(x, 0.25, axis),
    n_resamples=5_000,
    method='percentile',
    vectorized=True,
    rng=np.random.default_rng(1),
  ).confidence_interval
  width = expected.high - expected.low
  np.testing.assert_allclose(ends, expected, atol=0.05 * width)


def test_the_chance_of_improvement_is_that_of_mann_and_whitney():
  ours, other = _scores(6, 2, seed=2), _scores(5, 2, seed=3) - 0.2
  ours[0], other[0] = 1.0, 1.0  # a tie
  point, low, high = score_statistics.improvement(ours, other)
  u = scipy.stats.mannwhitneyu(ours, other, axis=0).statistic
  assert point == pytest.approx((u / (6 * 5)).mean())
  assert low < point < high
