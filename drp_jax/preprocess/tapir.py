"""Causal BootsTAPIR (Doersch et al., 2024): a tracker that never looks ahead.

Code and checkpoints are Apache-2.0. The code is read from a checkout of the
user, since it is not on PyPI.
"""

import dataclasses
import sys
from typing import Any

import numpy as np
import torch

from drp_jax.data import schema
from drp_jax.preprocess import track as track_lib
from drp_jax.preprocess import weights as weights_lib

CHECKOUT = weights_lib.Source(
  key='config.extract.tapir.checkout',
  files='a git checkout, with tapnet/torch/tapir_model.py',
  origin='github.com/google-deepmind/tapnet',
  licence='Apache-2.0',
)
SOURCE = weights_lib.Source(
  key='config.extract.tapir.weights',
  files='causal_bootstapir_checkpoint.pt',
  origin="the table 'Online BootsTAPIR' in the README of that repository",
  licence='Apache-2.0',
)

_CHUNK = 64  # points at a time; memory only


@dataclasses.dataclass(frozen=True)
class State:
  """What the model remembers of the points it follows.

  Attributes:
    features: of the points, in the frame where they began.
    context: of the causal convolutions.
    points: [K, 2] float32, where they were last in the image.
  """

  features: Any
  context: Any
  points: np.ndarray


class Tapir:
  """Follows each point by itself, from frame to frame."""

  def __init__(self, checkout: str, weights: str, batch_size: int, device: str):
    """Loads the model of a checkout.

    Args:
      checkout: folder, see `CHECKOUT`. Its code is run.
      weights: path of a file, see `SOURCE`.
      batch_size: frames at a time, for what needs no past.
      device: of torch.

    Raises:
      ValueError: for a missing file, or one that does not fit.
    """
    module = 'tapnet/torch/tapir_model.py'
    folder = weights_lib.find_folder(checkout, ((module,),), CHECKOUT)
    path = weights_lib.find_file(weights, SOURCE)
    sys.path.insert(0, str(folder.resolve()))
    try:
      from tapnet.torch import tapir_model
    finally:
      sys.path.pop(0)
    # As in tapnet/pytorch_live_demo.py.
    model = tapir_model.TAPIR(
      pyramid_level=1,
      use_casual_conv=True,  # (sic)
      feature_extractor_chunk_size=batch_size,
    )
    weights_lib.fill(model, weights_lib.read(path, SOURCE), SOURCE)
    self._model = model.eval().to(device)
    self._device = device

  def over_clip(self, footage: schema.Footage) -> track_lib.TrackFn:
    """See `track.Tracker.over_clip`."""
    size = footage.image.shape[1:3]
    grids = self._grids(footage)
    each = [_frame(grids, t) for t in range(len(footage))]

    def track(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      state = self._begin(each[0], size, points.astype(np.float32))
      tracks, visible = [state.points], [np.ones(len(points), bool)]
      for grid in each[1:]:
        state, found = self._step(state, grid, size)
        tracks.append(state.points)
        visible.append(visible[-1] & found)
      return np.stack(tracks), np.stack(visible)  # [T, K, 2], [T, K]

    return track

  def begin(self, footage: schema.Footage, points: np.ndarray) -> State:
    """See `track.OnlineTracker.begin`."""
    size = footage.image.shape[1:3]
    return self._begin(self._grids(footage), size, points)

  def step(
    self, state: State, footage: schema.Footage
  ) -> tuple[State, np.ndarray, np.ndarray]:
    """See `track.OnlineTracker.step`."""
    size = footage.image.shape[1:3]
    state, found = self._step(state, self._grids(footage), size)
    return state, state.points, found

  @torch.inference_mode()
  def _grids(self, footage: schema.Footage) -> Any:
    """Features of all frames, which need no past."""
    video = torch.from_numpy(np.ascontiguousarray(footage.image))
    video = video[None].float().to(self._device) / 127.5 - 1
    return self._model.get_feature_grids(video, is_training=False)

  @torch.inference_mode()
  def _begin(
    self, grids: Any, size: tuple[int, int], points: np.ndarray
  ) -> State:
    """Takes the features of points in a frame, whose past is empty."""
    # TAPIR puts pixel centres at halves, and asks for (t, y, x).
    y_x = torch.from_numpy(points[:, ::-1] + np.float32(0.5))
    queries = torch.nn.functional.pad(y_x, (1, 0))[None].to(self._device)
    features = self._model.get_query_features(
      torch.empty(1, 1, *size, 3),  # only its shape is read
      is_training=False,
      query_points=queries,
      feature_grids=grids,
    )
    context = self._model.construct_initial_causal_state(
      len(points), len(features.resolutions) - 1
    )
    context = [
      {name: value.to(self._device) for name, value in level.items()}
      for level in context
    ]
    state = State(features, context, points)
    after, _ = self._step(state, grids, size)  # the first frame is past, too
    return State(features, after.context, points)

  @torch.inference_mode()
  def _step(
    self, state: State, grids: Any, size: tuple[int, int]
  ) -> tuple[State, np.ndarray]:
    """The state one frame later, and [K] bool, which points are seen there."""
    out = self._model.estimate_trajectories(
      size,
      is_training=False,
      feature_grids=grids,
      query_features=state.features,
      query_points_in_video=None,
      query_chunk_size=_CHUNK,
      causal_context=state.context,
      get_causal_context=True,
    )
    places = out['tracks'][-1][0, :, 0].cpu().numpy() - 0.5
    hidden = torch.sigmoid(out['occlusion'][-1][0, :, 0])
    unsure = torch.sigmoid(out['expected_dist'][-1][0, :, 0])
    seen = ((1 - hidden) * (1 - unsure) > 0.5).cpu().numpy()
    points, inside = track_lib.hold(state.points, places, *size)
    return State(state.features, out['causal_context'], points), seen & inside


def _frame(grids: Any, t: int) -> Any:
  """Features of frame t, of features of a clip."""
  return type(grids)(
    tuple(level[:, t : t + 1] for level in grids.lowres),
    tuple(level[:, t : t + 1] for level in grids.hires),
    grids.resolutions,
  )
