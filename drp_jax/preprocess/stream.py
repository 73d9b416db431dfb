"""Extraction while acting: one frame at a time, no look ahead (A15).

Uses the functions of `extract_clip`, so what an acting agent sees equals what a
data set holds: flow to the bit, tracks too once their points are chosen.
"""

import numpy as np

from drp_jax.data import schema
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import keypoints as keypoints_lib


class StreamingExtractor:
  """Follows keypoints through an episode, in windows of W flows.

  Points are chosen in the first frame of a window, from the motion to the
  second, and followed until W flows have been seen; then they are chosen anew.
  """

  def __init__(
    self,
    backends: backends_lib.Backends,
    num_keypoints: int,
    window: int = schema.WINDOW,
    seed: int = 0,
  ):
    """Prepares for the first episode.

    Args:
      backends: from `backends.make_backends`, used by this extractor alone.
      num_keypoints: K.
      window: W, flows in one tracking window (B6).
      seed: of the choice of points, together with the episode's number.

    Raises:
      ValueError: if the tracker looks ahead.
    """
    if not hasattr(backends.tracker, 'step'):
      raise ValueError(
        f'config.extract.tracker: {type(backends.tracker).__name__} needs '
        'frames that are still to come; while acting it must be one of '
        f'{list(backends_lib.WHILE_ACTING)}.'
      )
    self._backends = backends
    self._num_keypoints = num_keypoints
    self._window = window
    self._seed = seed
    self._image = None  # the last frame

  def step(
    self, image: np.ndarray, is_first: bool, episode: int = 0
  ) -> dict[str, np.ndarray]:
    """Takes the next frame of an episode.

    Args:
      image: [64, 64, 3] uint8 RGB.
      is_first: whether an episode begins here.
      episode: its number, read where `is_first`. The results of an episode are
        a function of (seed, episode, frames), so a resumed run sees the same.

    Returns:
      flow: [64, 64, 2] float16, from the last frame to this one.
      points: [K, 2] float32, pixels, (x, y), in the last frame.
      visible: [K] bool, not lost since the window began.
      window_step: [] int32 in [0, W).
      All are zeros where `is_first`.

    Raises:
      ValueError: if the very first frame is not `is_first`.
    """
    if is_first:
      self._image, self._episode, self._num_flows = image.copy(), episode, 0
      return self._zeros(image)
    if self._image is None:
      raise ValueError('is_first=False at the first step; it must be True.')

    window_index, window_step = divmod(self._num_flows, self._window)
    pair = schema.Footage(np.stack([self._image, image]))
    tracker = self._backends.tracker
    if window_step == 0:
      self._points = self._choose(pair, window_index)
      self._visible = np.ones(len(self._points), bool)
      self._state = tracker.begin(pair[:1], self._points)
    step = {
      'flow': self._backends.flow(pair[:1], pair[1:])[0].astype(np.float16),
      'points': self._points,
      'visible': self._visible,
      'window_step': np.int32(window_step),
    }
    self._state, self._points, found = tracker.step(self._state, pair[1:])
    self._visible = self._visible & found
    self._image = pair.image[1]
    self._num_flows += 1
    return step

  def _choose(self, pair: schema.Footage, window_index: int) -> np.ndarray:
    """Chooses points [K, 2] in the last frame, by their motion to this one."""
    rng = np.random.default_rng([self._seed, self._episode, window_index])
    tracks, _ = keypoints_lib.select(
      self._backends.tracker.over_clip(pair),
      self._backends.mask(pair),
      self._num_keypoints,
      rng,
    )
    return tracks[0]

  def _zeros(self, image: np.ndarray) -> dict[str, np.ndarray]:
    """What the first frame of an episode gives."""
    return {
      'flow': np.zeros((*image.shape[:2], 2), np.float16),
      'points': np.zeros((self._num_keypoints, 2), np.float32),
      'visible': np.zeros(self._num_keypoints, bool),
      'window_step': np.int32(0),
    }
