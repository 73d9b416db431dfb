"""Causal BootsTAPIR (Doersch et al., 2024): a tracker without look-ahead.

Code and checkpoints are Apache-2.0. The code is read from the user's checkout,
because it is not on PyPI.
"""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from drp_jax import weights as weights_lib
from drp_jax.data import schema
from drp_jax.preprocess import track as track_lib

CHECKOUT = weights_lib.Source(
  key='config.extract.tapir.checkout',
  files='a git checkout, with tapnet/torch/tapir_model.py',
  origin='github.com/google-deepmind/tapnet',
  license='Apache-2.0',
)
SOURCE = weights_lib.Source(
  key='config.extract.tapir.weights',
  files='causal_bootstapir_checkpoint.pt',
  origin="the table 'Online BootsTAPIR' in the README of that repository",
  license='Apache-2.0',
)

_CHUNK = 64  # points per batch; affects memory only


@dataclasses.dataclass(frozen=True)
class State:
  """State of the points that are followed in one video.

  Attributes:
    features: features of the points in their first frame; tensors [1, ...].
    context: context of the causal convolutions; dicts of tensors [1, ...].
    points: [K, 2] float32, their last places in the image.
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
      batch_size: frames per batch, in the part that needs no past.
      device: torch device.

    Raises:
      ValueError: for a missing or invalid file.
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
    grids = self._grids(footage.image[None])
    each = [
      _map(lambda x, t=t: x[:, t : t + 1], grids) for t in range(len(footage))
    ]

    def track(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      states = self._begin(each[0], size, points[None].astype(np.float32))
      tracks, visible = [states[0].points], [np.ones(len(points), bool)]
      for grid in each[1:]:
        states, found = self._step(states, grid, size)
        tracks.append(states[0].points)
        visible.append(visible[-1] & found[0])
      return np.stack(tracks), np.stack(visible)  # [T, K, 2], [T, K]

    return track

  def begin(self, footage: schema.Footage, points: np.ndarray) -> list[State]:
    """See `track.OnlineTracker.begin`."""
    size = footage.image.shape[1:3]
    return self._begin(self._grids(footage.image[:, None]), size, points)

  def step(
    self, states: Sequence[State], footage: schema.Footage
  ) -> tuple[list[State], np.ndarray, np.ndarray]:
    """See `track.OnlineTracker.step`."""
    size = footage.image.shape[1:3]
    grids = self._grids(footage.image[:, None])
    states, found = self._step(states, grids, size)
    return states, np.stack([state.points for state in states]), found

  @torch.inference_mode()
  def _grids(self, videos: np.ndarray) -> Any:
    """Computes features of frames of videos [N, T, H, W, 3], without a past."""
    video = torch.from_numpy(np.ascontiguousarray(videos))
    video = video.float().to(self._device) / 127.5 - 1
    return self._model.get_feature_grids(video, is_training=False)

  @torch.inference_mode()
  def _begin(
    self, grids: Any, size: tuple[int, int], points: np.ndarray
  ) -> list[State]:
    """Computes the features of points in N frames without a past."""
    N, K = points.shape[:2]
    # In TAPIR pixel centers are at halves, and points are (t, y, x).
    y_x = torch.from_numpy(points[..., ::-1] + np.float32(0.5))
    queries = torch.nn.functional.pad(y_x, (1, 0)).to(self._device)
    features = self._model.get_query_features(
      torch.empty(N, 1, *size, 3),  # only the shape is read
      is_training=False,
      query_points=queries,
      feature_grids=grids,
    )
    context = self._model.construct_initial_causal_state(
      K, len(features.resolutions) - 1
    )
    context = [
      {name: value.to(self._device) for name, value in level.items()}
      for level in context
    ]
    states = [
      State(_map(lambda x, i=i: x[i : i + 1], features), context, own)
      for i, own in enumerate(points)
    ]
    after, _ = self._step(states, grids, size)  # the first frame becomes past
    return [
      dataclasses.replace(state, context=later.context)
      for state, later in zip(states, after, strict=True)
    ]

  @torch.inference_mode()
  def _step(
    self, states: Sequence[State], grids: Any, size: tuple[int, int]
  ) -> tuple[list[State], np.ndarray]:
    """Advances N states by a frame; also returns who is seen, [N, K] bool."""
    out = self._model.estimate_trajectories(
      size,
      is_training=False,
      feature_grids=grids,
      query_features=_map(
        lambda *x: torch.cat(x), *[state.features for state in states]
      ),
      query_points_in_video=None,
      query_chunk_size=_CHUNK,
      causal_context=[
        {name: torch.cat([own[name] for own in level]) for name in level[0]}
        for level in zip(*[state.context for state in states], strict=True)
      ],
      get_causal_context=True,
    )
    places = out['tracks'][-1][:, :, 0].cpu().numpy() - 0.5
    hidden = torch.sigmoid(out['occlusion'][-1][:, :, 0])
    unsure = torch.sigmoid(out['expected_dist'][-1][:, :, 0])
    seen = ((1 - hidden) * (1 - unsure) > 0.5).cpu().numpy()
    last = np.stack([state.points for state in states])
    points, inside = track_lib.hold(last, places, *size)
    following = []
    for i, state in enumerate(states):
      context = [
        {name: value[i : i + 1] for name, value in level.items()}
        for level in out['causal_context']
      ]
      following.append(State(state.features, context, points[i]))
    return following, seen & inside


def _map(function: Callable[..., torch.Tensor], *features: Any) -> Any:
  """Applies a function to all tensors of features of the same kind."""
  return type(features[0])(
    tuple(map(function, *[f.lowres for f in features])),
    tuple(map(function, *[f.hires for f in features])),
    features[0].resolutions,
  )
