"""Tests of the draws of visual factors."""

import dataclasses

import numpy as np

from drp_jax.envs import looks


def values(look):
  return {k: np.asarray(v) for k, v in dataclasses.asdict(look).items()}


def test_a_look_is_a_function_of_its_seed():
  one, same = values(looks.draw(7, 100, 90)), values(looks.draw(7, 100, 90))
  other = values(looks.draw(8, 100, 90))
  for name in one:
    np.testing.assert_array_equal(one[name], same[name])
    assert (one[name] != other[name]).any()


def test_factors_are_independent_streams():
  """More skies to choose from change the sky, and nothing else."""
  few, many = values(looks.draw(7, 100, 90)), values(looks.draw(7, 9999, 90))
  changed = {name for name in few if (few[name] != many[name]).any()}
  assert changed == {'sky'}


def test_ranges():
  drawn = [values(looks.draw(seed, 5, 3)) for seed in range(1, 400)]
  stack = {name: np.stack([look[name] for look in drawn]) for name in drawn[0]}
  assert set(stack['sky']) == set(range(5))
  assert set(stack['floor']) == set(range(3))
  ranges = {
    'reflectance': (0, 0.5),
    'ambient': (0.05, 0.85),
    'diffuse': (0.3, 1.0),
    'specular': (0.03, 0.32),
  }
  for name, (low, high) in ranges.items():
    width = high - low
    assert low <= stack[name].min() < low + 0.2 * width
    assert high - 0.2 * width < stack[name].max() <= high
  for name in ('body', 'effector', 'target'):
    assert stack[name][:, :3].min() < 0.05 and stack[name].max() <= 1
    assert stack[name][:, 3].min() >= 0.75
