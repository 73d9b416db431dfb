r"""Measures flow, tracks and masks against the exact state of a simulator.

  python -m benchmarks.perception             # a table
  python -m benchmarks.perception --json      # and one line of JSON
  python -m benchmarks.perception --config.extract.sea_raft.weights=FILE

Clips have 26 frames at action repeat 2. They show smooth random motion of three
robots of the suite, plain and in the looks of DMC Remastered, and Meta-World's
scripted arm. A back-end that needs weights is measured if their paths are set.
"""

import dataclasses
import time
import zlib

import cv2
import gymnasium
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from benchmarks import record, runnable
from configs import extract as extract_config
from drp_jax.data import schema
from drp_jax.envs import looks, make, metaworld, renders, wrappers
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import flow as flow_lib
from drp_jax.preprocess import keypoints, segment, track, truth
from drp_jax.runs import logger
from experiments import launch

FRAMES = 26
WARM_UP = 5  # first frames of an episode, left out because the robot falls
HORIZONS = (8, 25)  # frames over which tracks are followed
POINTS = 64  # tracked in every clip
MOVING = 1.0  # pixels, of flow per frame, and of a point within the clip
# TAP-Vid's thresholds, 1 to 16 pixels of a 256-pixel image.
THRESHOLDS = tuple(n * schema.IMAGE_SIZE / 256 for n in (1, 2, 4, 8, 16))


@dataclasses.dataclass(frozen=True)
class Subject:
  """A task to film.

  Attributes:
    name: name in the table.
    suite: 'dmc', 'dmcr' or 'metaworld'.
    task: its name in the suite.
  """

  name: str
  suite: str
  task: str


PLAIN = (
  Subject('walker', 'dmc', 'walker_walk'),
  Subject('cheetah', 'dmc', 'cheetah_run'),
  Subject('hopper', 'dmc', 'hopper_hop'),
)
TEXTURED = tuple(
  Subject(f'{subject.name}, textured', 'dmcr', subject.task)
  for subject in PLAIN
)
ARM = Subject('arm', 'metaworld', 'drawer-open')


def film(subject: Subject, num_clips: int) -> list[schema.Footage]:
  """Films clips of FRAMES frames, with their scenes; clip i is always the same.

  Args:
    subject: task to film.
    num_clips: number of episodes to begin.

  Returns:
    The clips.
  """
  env = _open(subject)
  policy = 'scripted' if subject.suite == 'metaworld' else 'random'
  clips = []
  for i in range(num_clips):
    rng = np.random.default_rng([i, zlib.crc32(subject.task.encode())])
    frames = WARM_UP + FRAMES
    image, scene = renders.rollout(env, frames, rng, True, policy)
    clips.append(schema.Footage(image, scene)[WARM_UP:])
  env.close()
  return clips


def _open(subject: Subject) -> gymnasium.Env:
  if subject.suite == 'metaworld':
    arm = metaworld.MetaWorld(subject.task, shadow_size=512)
    return wrappers.ActionRepeat(arm, renders.ACTION_REPEAT)
  settings = make.Settings(
    subject.suite, renders.ACTION_REPEAT, factors=looks.FACTORS
  )
  return make.make_env(settings, subject.task)


def flow_errors(
  flow: flow_lib.FlowFn, clips: list[schema.Footage]
) -> dict[str, float | None]:
  """Computes the end-point error of flow between neighboring frames, in pixels.

  Args:
    flow: a back-end.
    clips: clips with scenes.

  Returns:
    Means over the pixels of all frames ('all'), of the body ('body'), and of
    the body's pixels that move by more than MOVING ('moving'; None if none do).
  """
  errors, bodies, speeds = [], [], []
  for clip in clips:
    exact = truth.flow(clip[:-1], clip[1:])
    error = np.linalg.norm(flow(clip[:-1], clip[1:]) - exact, axis=-1)
    errors.append(error)
    speeds.append(np.linalg.norm(exact, axis=-1))
    bodies.append(
      np.stack([truth.body(clip[t].scene) for t in range(len(error))])
    )
  error, body, speed = map(np.concatenate, (errors, bodies, speeds))
  moving = error[body & (speed > MOVING)]
  return {
    'all': float(error.mean()),
    'body': float(error[body].mean()),
    'moving': float(moving.mean()) if len(moving) else None,
  }


def track_accuracy(
  tracker: track.Tracker, clips: list[schema.Footage]
) -> dict[str, float]:
  """Computes TAP-Vid's delta-avg: points near the truth, over THRESHOLDS.

  Args:
    tracker: a back-end.
    clips: clips with scenes.

  Returns:
    'at8' and 'at25', over frames 1 to 8 and 1 to 25: means over clips of the
    share of visible, moving points of the body.
  """
  shares = {horizon: [] for horizon in HORIZONS}
  for i, clip in enumerate(clips):
    points = moving_points(clip, np.random.default_rng(i))
    exact, seen = truth.follow(clip, points)
    tracks, _ = tracker.over_clip(clip)(points)
    error = np.linalg.norm(tracks - exact, axis=-1)  # [T, K]
    near = np.mean([error < threshold for threshold in THRESHOLDS], axis=0)
    for horizon, into in shares.items():
      part = slice(1, horizon + 1)
      into.append(near[part][seen[part]].mean())
  return {f'at{h}': float(np.mean(share)) for h, share in shares.items()}


def moving_points(clip: schema.Footage, rng: np.random.Generator) -> np.ndarray:
  """Draws pixels of the body that move within a clip.

  Args:
    clip: a clip with a scene.
    rng: consumed.

  Returns:
    [POINTS, 2] float32, or fewer if fewer move.
  """
  y, x = np.nonzero(truth.mask(clip))
  points = np.stack([x, y], -1).astype(np.float32)
  tracks, _ = truth.follow(clip, points)
  moved = np.linalg.norm(tracks - points, axis=-1).max(axis=0) > MOVING
  return rng.permutation(points[moved])[:POINTS]


def mask_accuracy(
  mask: segment.MaskFn, tracker: track.Tracker, clips: list[schema.Footage]
) -> dict[str, float]:
  """Measures how well masks and keypoints of the first frames match the body.

  Args:
    mask: a back-end.
    tracker: tracker that chooses keypoints.
    clips: clips with scenes.

  Returns:
    'iou', intersection over union; 'keypoints', the share of keypoints on the
    body or within a pixel of it. Means over clips.
  """
  overlaps, shares = [], []
  for i, clip in enumerate(clips):
    body, found = truth.mask(clip), mask(clip)
    overlaps.append((body & found).sum() / (body | found).sum())
    tracks, _ = keypoints.select(
      tracker.over_clip(clip),
      found,
      schema.MAX_KEYPOINTS,
      np.random.default_rng(i),
    )
    near = cv2.dilate(body.astype(np.uint8), np.ones((3, 3)))
    x, y = tracks[0].round().astype(int).T
    shares.append(near[y, x].mean())
  return {'iou': float(np.mean(overlaps)), 'keypoints': float(np.mean(shares))}


def measure(
  subject: Subject, num_clips: int, settings: ml_collections.ConfigDict
) -> dict[str, dict[str, dict[str, float]]]:
  """Measures all back-ends that can run on one subject.

  Args:
    subject: task to film.
    num_clips: number of clips.
    settings: `config.extract`.

  Returns:
    'flow', 'mask' and 'tracker', each a dict from name to numbers.
  """
  clips = film(subject, num_clips)
  flows = {'zero': _zero_flow}
  for name in runnable.names('flow', settings):
    flows[name] = _make(settings, flow=name).flow
  trackers = {'not moving': _Still()}
  for name in runnable.names('tracker', settings):
    trackers[name] = _make(settings, tracker=name).tracker
  masks = {'whole frame': _whole_frame}
  for name in runnable.names('mask', settings):
    masks[name] = _make(settings, mask=name).mask
  chooser = _make(settings).tracker
  return {
    'flow': {n: flow_errors(flow, clips) for n, flow in flows.items()},
    'tracker': {n: track_accuracy(t, clips) for n, t in trackers.items()},
    'mask': {n: mask_accuracy(m, chooser, clips) for n, m in masks.items()},
  }


def summary(
  results: dict[str, dict], settings: ml_collections.ConfigDict
) -> dict[str, float]:
  """Computes the numbers by which the defaults are judged.

  Args:
    results: results of `measure` by the names of PLAIN and TEXTURED.
    settings: `config.extract`.

  Returns:
    body_epe_over_zero: error of flow on the body, relative to no flow, in the
      worst plain task.
    tap_avg: accuracy of tracks over 25 frames, mean over plain tasks.
    keypoints_on_body_plain, keypoints_on_body_textured: means over tasks.
  """
  plain = [results[subject.name] for subject in PLAIN]
  textured = [results[subject.name] for subject in TEXTURED]

  def on_body(parts: list[dict]) -> float:
    return float(
      np.mean([p['mask'][settings.mask]['keypoints'] for p in parts])
    )

  return {
    'body_epe_over_zero': max(
      part['flow'][settings.flow]['body'] / part['flow']['zero']['body']
      for part in plain
    ),
    'tap_avg': float(
      np.mean([part['tracker'][settings.tracker]['at25'] for part in plain])
    ),
    'keypoints_on_body_plain': on_body(plain),
    'keypoints_on_body_textured': on_body(textured),
  }


def table(results: dict[str, dict]) -> str:
  """Formats all results as one table in Markdown."""
  kinds = {
    'flow': 'flow: error all / body / moving, px',
    'tracker': 'tracks: accuracy over 8 / 25 frames',
    'mask': 'mask: IoU / keypoints on the body',
  }
  lines = [
    f'| | | {" | ".join(results)} |',
    '|---|---|' + '---|' * len(results),
  ]
  for kind, title in kinds.items():
    for name in next(iter(results.values()))[kind]:
      cells = [
        ' / '.join(_cell(value) for value in result[kind][name].values())
        for result in results.values()
      ]
      lines.append(f'| {title} | {name} | {" | ".join(cells)} |')
      title = ''
  return '\n'.join(lines)


def _cell(value: float | None) -> str:
  return '-' if value is None else f'{value:.2f}'.removeprefix('0')


def _make(
  settings: ml_collections.ConfigDict, **names: str
) -> backends_lib.Backends:
  """Makes back-ends by the settings, with another name for one of them."""
  return backends_lib.make_backends(
    backends_lib.Settings(**{**settings.to_dict(), **names})
  )


def _zero_flow(start: schema.Footage, end: schema.Footage) -> np.ndarray:
  """Returns zero flow, the baseline."""
  del end
  return np.zeros((*start.image.shape[:3], 2), np.float32)


def _whole_frame(footage: schema.Footage) -> np.ndarray:
  """Returns the whole frame, the fallback of masks."""
  return np.ones(footage.image.shape[1:3], bool)


class _Still:
  """Tracker that keeps all points in place, the baseline."""

  def over_clip(self, footage: schema.Footage) -> track.TrackFn:
    """See `track.Tracker.over_clip`."""

    def follow(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      tracks = np.repeat(points[None], len(footage), axis=0)
      return tracks, np.ones(tracks.shape[:2], bool)

    return follow


def main() -> None:
  settings = _CONFIG.value.extract
  begin = time.monotonic()
  subjects = [*PLAIN, *TEXTURED, ARM]
  bar = logger.progress(subjects, 'perception', 'subject')
  results = {s.name: measure(s, _CLIPS.value, settings) for s in bar}
  print(table(results))
  record.finish(
    {
      **summary(results, settings),
      'clips': _CLIPS.value,
      'extractor': _make(settings).description,
      'seconds': round(time.monotonic() - begin),
      'results': results,
    }
  )


if __name__ == '__main__':
  _CLIPS = flags.DEFINE_integer('clips', 6, 'Clips of every task.', 1)
  _CONFIG = config_flags.DEFINE_config_dict(
    'config',
    ml_collections.ConfigDict({'extract': extract_config.get_config('robot')}),
    'Settings of the back-ends.',
  )
  launch.run(main)
