import io

import numpy as np
import pytest
from PIL import Image

from drp_jax.viz import video


def _videos(N, T, S=8):
  rng = np.random.default_rng(0)
  return rng.integers(0, 255, [N, T, S, S, 3], dtype=np.uint8)


def test_grid_puts_clips_in_reading_order():
  videos = _videos(3, 2)
  panel = video.grid(videos, columns=2)
  assert panel.shape == (2, 8 + 4 + 8, 8 + 4 + 8, 3)
  np.testing.assert_array_equal(panel[:, :8, :8], videos[0])
  np.testing.assert_array_equal(panel[:, :8, 12:], videos[1])
  np.testing.assert_array_equal(panel[:, 12:, :8], videos[2])
  assert len(np.unique(panel[:, 12:, 12:].reshape(-1, 3), axis=0)) == 1


def test_webp_decodes_to_the_frames():
  frames = np.zeros([6, 32, 48, 3], np.uint8)
  for t in range(6):
    frames[t, :, 8 * t : 8 * t + 8] = (200, 40, 40)
  clip = Image.open(io.BytesIO(video.encode_webp(frames, fps=8, quality=95)))
  assert (clip.format, clip.n_frames, clip.size) == ('WEBP', 6, (48, 32))
  assert clip.info['loop'] == 0
  for t in range(6):
    clip.seek(t)
    decoded = np.asarray(clip.convert('RGB'), np.int32)
    assert clip.info['duration'] == 125  # ms
    assert np.abs(decoded - frames[t]).mean() < 8
    assert decoded[16, 8 * t + 4, 0] > 150  # the bar is where it was drawn


def test_png_is_lossless():
  image = _videos(1, 1)[0, 0]
  decoded = Image.open(io.BytesIO(video.encode_png(image)))
  assert decoded.format == 'PNG'
  np.testing.assert_array_equal(np.asarray(decoded), image)


def _has(picture, color):
  return bool((picture == np.array(color, np.uint8)).all(-1).any())


def test_open_loop_video_marks_context_and_shows_error():
  truth = np.zeros([2, 4, 16, 16, 3], np.uint8)
  model = truth.copy()
  model[0, 3] = 255  # wrong in the last frame of the first clip only
  panel = video.open_loop_video({'true': truth, 'model': model}, 2, scale=2)
  cell = 2 * 16 + 2 * 3
  left = panel.shape[2] - (2 * cell + 4)
  assert panel.shape[:2] == (4, 3 * cell + 2 * 4) and left > 20

  def part(t, row, column):
    y, x = row * (cell + 4), left + column * (cell + 4)
    return panel[t, y : y + cell, x : x + cell]

  for t in range(4):
    shown = t < 2
    assert _has(part(t, 0, 0), video.CONTEXT_COLOR) == shown
    assert not _has(part(t, 0, 0), video.PREDICTED_COLOR)
    assert _has(part(t, 1, 0), video.CONTEXT_COLOR) == shown
    assert _has(part(t, 1, 0), video.PREDICTED_COLOR) != shown
  middle = cell // 2
  assert part(3, 2, 0)[middle, middle].max() > 200  # bright: error
  assert part(3, 2, 1)[middle, middle].max() < 10  # dark: none
  assert (part(3, 1, 0)[middle, middle] == 255).all()
  labels = panel[0, :, :left]
  assert labels.max() > 150  # something is written in the margin


def test_a_reconstruction_has_seen_every_frame():
  clips = _videos(1, 4)
  rows = {'true': clips, 'reconstructed': clips, 'open loop': clips}
  panel = video.open_loop_video(rows, context=1, scale=1)
  cell = 8 + 2 * 3
  row = panel[3, cell + 4 : 2 * cell + 4]
  assert _has(row, video.CONTEXT_COLOR)
  assert not _has(row, video.PREDICTED_COLOR)


def test_open_loop_strip_runs_from_first_to_last():
  truth, model = _videos(2, 9)
  strip = video.open_loop_strip(
    {'true': truth, 'model': model}, context=3, columns=5, scale=1
  )
  cell = 8 + 2 * 3
  assert strip.ndim == 3
  left = strip.shape[1] - (5 * cell + 4 * 4)
  top = strip.shape[0] - (3 * cell + 2 * 4)
  assert top > 0
  for column, t in enumerate([0, 2, 4, 6, 8]):
    x = left + column * (cell + 4) + 3
    np.testing.assert_array_equal(
      strip[top + 3 : top + 11, x : x + 8], truth[t]
    )


def test_rows_that_have_seen_every_frame_are_bordered_as_seen():
  rows = {name: _videos(1, 4) for name in ('true', 'seen', 'model')}
  panel = video.prediction_video(rows, 1, scale=1, seen=['seen'])
  left = panel.shape[2] - 14
  for t, row, color in (
    (0, 0, video.CONTEXT_COLOR),
    (0, 1, video.CONTEXT_COLOR),
    (0, 2, video.CONTEXT_COLOR),
    (3, 1, video.CONTEXT_COLOR),
    (3, 2, video.PREDICTED_COLOR),
  ):
    assert tuple(panel[t, row * (14 + 4), left]) == color, (t, row)
  assert tuple(panel[3, 0, left]) not in (
    video.CONTEXT_COLOR,
    video.PREDICTED_COLOR,
  )


@pytest.mark.parametrize('context', [0, 5])
def test_context_must_lie_in_the_clip(context):
  clips = _videos(1, 4)
  with pytest.raises(ValueError, match=f'context={context}'):
    video.open_loop_video({'true': clips, 'model': clips}, context)


def test_rows_must_agree():
  with pytest.raises(ValueError, match="'model' has shape"):
    video.open_loop_video({'true': _videos(1, 4), 'model': _videos(1, 3)}, 2)
  with pytest.raises(ValueError, match='float64'):
    video.grid(np.zeros([1, 2, 4, 4, 3]))
