"""Truth against real MuJoCo renders of a cheetah, and estimators against it."""

import cv2
import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.envs import dmc, gl, renders, wrappers
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import extract, flow, track, truth

_WARM_UP, _NUM_FRAMES = 5, 10


@pytest.fixture(scope='module')
def cheetah():
  """Footage of a cheetah that moves at random, and what is known of it."""
  try:
    gl.select_backend()
  except RuntimeError as error:
    pytest.skip(str(error))
  env = wrappers.ActionRepeat(dmc.DMC('cheetah_run', shadow_size=512), 2)
  image, scene = renders.rollout(
    env, _WARM_UP + _NUM_FRAMES, np.random.default_rng(1), scenes=True
  )
  env.close()
  return schema.Footage(image, scene)[_WARM_UP:]


@pytest.fixture(scope='module')
def bodies(cheetah):
  """What can move, [T, 64, 64] bool."""
  return np.stack([truth.mask(cheetah[t:]) for t in range(len(cheetah))])


@pytest.fixture(scope='module')
def motion(cheetah):
  """Exact flow, [T-1, 64, 64, 2]."""
  return truth.flow(cheetah[:-1], cheetah[1:])


def _pixels(mask):
  y, x = np.nonzero(mask)
  return np.stack([x, y], -1)


def test_no_time_no_motion(cheetah):
  np.testing.assert_allclose(truth.flow(cheetah, cheetah), 0, atol=1e-4)


def test_moved_body_pixels_land_on_the_same_geom(cheetah, bodies, motion):
  geom, same = cheetah.scene['geom'], []
  for t in range(len(motion)):
    x0, y0 = _pixels(bodies[t]).T
    there = np.stack([x0, y0], -1) + motion[t, y0, x0]
    x1, y1 = there.round().astype(int).clip(0, 63).T
    same.append(geom[t + 1, y1, x1] == geom[t, y0, x0])
  assert np.concatenate(same).mean() > 0.85


def test_true_flow_explains_the_next_image(cheetah, bodies, motion):
  image = cheetah.image.astype(np.float32)
  grid = np.float32(np.mgrid[:64, :64][::-1]).transpose(1, 2, 0)
  before, after = [], []
  for t in range(len(motion)):
    there = grid + motion[t]
    warped = cv2.remap(image[t + 1], there, None, cv2.INTER_LINEAR)
    body = bodies[t]
    before.append(np.abs(image[t] - image[t + 1]).mean(-1)[body])
    after.append(np.abs(image[t] - warped).mean(-1)[body])
  before, after = np.concatenate(before).mean(), np.concatenate(after).mean()
  assert after < 0.8 * before


def test_true_flow_carries_true_points(cheetah, motion):
  """Flow and tracks are one truth: at whole pixels they say the same."""
  pixels = _pixels(np.ones([64, 64], bool))
  tracks, seen = truth.follow(cheetah[:2], pixels)
  np.testing.assert_allclose(
    tracks[1] - pixels, motion[0].reshape(-1, 2), atol=1e-4
  )
  assert seen[0].all()
  assert 0.8 < seen[1].mean() < 1  # the body moves over the floor


def test_flow_on_the_body_is_better_than_none(cheetah, bodies, motion):
  estimate = flow.make_dis()(cheetah[:-1], cheetah[1:])
  error = np.linalg.norm(estimate - motion, axis=-1)[bodies[:-1]].mean()
  speed = np.linalg.norm(motion, axis=-1)[bodies[:-1]].mean()
  assert speed > 0.3
  assert error < 0.85 * speed


def test_tracks_stay_on_their_points(cheetah, bodies):
  pixels = _pixels(bodies[0])
  tracks, visible = track.Farneback().over_clip(cheetah)(np.float32(pixels))
  exact, _ = truth.follow(cheetah, pixels)
  error = np.linalg.norm(tracks[8] - exact[8], axis=-1)
  moved = np.linalg.norm(pixels - exact[8], axis=-1)
  assert np.median(error) < 0.7 * np.median(moved)
  assert (error[moved > 2] < 2).mean() > 0.5
  # The confidence means something.
  lost = ~visible[8]
  assert (error[~lost] < 2).mean() > (error[lost] < 2).mean() + 0.2


def test_the_mask_and_the_keypoints_are_on_the_body(cheetah, bodies):
  backends = backends_lib.make_backends(backends_lib.Settings())
  out = extract.extract_clip(cheetah, backends, np.random.default_rng(0))
  causal = backends.mask(cheetah[:2])
  for mask in (out['mask'], causal):
    assert (mask & bodies[0]).sum() / (mask | bodies[0]).sum() > 0.6
  for t in (1, 5, 9):
    near = cv2.dilate(bodies[t - 1].astype(np.uint8), np.ones((3, 3)))
    x, y = out['points'][t].round().astype(int).T
    assert near[y, x].mean() > 0.8
