"""Videos of known motion: a hand pushes a thing left or right, or puts it down.

These are the three behaviors of Fig. 14 of the paper, for users who do not have
Something-Something V2. Thing, table, light, camera and speed are random, so
only the motion distinguishes the behaviors.
"""

import pathlib

import numpy as np

from drp_jax import recordings
from drp_jax.envs import gl, recorder, renders

CLASSES = (
  'pushing_left_to_right',
  'pushing_right_to_left',
  'putting_on_a_surface',
)
FPS = 12  # as in Something-Something V2
_SIDE = 64  # pixels of a frame
_STEP = 0.004  # seconds of the simulation
_REACH = 0.35  # meters that the hand moves along the table
_LIFT = 0.45  # meters, height from which things are put down
_RELEASED = 0.55  # share of the time after which a thing is released
_GRIP = 0.06  # meters from the hand to the top of the thing it holds


def write_videos(
  folder: str | pathlib.Path,
  clips_per_class: int,
  frames: int,
  seed: int,
  write_video: renders.WriteVideo,
) -> list[pathlib.Path]:
  """Writes `<folder>/<class>/<index>.mp4`.

  The recorded motion is written beside each video, see `film`. A file is a
  function of class, index, frames and seed. An existing video is left as it is,
  with or without a recording, and a video is written whole or not at all.

  Args:
    folder: made if it is not there.
    clips_per_class: videos of each of `CLASSES`.
    frames: of each.
    seed: of looks and motion.
    write_video: writes frames to a path whose suffix is `.mp4`, so that the
      file appears whole.

  Returns:
    The paths of all the videos.

  Raises:
    RuntimeError: there is no OpenGL to render with.
  """
  paths = []
  for number, name in enumerate(CLASSES):
    inside = pathlib.Path(folder, name)
    inside.mkdir(parents=True, exist_ok=True)
    for index in range(clips_per_class):
      path = inside / f'{index:04d}.mp4'
      paths.append(path)
      if path.exists():
        continue
      rng = np.random.default_rng([seed, number, index])
      video, recording = film(name, frames, rng)
      # The video is written last, so a listed video has its recording.
      recordings.write(path, recording)
      write_video(path, video, FPS)
  return paths


def film(
  name: str, frames: int, rng: np.random.Generator
) -> tuple[np.ndarray, recordings.Recording]:
  """Simulates and draws one clip.

  Args:
    name: one of `CLASSES`.
    frames: T.
    rng: generator of looks and motion.

  Returns:
    video: [T, 64, 64, 3] uint8.
    recording: action is the velocity of the hand [T, 3] in m/s; x to the right,
      y away from the camera, z up. joint_velocity is the velocity of the thing
      [T, 6].

  Raises:
    RuntimeError: there is no OpenGL to render with.
  """
  gl.select_backend()  # before mujoco is imported, hence imported here
  import mujoco

  puts = name == 'putting_on_a_surface'
  right = name == 'pushing_left_to_right'
  side = rng.choice([-1.0, 1.0]) if puts else (-1.0 if right else 1.0)
  height = rng.uniform(0.05, 0.09)  # half of the thing's
  model = mujoco.MjModel.from_xml_string(_scene(rng, side, height, puts))
  data = mujoco.MjData(model)
  place = rng.uniform((-0.06, -0.08), (0.06, 0.08))
  path = _putting if puts else _pushing
  hand = path(np.linspace(0.0, 1.0, frames), side, height, place, rng)
  thing = hand[0] - (0, 0, height + _GRIP) if puts else (*place, height)
  data.qpos[:3] = thing
  data.mocap_pos[0] = hand[0]
  data.eq_active[0] = puts
  substeps = round(1 / FPS / _STEP)
  video = np.empty([frames, _SIDE, _SIDE, 3], np.uint8)
  action = np.zeros([frames, 3], np.float32)
  velocity = np.zeros([frames, model.nv], np.float32)
  with mujoco.Renderer(model, _SIDE, _SIDE) as renderer:
    for t in range(frames):
      if t > _RELEASED * frames:
        data.eq_active[0] = 0
      before, pose = hand[max(t - 1, 0)], data.qpos.copy()
      for step in range(substeps if t else 1):
        share = (step + 1) / substeps
        data.mocap_pos[0] = before + share * (hand[t] - before)
        mujoco.mj_step(model, data)
      if t:
        seconds = substeps * _STEP
        action[t] = (hand[t] - before) / seconds
        velocity[t] = recorder.joint_velocity(model, pose, data.qpos, seconds)
      renderer.update_scene(data, 'view')
      video[t] = renderer.render()
  return video, recordings.Recording(action, velocity, 'hand')


def _pushing(s, side, height, place, rng) -> np.ndarray:
  """Places the hand at times s in 0..1, [T, 3] meters; it moves to -side."""
  ends = _REACH * rng.uniform(0.8, 1.2, 2)
  begin, end = rng.uniform(0.0, 0.15), rng.uniform(0.7, 1.0)
  moved = _smooth((s - begin) / (end - begin))
  x = place[0] + side * (ends[0] - moved * ends.sum())
  return np.stack([x, np.full_like(s, place[1]), np.full_like(s, height)], -1)


def _putting(s, side, height, place, rng) -> np.ndarray:
  """Moves as `_pushing`, but down with the thing and up without it."""
  top = _LIFT * rng.uniform(0.8, 1.2)
  slant = side * rng.uniform(0.0, 0.25)
  raised = 1 - _smooth(s / (0.9 * _RELEASED)) * _smooth((1.1 - s) / 0.4)
  low = 2 * height + _GRIP
  x = place[0] + slant * raised
  return np.stack([x, np.full_like(s, place[1]), low + top * raised], -1)


def _smooth(s: np.ndarray) -> np.ndarray:
  """Interpolates from 0 to 1, slowly at both ends."""
  s = np.clip(s, 0.0, 1.0)
  return s * s * (3 - 2 * s)


def _scene(
  rng: np.random.Generator, side: float, height: float, puts: bool
) -> str:
  """Writes the MJCF of a table, a thing, and a hand from `side` or above."""

  def color(low=0.1, high=0.95):
    return ' '.join(f'{x:.3f}' for x in rng.uniform(low, high, 3))

  azimuth = np.radians(rng.uniform(-20, 20))
  elevation = np.radians(rng.uniform(20, 45))
  distance = rng.uniform(1.1, 1.5)
  eye = distance * np.array([
    np.sin(azimuth) * np.cos(elevation),
    -np.cos(azimuth) * np.cos(elevation),
    np.sin(elevation),
  ])  # fmt: skip
  width = rng.uniform(0.04, 0.08)
  shape, size = (
    ('box', f'{width} {rng.uniform(0.04, 0.08)} {height}'),
    ('cylinder', f'{width} {height}'),
    ('ellipsoid', f'{width} {width} {height}'),
  )[rng.integers(3)]
  # The arm reaches back from the hand: to the side, towards us, and up.
  back = np.array([1.2 * side, rng.uniform(-0.8, 0.2), rng.uniform(0.3, 0.8)])
  if puts:
    back = np.array([0.4 * side, rng.uniform(-0.8, 0.2), 1.0])
  skin = rng.uniform(0.3, 1.0) * np.array([1.0, 0.78, 0.65])
  sleeve = color()
  wrist, elbow = 0.1 * back, 1.2 * back
  pattern = rng.choice(['flat', 'checker', 'gradient'])
  lamp = rng.uniform((-1, -1, 1.2), (1, 0.5, 2.5))

  def text(numbers):
    return ' '.join(f'{x:.4f}' for x in numbers)

  return f"""
<mujoco>
  <option timestep="{_STEP}"/>
  <visual>
    <global offwidth="{_SIDE}" offheight="{_SIDE}" fovy="45"/>
    <quality shadowsize="512"/>
  </visual>
  <asset>
    <texture name="table" type="2d" builtin="{pattern}" rgb1="{color()}"
      rgb2="{color()}" width="64" height="64"/>
    <material name="table" texture="table" reflectance="0"
      texrepeat="{rng.integers(1, 6)} {rng.integers(1, 6)}"/>
    <texture type="skybox" builtin="gradient" rgb1="{color()}"
      rgb2="{color()}" width="64" height="64"/>
  </asset>
  <worldbody>
    <light pos="{text(lamp)}" dir="{text(-lamp)}" diffuse="{color(0.5, 0.9)}"/>
    <body name="center" pos="0 0 0.1"/>
    <camera name="view" mode="targetbody" target="center" pos="{text(eye)}"/>
    <geom type="plane" size="2 1.2 0.1" material="table" friction="0.8"/>
    <body name="thing">
      <freejoint/>
      <geom type="{shape}" size="{size}" rgba="{color()} 1" mass="0.2"/>
    </body>
    <body name="hand" mocap="true">
      <geom type="ellipsoid" size="0.05 0.06 0.05" rgba="{text(skin)} 1"/>
      <geom type="capsule" fromto="0 0 0 {text(wrist)}" size="0.035"
        rgba="{text(skin)} 1" contype="0" conaffinity="0"/>
      <geom type="capsule" fromto="{text(wrist)} {text(elbow)}" size="0.05"
        rgba="{sleeve} 1" contype="0" conaffinity="0"/>
    </body>
  </worldbody>
  <equality>
    <weld body1="hand" body2="thing" active="false"
      relpose="0 0 {-height - _GRIP:.4f} 1 0 0 0"/>
  </equality>
</mujoco>"""
