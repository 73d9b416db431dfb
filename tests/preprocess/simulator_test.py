"""Estimators against exact motion: a real MuJoCo render of the cheetah.

A visible point of a rigid geom keeps its coordinates in that geom's frame.
Depth gives the point behind a pixel and segmentation its geom; the geom's and
the camera's next poses say where it goes.
"""

import dataclasses

import cv2
import numpy as np
import pytest

from drp_jax.data import schema
from drp_jax.envs import gl
from drp_jax.preprocess import extract, flow, track

_SIZE, _NUM_FRAMES, _CAMERA = 64, 10, 0
_GEOM = 5  # mjOBJ_GEOM, in the second channel of a segmentation


@dataclasses.dataclass(frozen=True)
class Snapshot:
  """One moment: what is seen, and the poses it was seen with.

  Attributes:
    image: [64, 64, 3] uint8.
    depth: [64, 64] metres along the optical axis.
    geom: [64, 64] int, -1 where there is none.
    body: [64, 64] bool, what can move.
    rotations: [G, 3, 3] and positions: [G, 3], of geoms in the world.
    camera: rotation [3, 3] and position [3] in the world.
    focal: focal length in pixels.
  """

  image: np.ndarray
  depth: np.ndarray
  geom: np.ndarray
  body: np.ndarray
  rotations: np.ndarray
  positions: np.ndarray
  camera: tuple[np.ndarray, np.ndarray]
  focal: float


def _snapshot(physics):
  model, data = physics.model, physics.data
  view = dict(height=_SIZE, width=_SIZE, camera_id=_CAMERA)
  segments = physics.render(segmentation=True, **view)
  geom = np.where(segments[..., 1] == _GEOM, segments[..., 0], -1)
  moves = np.array(model.body_weldid)[np.array(model.geom_bodyid)] != 0
  fovy = np.radians(model.cam_fovy[_CAMERA])
  return Snapshot(
    image=physics.render(**view),
    depth=physics.render(depth=True, **view).astype(np.float64),
    geom=geom,
    body=(geom >= 0) & moves[geom],
    rotations=np.array(data.geom_xmat).reshape(-1, 3, 3),
    positions=np.array(data.geom_xpos).reshape(-1, 3),
    camera=(
      np.array(data.cam_xmat[_CAMERA]).reshape(3, 3),
      np.array(data.cam_xpos[_CAMERA]),
    ),
    focal=0.5 * _SIZE / np.tan(fovy / 2),
  )


def _follow(pixels, start, end):
  """Where surface points at pixels [N, 2] of `start` are seen at `end`."""
  x, y = pixels.T
  geom, depth = start.geom[y, x], start.depth[y, x]
  middle = (_SIZE - 1) / 2
  scale = depth / start.focal
  seen = np.stack([(x - middle) * scale, (middle - y) * scale, -depth], -1)
  rotation, position = start.camera
  world = seen @ rotation.T + position
  offset = world - start.positions[geom]
  local = np.einsum('nji,nj->ni', start.rotations[geom], offset)
  moved = np.einsum('nij,nj->ni', end.rotations[geom], local)
  rotation, position = end.camera
  seen = (moved + end.positions[geom] - position) @ rotation
  out = np.stack([seen[:, 0], -seen[:, 1]], -1) * end.focal
  return out / -seen[:, 2:] + middle


def _pixels(mask):
  y, x = np.nonzero(mask)
  return np.stack([x, y], -1)


@pytest.fixture(scope='module')
def cheetah():
  """Snapshots of a cheetah that moves at random."""
  try:
    gl.select_backend()
  except RuntimeError as error:
    pytest.skip(str(error))
  from dm_control import suite  # after the choice of the GL back end

  env = suite.load('cheetah', 'run', task_kwargs={'random': 1})
  env.reset()
  rng = np.random.default_rng(1)
  action, snapshots = np.zeros(env.action_spec().shape), []
  for t in range(5 + _NUM_FRAMES):
    noise = rng.standard_normal(action.shape)
    action = np.clip(0.7 * action + 0.6 * noise, -1, 1)
    for _ in range(2):
      env.step(action)
    if t >= 5:
      snapshots.append(_snapshot(env.physics))
  return snapshots


def _frames(snapshots):
  return schema.Footage(np.stack([s.image for s in snapshots]))


def test_the_truth_is_true(cheetah):
  """No time, no motion; and moved body pixels land on the same geom."""
  first = cheetah[0]
  pixels = _pixels(first.body)
  np.testing.assert_allclose(_follow(pixels, first, first), pixels, atol=1e-3)
  x, y = _follow(pixels, first, cheetah[1]).round().astype(int).T
  same = cheetah[1].geom[y, x] == first.geom[pixels[:, 1], pixels[:, 0]]
  assert same.mean() > 0.85


def test_flow_on_the_body_is_better_than_none(cheetah):
  dis = flow.make_dis()
  errors, speeds = [], []
  for start, end in zip(cheetah[:-1], cheetah[1:], strict=True):
    pixels = _pixels(start.body)
    truth = _follow(pixels, start, end) - pixels
    estimate = dis(_frames([start]), _frames([end]))[0][
      pixels[:, 1], pixels[:, 0]
    ]
    errors.append(np.linalg.norm(estimate - truth, axis=-1).mean())
    speeds.append(np.linalg.norm(truth, axis=-1).mean())
  assert np.mean(speeds) > 0.3
  assert np.mean(errors) < 0.85 * np.mean(speeds)


def test_tracks_stay_on_their_points(cheetah):
  pixels = _pixels(cheetah[0].body)
  track_fn = track.Farneback().over_clip(_frames(cheetah))
  tracks, visible = track_fn(pixels.astype(np.float32))
  truth = _follow(pixels, cheetah[0], cheetah[8])
  error = np.linalg.norm(tracks[8] - truth, axis=-1)
  moved = np.linalg.norm(pixels - truth, axis=-1)
  assert np.median(error) < 0.7 * np.median(moved)
  assert (error[moved > 2] < 2).mean() > 0.5
  # The confidence means something.
  lost = ~visible[8]
  assert (error[~lost] < 2).mean() > (error[lost] < 2).mean() + 0.2


def test_the_mask_and_the_keypoints_are_on_the_body(cheetah):
  backends = extract.make_backends()
  rng = np.random.default_rng(0)
  out = extract.extract_clip(_frames(cheetah), backends, rng)
  body = cheetah[0].body
  causal = backends.mask(_frames(cheetah[:2]))
  for mask in (out['mask'], causal):
    assert (mask & body).sum() / (mask | body).sum() > 0.6
  for t in (1, 5, 9):
    near = cv2.dilate(cheetah[t - 1].body.astype(np.uint8), np.ones((3, 3)))
    x, y = out['points'][t].round().astype(int).T
    assert near[y, x].mean() > 0.8
