"""Looks of DMC Remastered, drawn from visual seeds.

The ranges are those of DMC Remastered as used in IPV. The draws are ours: every
factor has its own random stream, seeded by the visual seed and the position of
the factor in `FACTORS`, and all factors are drawn whether or not they are used.
Turning one factor off, or widening one, therefore leaves the others unchanged.
"""

import dataclasses

import numpy as np

# The order determines the seeds: append, never reorder.
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
  """Ranges of a domain's first camera and its light.

  Positions are those of the suite's files: meters, in the frame of the body
  that the camera or the light is fixed to.

  Attributes:
    camera: range of the camera's position.
    light: range of the light's position; None keeps it.
    euler: angles of the camera about its own x, y and z in turn, degrees.
    slope: s, if the camera's axes are right (1, 0, 0) and up (0, s, 1). Without
      `euler` and `slope` the camera keeps its direction.
    light_colors: whether the colors of the light vary, too, besides those of
      the headlight.
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
    effector: [4] RGBA of its end effector; belongs to the body's factor.
    target: [4] RGBA of the target.
    reflectance: reflectance of the floor.
    ambient: [3] RGB of the headlight, which is at the camera.
    diffuse: [3] RGB of the headlight.
    specular: [3] RGB of the headlight.
    shadow_size: side of the shadow map in texels. It is drawn, as in the
      original, but not applied: a new size needs a new GL context (hundreds of
      milliseconds) and changes 64x64 images by less than .02 gray levels of
      255.
    light_position: [3] meters, see `Ranges`; None if it does not vary.
    light_diffuse: [3] RGB of the light, up to 1.12; None if it does not vary.
    light_specular: [3] RGB of the light, -.02 to 1.22; None likewise.
    camera_position: [3] meters, see `Ranges`.
    camera_euler: [3] degrees, see `Ranges`; None if the direction does not
      vary.
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
    domain: one of `DOMAINS`.
    num_skies: number of skies to choose from.
    num_floors: number of floors to choose from.

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
  """Draws one brightness for all channels and a small tint for each, [3]."""
  return rng.uniform(low, high) + rng.uniform(-tint, tint, 3)


def _euler(rng: np.random.Generator, ranges: Ranges) -> np.ndarray | None:
  """Draws angles of the camera, [3] degrees; None if they do not vary."""
  if ranges.slope:  # up (0, s, 1) is (0, cos, sin) of a turn about x
    angle = np.degrees(np.arctan2(1, rng.uniform(*ranges.slope)))
    return np.array([angle, 0, 0])
  return rng.uniform(*ranges.euler) if ranges.euler else None
