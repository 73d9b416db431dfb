"""Exact flow, masks and tracks of simulated footage: the back-ends 'sim'.

A visible point of a rigid geom keeps its coordinates in that geom's frame.
`footage.scene` holds the geom and distance of each pixel, and the poses of
geoms and camera in every frame, in the format of `drp_jax/envs/scene.py`. The
sky is infinitely far away and follows only the camera's rotation.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import track

# How far a point may lie behind the visible surface at its pixel, in widths of
# a pixel at that distance: more than a surface slopes within a pixel, less than
# the thickness of a limb.
_TOLERANCE = 1.0


@dataclasses.dataclass(frozen=True)
class Anchors:
  """Points in the coordinates in which they do not move.

  Attributes:
    geom: [K] int, the geom of the coordinates; -1 is the sky.
    local: [K, 3] meters; for the sky the direction in the world.
  """

  geom: np.ndarray
  local: np.ndarray


def load(video_path: pathlib.Path) -> dict[str, np.ndarray] | None:
  """Reads the scene beside a video, `<name>.scene.npz`; None without one.

  For a link, the file is beside the link or beside the video it leads to.
  """
  for path in (video_path, video_path.resolve()):
    scene = path.with_suffix('.scene.npz')
    if scene.is_file():
      with np.load(scene, allow_pickle=False) as file:
        return dict(file)
  return None


def flow(start: schema.Footage, end: schema.Footage) -> np.ndarray:
  """Computes exact flow; see `preprocess/flow.py`.

  Flow is that of the points visible in `start`, whether or not they are hidden
  in `end`. It is zero if the scene does not know a point, or if the point moves
  behind the camera.

  Args:
    start: N frames with a scene.
    end: N frames with a scene.

  Returns:
    [N, H, W, 2] float32.

  Raises:
    ValueError: there is no scene.
  """
  before, after = _scenes('flow', start), _scenes('flow', end)
  height, width = start.image.shape[1:3]
  y, x = np.mgrid[:height, :width]
  pixels = np.stack([x, y], -1).reshape(-1, 2)
  out = np.zeros((len(start), height * width, 2), np.float32)
  for i in range(len(start)):
    moved, depth = _project(after[i], _anchor(before[i], pixels))
    out[i] = np.where(depth[:, None] > 0, moved - pixels, 0)
  return out.reshape(-1, height, width, 2)


def mask(footage: schema.Footage) -> np.ndarray:
  """Masks what can move, in the first frame; see `preprocess/segment.py`.

  This is the robot and the objects it handles, not floor, table and sky. If
  none of it is visible, the mask is the whole frame.

  Args:
    footage: frames with a scene.

  Returns:
    [H, W] bool.

  Raises:
    ValueError: there is no scene.
  """
  found = body(_scenes('mask', footage)[0])
  return found if found.any() else np.ones_like(found)


def body(scene: dict[str, np.ndarray]) -> np.ndarray:
  """Masks what can move in a frame, [H, W] bool; may be empty."""
  geom = scene['geom']
  return (geom >= 0) & scene['moves'][geom]


def follow(
  footage: schema.Footage, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Follows points of the first frame, also while they are hidden.

  Args:
    footage: T frames with a scene.
    points: [K, 2] float, pixels, (x, y), in frame 0.

  Returns:
    tracks: [T, K, 2] float32, also outside the image.
    seen: [T, K] bool, whether the point is in the image and not hidden, for
      each frame separately.

  Raises:
    ValueError: there is no scene.
  """
  scenes = _scenes('tracker', footage)
  anchors = _anchor(scenes[0], points)
  located = [_locate(scene, anchors) for scene in scenes]
  tracks, seen = zip(*located, strict=True)
  return np.stack(tracks), np.stack(seen)


class Tracker:
  """Exact `OnlineTracker`, see preprocess/track.py.

  A state consists of the anchors and the last places of the points.
  """

  def over_clip(self, footage: schema.Footage) -> track.TrackFn:
    """See `track.Tracker.over_clip`."""
    _scenes('tracker', footage)

    def follow_all(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      states = self.begin(footage[:1], points[None])
      tracks = [points.astype(np.float32)]
      visible = [np.ones(len(points), bool)]
      for t in range(1, len(footage)):
        states, moved, found = self.step(states, footage[t : t + 1])
        tracks.append(moved[0])
        visible.append(visible[-1] & found[0])
      return np.stack(tracks), np.stack(visible)  # [T, K, 2], [T, K]

    return follow_all

  def begin(
    self, footage: schema.Footage, points: np.ndarray
  ) -> list[tuple[Anchors, np.ndarray]]:
    """See `track.OnlineTracker.begin`."""
    scenes = _scenes('tracker', footage)
    return [
      (_anchor(scene, own), own.astype(np.float32))
      for scene, own in zip(scenes, points, strict=True)
    ]

  def step(
    self,
    states: Sequence[tuple[Anchors, np.ndarray]],
    footage: schema.Footage,
  ) -> tuple[list[tuple[Anchors, np.ndarray]], np.ndarray, np.ndarray]:
    """See `track.OnlineTracker.step`."""
    scenes = _scenes('tracker', footage)
    following, found = [], []
    for scene, (anchors, points) in zip(scenes, states, strict=True):
      moved, seen = _locate(scene, anchors)
      moved, _ = track.hold(points, moved, *scene['geom'].shape)
      following.append((anchors, moved))
      found.append(seen)
    return following, np.stack([p for _, p in following]), np.stack(found)


def _scenes(key: str, footage: schema.Footage) -> list[dict[str, np.ndarray]]:
  """Lists the scenes of N frames; raises ValueError where nothing is known."""
  if footage.scene is None:
    raise ValueError(
      f"config.extract.{key}='sim' needs footage of a simulator with its "
      'scene, not a video alone; choose another back-end, or '
      "config.source='sim'."
    )
  return [
    {name: array[i] for name, array in footage.scene.items()}
    for i in range(len(footage))
  ]


def _anchor(scene: dict[str, np.ndarray], points: np.ndarray) -> Anchors:
  """Binds points [K, 2] to the surface at the nearest pixel of a frame."""
  height, width = scene['geom'].shape
  x, y = np.clip(np.rint(points), 0, [width - 1, height - 1]).astype(int).T
  geom = scene['geom'][y, x].astype(int)
  depth = scene['depth'][y, x].astype(np.float64)
  offset = (points - _middle(scene)) / scene['focal']
  ray = np.stack([offset[:, 0], -offset[:, 1], -np.ones(len(points))], -1)
  ray = ray @ scene['camera_rotation'].T.astype(np.float64)
  world = scene['camera_position'] + depth[:, None] * ray
  local = np.einsum(
    'kji,kj->ki', scene['rotation'][geom], world - scene['position'][geom]
  )
  return Anchors(geom, np.where(geom[:, None] < 0, ray, local))


def _project(
  scene: dict[str, np.ndarray], anchors: Anchors
) -> tuple[np.ndarray, np.ndarray]:
  """Projects anchors into a frame: points [K, 2] and depths [K], meters.

  The depth of the sky is 1. Points behind the camera have depth 0 or less.
  """
  geom, local = anchors.geom, anchors.local
  world = np.einsum('kij,kj->ki', scene['rotation'][geom], local)
  offset = world + scene['position'][geom] - scene['camera_position']
  offset = np.where(geom[:, None] < 0, local, offset)
  right, up, back = (offset @ scene['camera_rotation']).T
  ahead = np.where(back < 0, -back, 1)
  points = np.stack([right, -up], -1) / ahead[:, None] * scene['focal']
  return points + _middle(scene), -back


def _locate(
  scene: dict[str, np.ndarray], anchors: Anchors
) -> tuple[np.ndarray, np.ndarray]:
  """Projects anchors: points [K, 2] float32, and whether they are seen."""
  points, depth = _project(scene, anchors)
  height, width = scene['geom'].shape
  seen = np.zeros(len(points), bool)
  tolerance = _TOLERANCE * depth / scene['focal']
  nearest = np.rint(np.clip(points, -1, [width, height])).astype(int)
  # Neighbors too, because the nearest pixel may miss the edge of a limb.
  for step in np.ndindex(3, 3):
    x, y = np.clip(nearest + step - [1, 1], 0, [width - 1, height - 1]).T
    behind = depth - scene['depth'][y, x]
    same = scene['geom'][y, x] == anchors.geom
    seen |= same & ((behind < tolerance) | (anchors.geom < 0))
  seen &= _inside(points, scene['geom'].shape) & (depth > 0)
  return points.astype(np.float32), seen


def _inside(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Returns whether points [K, 2] are inside an image (H, W), [K] bool."""
  end = np.array(shape[::-1]) - 0.5
  return np.all((points >= -0.5) & (points <= end), axis=-1)


def _middle(scene: dict[str, np.ndarray]) -> np.ndarray:
  """Returns the point (x, y) that the camera looks at."""
  height, width = scene['geom'].shape
  return np.array([width - 1, height - 1]) / 2
