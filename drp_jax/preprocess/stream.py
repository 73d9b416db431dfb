"""Extraction while acting: one frame at a time, without look-ahead (A15).

It uses the functions of `extract_clip`, so an acting agent sees what a data set
holds: flow is equal bit for bit, and so are tracks of the same points.
"""

import concurrent.futures
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import keypoints as keypoints_lib
from drp_jax.preprocess import track as track_lib


@dataclasses.dataclass
class _Episode:
  """Memory of one episode.

  Attributes:
    number: of the episode.
    frame: the last one.
    num_flows: seen so far.
    state: of the tracker.
    points: [K, 2] float32, in the last frame; none before the first window.
    visible: [K] bool, not lost since the window began.
  """

  number: int
  frame: schema.Footage
  num_flows: int = 0
  state: Any = None
  points: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros((0, 2), np.float32)
  )
  visible: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(0, bool)
  )


class StreamingExtractor:
  """Follows keypoints through episodes, in windows of W flows.

  Points are chosen in the first frame of a window, from the motion to the
  second frame. They are followed for W flows and then chosen again.
  """

  def __init__(
    self,
    backends: backends_lib.Backends,
    num_keypoints: int,
    window: int = schema.WINDOW,
    seed: int = 0,
  ):
    """Prepares for the first episodes.

    Args:
      backends: from `backends.make_backends`, used by this extractor alone.
      num_keypoints: K.
      window: W, flows in one tracking window (B6).
      seed: seed of the choice of points, with the number of the episode.

    Raises:
      ValueError: if the tracker needs later frames.
    """
    if not isinstance(backends.tracker, track_lib.OnlineTracker):
      raise ValueError(
        f'config.extract.tracker: {type(backends.tracker).__name__} needs '
        'frames that are still to come; while acting it must be one of '
        f'{list(backends_lib.WHILE_ACTING)}.'
      )
    self._backends = backends
    self._tracker = backends.tracker
    self._num_keypoints = num_keypoints
    self._window = window
    self._seed = seed
    self._episodes: dict[int, _Episode] = {}
    self._thread = concurrent.futures.ThreadPoolExecutor(1, 'flow')

  def step(
    self,
    images: np.ndarray,
    is_first: Sequence[bool],
    episodes: Sequence[int],
    scene: dict[str, np.ndarray] | None = None,
  ) -> dict[str, np.ndarray]:
    """Takes the next frames of N episodes.

    The result for an episode is a function of (seed, number, frames). It
    depends neither on other episodes nor on earlier ones, so a resumed run sees
    the same.

    Args:
      images: [N, 64, 64, 3] uint8 RGB.
      is_first: [N], whether an episode begins here.
      episodes: [N], numbers of the episodes. All other episodes are over and
        are forgotten.
      scene: name -> [N, ...] from a simulator, for the back-ends 'sim'; see
        `schema.Footage`.

    Returns:
      flow: [N, 64, 64, 2] float16, from the last frame to this one.
      points: [N, K, 2] float32, pixels, (x, y), in the last frame.
      visible: [N, K] bool, not lost since the window began.
      window_step: [N] int32 in [0, W).
      All are zeros where `is_first`.

    Raises:
      ValueError: if an episode did not begin with `is_first`.
    """
    now = schema.Footage(images, scene)
    out = self._zeros(*images.shape[:3])
    before, self._episodes = self._episodes, {}
    going_on = []
    for i, number in enumerate(episodes):
      if is_first[i]:
        self._episodes[number] = _Episode(number, now[[i]])
      elif number in before:
        self._episodes[number] = before[number]
        going_on.append(i)
      else:
        raise ValueError(
          f'is_first=False at the first step of episode {number}; it must be'
          ' True.'
        )
    if going_on:
      followed = [self._episodes[episodes[i]] for i in going_on]
      for name, values in self._follow(followed, now[going_on]).items():
        out[name][going_on] = values
    return out

  def _follow(
    self, episodes: list[_Episode], now: schema.Footage
  ) -> dict[str, np.ndarray]:
    """Advances episodes to the next frames; returns rows of `step`."""
    last = _join([episode.frame for episode in episodes])
    new = [i for i, e in enumerate(episodes) if e.num_flows % self._window == 0]
    if new:
      self._begin_windows([episodes[i] for i in new], last[new], now[new])
    # In parallel with the tracker, which takes as long; both are independent.
    flow = self._thread.submit(self._backends.flow, last, now)
    out = {
      'points': np.stack([episode.points for episode in episodes]),
      'visible': np.stack([episode.visible for episode in episodes]),
      'window_step': np.array([e.num_flows % self._window for e in episodes]),
    }
    states, points, found = self._tracker.step(
      [episode.state for episode in episodes], now
    )
    out['flow'] = flow.result().astype(np.float16)
    for i, episode in enumerate(episodes):
      episode.state, episode.points = states[i], points[i]
      episode.visible = episode.visible & found[i]
      episode.frame = now[[i]]
      episode.num_flows += 1
    return out

  def _begin_windows(
    self, episodes: list[_Episode], last: schema.Footage, now: schema.Footage
  ) -> None:
    """Chooses points in the last frames, by their motion to these frames."""
    for i, episode in enumerate(episodes):
      window_index = episode.num_flows // self._window
      rng = np.random.default_rng([self._seed, episode.number, window_index])
      pair = _join([last[[i]], now[[i]]])
      tracks, _ = keypoints_lib.select(
        self._tracker.over_clip(pair),
        self._backends.mask(pair),
        self._num_keypoints,
        rng,
      )
      episode.points = tracks[0]
      episode.visible = np.ones(len(tracks[0]), bool)
    points = np.stack([episode.points for episode in episodes])
    states = self._tracker.begin(last, points)
    for episode, state in zip(episodes, states, strict=True):
      episode.state = state

  def _zeros(self, count: int, height: int, width: int):
    """Returns rows of `step` for the first frames of episodes."""
    K = self._num_keypoints
    return {
      'flow': np.zeros((count, height, width, 2), np.float16),
      'points': np.zeros((count, K, 2), np.float32),
      'visible': np.zeros((count, K), bool),
      'window_step': np.zeros(count, np.int32),
    }


def _join(footages: Sequence[schema.Footage]) -> schema.Footage:
  """Concatenates footages."""
  image = np.concatenate([footage.image for footage in footages])
  scenes = [footage.scene for footage in footages if footage.scene is not None]
  if not scenes:
    return schema.Footage(image)
  return schema.Footage(
    image,
    {n: np.concatenate([scene[n] for scene in scenes]) for n in scenes[0]},
  )
