"""CoTracker3 (Karaev et al., 2024): the paper's tracker.

Code and weights are CC-BY-NC 4.0, for non-commercial use only. Neither is part
of this project: both are read from the user's paths.
"""

import numpy as np
import torch

from drp_jax import weights as weights_lib
from drp_jax.data import schema
from drp_jax.preprocess import track as track_lib

LICENSE = 'CC-BY-NC 4.0, non-commercial use only'
CHECKOUT = weights_lib.Source(
  key='config.extract.cotracker3.checkout',
  files='a git checkout, with hubconf.py',
  origin='github.com/facebookresearch/co-tracker',
  license=LICENSE,
)
SOURCE = weights_lib.Source(
  key='config.extract.cotracker3.weights',
  files='scaled_offline.pth',
  origin='facebook/cotracker3 of the Hugging Face hub',
  license=LICENSE,
)


class CoTracker3:
  """Follows all points of a clip together, using earlier and later frames.

  CoTracker's online model works in windows of 16 frames with a delay of 8, so
  it cannot go from frame to frame either. There is no `begin` and `step`.
  """

  def __init__(self, checkout: str, weights: str, device: str):
    """Loads the predictor of a checkout.

    Args:
      checkout: folder, see `CHECKOUT`. Its code is run.
      weights: path of a file, see `SOURCE`.
      device: torch device.

    Raises:
      ValueError: for a missing or invalid file.
    """
    folder = weights_lib.find_folder(checkout, (('hubconf.py',),), CHECKOUT)
    path = weights_lib.find_file(weights, SOURCE)
    predictor = torch.hub.load(
      str(folder.resolve()),
      'cotracker3_offline',
      source='local',
      pretrained=False,
    )
    tensors = weights_lib.read(path, SOURCE)
    weights_lib.fill(predictor.model, tensors, SOURCE)
    self._predictor = predictor.eval().to(device)
    self._device = device

  def over_clip(self, footage: schema.Footage) -> track_lib.TrackFn:
    """See `track.Tracker.over_clip`. A track depends on the other points."""
    height, width = footage.image.shape[1:3]
    video = torch.from_numpy(np.ascontiguousarray(footage.image))
    video = video.permute(0, 3, 1, 2)[None].float().to(self._device)

    @torch.inference_mode()
    def track(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
      in_frame_0 = np.pad(points.astype(np.float32), ((0, 0), (1, 0)))
      queries = torch.from_numpy(in_frame_0)[None].to(self._device)  # (t, x, y)
      places, seen = self._predictor(video, queries=queries)
      places, seen = places[0].cpu().numpy(), seen[0].cpu().numpy()
      tracks = [points.astype(np.float32)]
      visible = [np.ones(len(points), bool)]
      for place, found in zip(places[1:], seen[1:], strict=True):
        held, inside = track_lib.hold(tracks[-1], place, height, width)
        tracks.append(held)
        visible.append(visible[-1] & found & inside)
      return np.stack(tracks), np.stack(visible)  # [T, K, 2], [T, K]

    return track
