"""Tests of the draws of visual factors."""

import dataclasses

import numpy as np
import pytest

from drp_jax.envs import looks


def values(look):
  return {k: np.asarray(v) for k, v in dataclasses.asdict(look).items()}


def stacked(domain, count=400):
  """[count, ...] of every attribute."""
  drawn = [values(looks.draw(s, domain, 5, 3)) for s in range(1, count)]
  return {name: np.stack([look[name] for look in drawn]) for name in drawn[0]}


def test_a_look_is_a_function_of_its_seed():
  one, same = (values(looks.draw(7, 'finger', 100, 90)) for _ in range(2))
  other = values(looks.draw(8, 'finger', 100, 90))
  for name in one:
    np.testing.assert_array_equal(one[name], same[name])
    assert (one[name] != other[name]).any() or name == 'camera_euler'


def test_factors_are_independent_streams():
  """More skies to choose from change the sky, and nothing else."""
  few = values(looks.draw(7, 'finger', 100, 90))
  many = values(looks.draw(7, 'finger', 9999, 90))
  changed = {name for name in few if (few[name] != many[name]).any()}
  assert changed == {'sky'}


def test_the_streams_of_a_seed_stay():
  """Scenes of runs that are done: a change of these numbers loses them."""
  look = looks.draw(1, 'cheetah', 119, 383)
  assert (look.sky, look.floor, look.shadow_size) == (56, 198, 2175)
  camera, light = (
    (-0.177937, -2.834153, 0.153405),
    (1.317020, 0.410017, 2.786469),
  )
  np.testing.assert_allclose(look.camera_position, camera, atol=1e-6)
  np.testing.assert_allclose(look.light_position, light, atol=1e-6)


def assert_spans(samples, low, high):
  """All within [low, high], and close to both ends."""
  low, high = np.asarray(low), np.asarray(high)
  margin = 0.2 * (high - low)
  smallest, largest = samples.min(0), samples.max(0)
  assert (low <= smallest).all() and (smallest <= low + margin).all()
  assert (high - margin <= largest).all() and (largest <= high).all()


def test_ranges_that_all_domains_share():
  stack = stacked('walker')
  assert set(stack['sky']) == set(range(5))
  assert set(stack['floor']) == set(range(3))
  ranges = {
    'reflectance': (0, 0.5),
    'ambient': (0.05, 0.85),
    'diffuse': (0.3, 1.0),
    'specular': (0.03, 0.32),
    'shadow_size': (1548, 2548),
    'body': ((0, 0, 0, 0.75), (1, 1, 1, 1)),
    'effector': ((0, 0, 0, 0.75), (1, 1, 1, 1)),
    'target': ((0, 0, 0, 0.75), (1, 1, 1, 1)),
  }
  for name, (low, high) in ranges.items():
    assert_spans(stack[name], low, high)
  # One brightness, tinted: channels go together.
  assert np.ptp(stack['ambient'], axis=1).max() < 0.1


@pytest.mark.parametrize('domain', looks.DOMAINS)
def test_cameras_and_lights_span_their_ranges(domain):
  stack, ranges = stacked(domain), looks.DOMAINS[domain]
  assert_spans(stack['camera_position'], *ranges.camera)
  if ranges.light:
    assert_spans(stack['light_position'], *ranges.light)
  else:
    assert set(stack['light_position']) == {None}
  if ranges.euler:
    assert_spans(stack['camera_euler'], *ranges.euler)
  elif not ranges.slope:
    assert set(stack['camera_euler']) == {None}


def test_only_the_fingers_light_has_colors_of_its_own():
  stack = stacked('finger')
  assert_spans(stack['light_diffuse'], 0.48, 1.12)
  assert_spans(stack['light_specular'], -0.02, 1.22)
  assert np.ptp(stack['light_specular'], axis=1).max() < 0.04
  assert looks.draw(1, 'ball_in_cup', 1, 1).light_diffuse is None


def test_the_pendulums_camera_looks_up_along_its_slope():
  angle, *others = stacked('pendulum')['camera_euler'].T
  assert not np.any(others)
  # Up is (0, s, 1) before it is normalized: (0, cos, sin) of the angle.
  assert_spans(1 / np.tan(np.radians(angle)), 0.4, 0.6)
