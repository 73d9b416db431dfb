"""Causal BootsTAPIR (Doersch et al., 2024): a tracker that never looks ahead.

Code and checkpoints are Apache-2.0. The code is read from a checkout of the
user, since it is not on PyPI.
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

_CHUNK = 64  # points at a time; memory only


@dataclasses.dataclass(frozen=True)
class State:
  """What the model remembers of the points it follows in one video.

  Attributes:
    features: of the points, in the frame where they began; tensors [1, ...].
    context: of the causal convolutions; dicts of tensors [1, ...].
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
    """Features of all frames of videos [N, T, H, W, 3], which need no past."""
    video = torch.from_numpy(np.ascontiguousarray(videos))
    video = video.float().to(self._device) / 127.5 - 1
    return self._model.get_feature_grids(video, is_training=False)

  @torch.inference_mode()
  def _begin(
    self, grids: Any, size: tuple[int, int], points: np.ndarray
  ) -> list[State]:
    """Takes the features of points in N frames, whose past is empty."""
    N, K = points.shape[:2]
    # TAPIR puts pixel centers at halves, and asks for (t, y, x).
    y_x = torch.from_numpy(points[..., ::-1] + np.float32(0.5))
    queries = torch.nn.functional.pad(y_x, (1, 0)).to(self._device)
    features = self._model.get_query_features(
      torch.empty(N, 1, *size, 3),  # only its shape is read
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
    after, _ = self._step(states, grids, size)  # the first frame is past, too
    return [
      dataclasses.replace(state, context=later.context)
      for state, later in zip(states, after, strict=True)
    ]

  @torch.inference_mode()
  def _step(
    self, states: Sequence[State], grids: Any, size: tuple[int, int]
  ) -> tuple[list[State], np.ndarray]:
    """N states one frame later; [N, K] bool, which points are seen there."""
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
