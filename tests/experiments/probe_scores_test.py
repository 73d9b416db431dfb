"""Probes of numbers whose answer is known."""

import numpy as np
import pytest
from sklearn import linear_model, preprocessing

from experiments import probe_scores

_VIDEOS = np.repeat(np.arange(12), 25)


def _steps(seed=0, size=3):
  """[300, size] values of 12 videos, and which of 4 actions each step is."""
  rng = np.random.default_rng(seed)
  values = rng.normal(size=(len(_VIDEOS), size)) * np.arange(1, size + 1)
  return values, (values[:, 0] > 0) + 2 * (values[:, 1] > 0)


def _point(vectors, values, classes):
  found = probe_scores.fit(vectors, values, classes, _VIDEOS)
  weights = probe_scores.draws(12)
  return found.r2(weights)[0], found.accuracy(weights)[0]


def test_what_is_there_is_found():
  values, classes = _steps()
  rng = np.random.default_rng(1)
  mixed = values @ rng.normal(size=(3, 9)) + rng.normal(size=9)
  r2, accuracy = _point(mixed, values, classes)
  assert r2 > 0.999
  assert accuracy > 0.8  # one line for each of four quadrants
  # Of signal and as much noise a half can be told.
  noisy = values + rng.normal(size=values.shape) * np.arange(1, 4)
  r2, _ = _point(noisy, values, classes)
  assert r2 == pytest.approx(0.5, abs=0.06)


def test_what_is_not_there_is_not_found():
  values, classes = _steps()
  noise = np.random.default_rng(2).normal(size=(300, 40))
  r2, accuracy = _point(noise, values, classes)
  assert -0.05 < r2 < 0.02
  assert accuracy < 0.4
  # The step before, by a shift of one entry, is another one.
  r2, _ = _point(np.roll(values, 1, 0), values, classes)
  assert r2 < 0.05


def test_steps_of_a_video_do_not_help_each_other():
  """Vectors that say which video it is, and values that differ by video."""
  rng = np.random.default_rng(3)
  values = rng.normal(size=(12, 2))[_VIDEOS] + 0.1 * rng.normal(size=(300, 2))
  known = rng.normal(size=(12, 30))[_VIDEOS]
  classes = probe_scores.classes_of(values, 4)
  r2, _ = _point(known, values, classes)
  assert r2 < 0.3
  shuffled = probe_scores.fit(
    known, values, classes, np.random.default_rng(4).permutation(_VIDEOS)
  )
  assert shuffled.r2(probe_scores.draws(12))[0] > 0.9  # what it would be


def test_ridge_by_hand():
  """Two standardized inputs without correlation: each shrinks by itself."""
  x = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
  y = 3 + x @ [[2.0], [-1.0]]
  found = probe_scores._ridge(10 * x + 5, y, np.array([[15.0, 5.0]]))
  for strength, ((value,),) in zip(probe_scores.STRENGTHS, found, strict=True):
    assert value == pytest.approx(3 + 2 * 4 / (4 + strength))
  # The same as another implementation.
  rng = np.random.default_rng(7)
  x, y, new = (rng.normal(size=(n, d)) for n, d in ((50, 8), (50, 3), (9, 8)))
  x[:, 5] = 1  # an input that never changes
  found = probe_scores._ridge(x, y, new)
  scaler = preprocessing.StandardScaler().fit(x)
  for strength, ours in zip(probe_scores.STRENGTHS, found, strict=True):
    theirs = linear_model.Ridge(strength).fit(scaler.transform(x), y)
    np.testing.assert_allclose(
      ours, theirs.predict(scaler.transform(new)), atol=1e-6
    )


def test_folds_are_of_whole_videos_and_hold_each_step_once():
  found = list(probe_scores._folds(_VIDEOS, 5))
  tested = np.concatenate([test for _, test in found])
  assert sorted(tested) == list(range(len(_VIDEOS)))
  for train, test in found:
    assert not set(_VIDEOS[train]) & set(_VIDEOS[test])
    assert sorted([*train, *test]) == list(range(len(_VIDEOS)))


def test_scores_by_hand():
  found = probe_scores.Fit(
    error=np.array([[1.0, 0.0], [3.0, 4.0]]),
    spread=np.array([[4.0, 2.0], [4.0, 2.0]]),
    right=np.array([1.0, 3.0]),
    steps=np.array([4.0, 4.0]),
    chance=0.5,
  )
  weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
  np.testing.assert_allclose(
    found.r2(weights), [(0.5 + 0.0) / 2, (0.75 + 1.0) / 2, (0.25 - 1.0) / 2]
  )
  np.testing.assert_allclose(found.accuracy(weights), [0.5, 0.25, 0.75])


def test_intervals_are_of_videos_and_always_the_same():
  weights = probe_scores.draws(12)
  assert (weights[0] == 1).all() and (weights.sum(1) == 12).all()
  assert len(weights) > 1000
  np.testing.assert_array_equal(weights, probe_scores.draws(12))
  scores = weights @ np.arange(12.0) / 12
  point, low, high = probe_scores.interval(scores)
  assert point == 5.5
  error = np.arange(12).std() / 12**0.5  # of a mean of twelve
  assert low == pytest.approx(5.5 - 1.96 * error, abs=0.2)
  assert high == pytest.approx(5.5 + 1.96 * error, abs=0.2)


def test_actions_are_kinds_of_motion():
  """The unit of a joint does not matter."""
  rng = np.random.default_rng(5)
  kinds = rng.integers(0, 4, 200)
  values = np.stack([kinds % 2, kinds // 2], 1) * 2.0
  values += 0.1 * rng.normal(size=values.shape)
  for scale in ([1, 1], [1, 1000]):
    found = probe_scores.classes_of(values * scale, 4)
    pairs = set(zip(kinds.tolist(), found.tolist(), strict=True))
    assert len(pairs) == 4


def test_too_few_videos_are_refused():
  values, classes = _steps()
  with pytest.raises(ValueError, match='at least 5 videos of a body, not 4'):
    probe_scores.fit(values, values, classes, _VIDEOS % 4)
