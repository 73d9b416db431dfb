"""What one episode of DMC Remastered looks like, drawn from its visual seed.

The ranges are those of DMC Remastered as IPV uses it. The draws are ours: every
factor has a random stream of its own, seeded by the visual seed and the
factor's place in `FACTORS`, and all are drawn whether or not they are used. So
turning one factor off, or widening one, leaves the others as they were.
"""

import dataclasses

import numpy as np

# The order is part of the seeding: append, never reorder.
FACTORS = (
  'background',
  'floor',
  'body',
  'target',
  'reflectance',
  'light',
  'camera',
)

# Lowest and highest x, y and z.
Box = tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclasses.dataclass(frozen=True)
class Ranges:
  """Where a domain's first camera and its light may be.

  Positions are those of the suite's files: meters, in the frame of the body
  that the camera or the light is fixed to.

  Attributes:
    camera: its position.
    light: its position; None leaves it.
    euler: the camera's angles about its own x, y and z in turn, degrees.
    slope: s, where the camera's axes are right (1, 0, 0) and up (0, s, 1).
      Without `euler` and `slope` its direction stays.
    light_colors: whether the light's own vary too, not only the headlight's.
  """

  camera: Box
  light: Box | None = None
  euler: Box | None = None
  slope: tuple[float, float] | None = None
  light_colors: bool = False


DOMAINS = {
  'walker': Ranges(camera=((-0.3, -2.05, 0.6), (0.3, -1.95, 0.8))),
  'hopper': Ranges(
    camera=((-0.15, -3.0, 0.6), (0.15, -2.6, 1.0)),
    euler=((85, -5, -5), (95, 5, 5)),
  ),
  'cheetah': Ranges(
    camera=((-0.25, -3.2, -0.25), (0.25, -2.8, 0.25)),
    light=((-2, -2, 1), (2, 2, 5)),
  ),
  'ball_in_cup': Ranges(
    camera=((-0.05, -1.1, 0.8), (0.05, -0.9, 1.0)),
    light=((-0.5, -0.5, 1.2), (0.5, 0.5, 2.7)),
  ),
  'cartpole': Ranges(
    camera=((-0.15, -5, 0.8), (0.15, -3, 1.2)),
    light=((-1, -1, 4.5), (1, 1, 7.5)),
  ),
  'finger': Ranges(
    camera=((-0.02, -1.01, 0.7), (0.02, -0.99, 1.0)),
    light=((-0.8, -0.8, 1), (0.8, 0.8, 3)),
    light_colors=True,
  ),
  'fish': Ranges(
    camera=((-0.05, -0.05, 0.8), (0.05, 0.05, 1.2)),
    light=((-0.3, -0.3, 0), (0.3, 0.3, 1)),
  ),
  'humanoid': Ranges(
    camera=((-3.5, -0.5, 0.5), (-2.5, 0.5, 1.5)),
    light=((-0.7, -0.7, 1.2), (0.7, 0.7, 1.8)),
  ),
  'pendulum': Ranges(
    camera=((0, -1.1, 1.3), (0.2, -0.97, 1.6)),
    light=((-0.5, -0.2, 1.2), (0.5, 0.2, 2.8)),
    slope=(0.4, 0.6),
  ),
  'reacher': Ranges(
    camera=((-0.05, -0.05, 0.7), (0.05, 0.05, 0.8)),
    light=((-0.2, -0.2, 0.15), (0.2, 0.2, 0.75)),
  ),
}


@dataclasses.dataclass(frozen=True)
class Look:
  """The factors of one scene. Colors are in [0, 1].

  Attributes:
    sky: index of the background's texture.
    floor: index of the floor's texture.
    body: [4] RGBA of the robot.
    effector: [4] RGBA of its end effector; goes with the body's factor.
    target: [4] RGBA.
    reflectance: of the floor.
    ambient: [3] RGB of the headlight, which is where the camera is.
    diffuse: [3] RGB, likewise.
    specular: [3] RGB, likewise.
    shadow_size: side of the shadow map in texels. Drawn, as the original does,
      but not worn: a new one takes a new GL context, hundreds of milliseconds,
      and moves 64x64 images by less than .02 gray levels of 255.
    light_position: [3] meters, see `Ranges`; None where it stays.
    light_diffuse: [3] RGB, the light's own, up to 1.12; None where it stays.
    light_specular: [3] RGB, likewise, -.02 to 1.22.
    camera_position: [3] meters, see `Ranges`.
    camera_euler: [3] degrees, see `Ranges`; None where the direction stays.
  """

  sky: int
  floor: int
  body: np.ndarray
  effector: np.ndarray
  target: np.ndarray
  reflectance: float
  ambient: np.ndarray
  diffuse: np.ndarray
  specular: np.ndarray
  shadow_size: int
  light_position: np.ndarray | None
  light_diffuse: np.ndarray | None
  light_specular: np.ndarray | None
  camera_position: np.ndarray
  camera_euler: np.ndarray | None


def draw(
  visual_seed: int, domain: str, num_skies: int, num_floors: int
) -> Look:
  """Draws a look.

  Args:
    visual_seed: 1 or more; the look is a function of the arguments.
    domain: of `DOMAINS`.
    num_skies: how many skies there are to choose from.
    num_floors: how many floors.

  Returns:
    The look.
  """
  rng = {
    name: np.random.default_rng(np.random.SeedSequence([visual_seed, i]))
    for i, name in enumerate(FACTORS)
  }
  ranges, light = DOMAINS[domain], rng['light']
  own = ranges.light_colors
  return Look(
    sky=int(rng['background'].integers(num_skies)),
    floor=int(rng['floor'].integers(num_floors)),
    body=_rgba(rng['body']),
    effector=_rgba(rng['body']),
    target=_rgba(rng['target']),
    reflectance=float(rng['reflectance'].uniform(0, 0.5)),
    ambient=_light(light, 0.1, 0.8, 0.05),
    diffuse=_light(light, 0.4, 0.9, 0.1),
    specular=_light(light, 0.05, 0.3, 0.02),
    shadow_size=int(light.integers(1548, 2548, endpoint=True)),
    light_position=light.uniform(*ranges.light) if ranges.light else None,
    light_diffuse=_light(light, 0.5, 1.1, 0.02) if own else None,
    light_specular=_light(light, 0, 1.2, 0.02) if own else None,
    camera_position=rng['camera'].uniform(*ranges.camera),
    camera_euler=_euler(rng['camera'], ranges),
  )


def _rgba(rng: np.random.Generator) -> np.ndarray:
  return rng.uniform([0, 0, 0, 0.75], 1)


def _light(
  rng: np.random.Generator, low: float, high: float, tint: float
) -> np.ndarray:
  """One brightness for all channels, and a little tint for each, [3]."""
  return rng.uniform(low, high) + rng.uniform(-tint, tint, 3)


def _euler(rng: np.random.Generator, ranges: Ranges) -> np.ndarray | None:
  """Angles of the camera, [3] degrees; None where its direction stays."""
  if ranges.slope:  # up (0, s, 1) is (0, cos, sin) of a turn about x
    angle = np.degrees(np.arctan2(1, rng.uniform(*ranges.slope)))
    return np.array([angle, 0, 0])
  return rng.uniform(*ranges.euler) if ranges.euler else None
