"""What one episode of DMC Remastered looks like, drawn from its visual seed.

The ranges are those of DMC Remastered as IPV uses it. The draws are ours: every
factor has a random stream of its own, seeded by the visual seed and the
factor's place in `FACTORS`, and all are drawn whether or not they are used. So
turning one factor off, or widening one, leaves the others as they were.
"""

import dataclasses

import numpy as np

# The order is part of the seeding: append, never reorder. The camera (seventh)
# is not varied yet, so it is not here.
FACTORS = ('background', 'floor', 'body', 'target', 'reflectance', 'light')


@dataclasses.dataclass(frozen=True)
class Look:
  """The factors of one scene. Colours are in [0, 1].

  Attributes:
    sky: index of the background's texture.
    floor: index of the floor's texture.
    body: [4] RGBA of the robot.
    effector: [4] RGBA of its end effector; goes with the body's factor.
    target: [4] RGBA.
    reflectance: of the floor.
    ambient: [3] RGB, headlight.
    diffuse: [3] RGB, headlight.
    specular: [3] RGB, headlight.
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


def draw(visual_seed: int, num_skies: int, num_floors: int) -> Look:
  """Draws a look.

  Args:
    visual_seed: 1 or more; the look is a function of the arguments.
    num_skies: how many skies there are to choose from.
    num_floors: how many floors.

  Returns:
    The look.
  """
  rng = {
    name: np.random.default_rng(np.random.SeedSequence([visual_seed, i]))
    for i, name in enumerate(FACTORS)
  }
  return Look(
    sky=int(rng['background'].integers(num_skies)),
    floor=int(rng['floor'].integers(num_floors)),
    body=_rgba(rng['body']),
    effector=_rgba(rng['body']),
    target=_rgba(rng['target']),
    reflectance=float(rng['reflectance'].uniform(0, 0.5)),
    ambient=_light(rng['light'], 0.1, 0.8, 0.05),
    diffuse=_light(rng['light'], 0.4, 0.9, 0.1),
    specular=_light(rng['light'], 0.05, 0.3, 0.02),
  )


def _rgba(rng: np.random.Generator) -> np.ndarray:
  return rng.uniform([0, 0, 0, 0.75], 1)


def _light(
  rng: np.random.Generator, low: float, high: float, tint: float
) -> np.ndarray:
  """One brightness for all channels, and a little tint for each, [3]."""
  return rng.uniform(low, high) + rng.uniform(-tint, tint, 3)
