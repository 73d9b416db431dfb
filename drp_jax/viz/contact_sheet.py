"""Draws many clips in one picture, a row for each."""

from collections.abc import Sequence

import cv2
import numpy as np

_TITLE_HEIGHT = 18  # pixels above a row
_GAP = 10  # pixels between frames of a row
_INK, _PAPER = 235, 24  # gray levels


def contact_sheet(
  clips: Sequence[np.ndarray], titles: Sequence[str], times: Sequence[int]
) -> np.ndarray:
  """Lays out some frames of every clip.

  Args:
    clips: [T, h, w, 3] uint8 each, of one size; from `overlay.clip_panels`.
    titles: text above each clip.
    times: numbers of the frames to show, from left to right.

  Returns:
    [H, W, 3] uint8.

  Raises:
    ValueError: if there is no clip, or not one title for each.
  """
  if not clips or len(clips) != len(titles):
    raise ValueError(
      f'{len(clips)} clips and {len(titles)} titles: there must be one title '
      'for each clip, and at least one clip.'
    )
  rows = []
  for clip, title in zip(clips, titles, strict=True):
    gap = np.full((clip.shape[1], _GAP, 3), _PAPER, np.uint8)
    parts = [part for t in times for part in (clip[t], gap)][:-1]
    row = np.concatenate(parts, axis=1)
    rows += [_title(title, row.shape[1]), row]
  return np.concatenate(rows)


def _title(text: str, width: int) -> np.ndarray:
  """Draws a title, [_TITLE_HEIGHT, width, 3] uint8; long text is cut off."""
  strip = np.full((_TITLE_HEIGHT, width, 3), _PAPER, np.uint8)
  # OpenCV's fonts have ASCII only.
  text = text.encode('ascii', 'replace').decode()
  corner, ink = (4, _TITLE_HEIGHT - 5), (_INK,) * 3
  font = cv2.FONT_HERSHEY_SIMPLEX
  cv2.putText(strip, text, corner, font, 0.42, ink, 1, cv2.LINE_AA)
  return strip
