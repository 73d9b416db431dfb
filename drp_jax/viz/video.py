"""Videos for human viewers: grids, open-loop comparisons, animated WebP."""

import io
import math
from collections.abc import Collection, Mapping, Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

CONTEXT_COLOR = (0, 114, 178)  # Okabe and Ito's blue: the model sees the frame
PREDICTED_COLOR = (213, 94, 0)  # their vermilion: the model predicts the frame
_BORDER = 3
_GAP = 4
_BACKGROUND = (24, 24, 27)
_INK = (228, 228, 231)
_ERROR_TOP = 96  # gray levels of error drawn as the brightest color


def grid(videos: np.ndarray, columns: int | None = None) -> np.ndarray:
  """Arranges N clips in rows.

  Args:
    videos: [N, T, H, W, 3] uint8.
    columns: clips per row; the square root of N if None.

  Returns:
    [T, h, w, 3] uint8, with gaps between the clips.
  """
  _check('videos', videos)
  N, T, H, W, _ = videos.shape
  columns = columns or math.ceil(math.sqrt(N))
  rows = math.ceil(N / columns)
  panel = np.empty(
    [T, rows * (H + _GAP) - _GAP, columns * (W + _GAP) - _GAP, 3], np.uint8
  )
  panel[:] = _BACKGROUND
  for n, video in enumerate(videos):
    y, x = (n // columns) * (H + _GAP), (n % columns) * (W + _GAP)
    panel[:, y : y + H, x : x + W] = video
  return panel


def open_loop_video(
  rows: Mapping[str, np.ndarray], context: int, scale: int = 2
) -> np.ndarray:
  """Compares a model's predictions with the true frames, as a clip.

  There is one row per entry, then a row of errors (mean absolute difference of
  the last entry from the first, black to yellow), and one column per clip. A
  blue border means that the model saw this frame, a vermilion border that it
  predicted it.

  Args:
    rows: label -> [N, T, H, W, 3] uint8; the truth first, the model's open-loop
      frames last (for t < context, its reconstructions). Rows in between, such
      as reconstructions of all frames, have seen every frame.
    context: number of frames that the model sees.
    scale: factor by which frames are enlarged.

  Returns:
    [T, h, w, 3] uint8.

  Raises:
    ValueError: if shapes disagree or context is not in 1..T.
  """
  rows = _with_error(rows, context)
  borders = _borders(len(rows), rows['error'].shape[1], context)
  return _panel(rows, borders, scale)


def open_loop_strip(
  rows: Mapping[str, np.ndarray],
  context: int,
  columns: int = 10,
  scale: int = 2,
) -> np.ndarray:
  """Compares like `open_loop_video`, in one picture; time runs to the right.

  Args:
    rows: label -> [T, H, W, 3] uint8, one clip.
    context: number of frames that the model sees.
    columns: number of moments, evenly spaced from first to last.
    scale: factor by which frames are enlarged.

  Returns:
    [h, w, 3] uint8, the frame numbers above.
  """
  rows = _with_error({k: v[None] for k, v in rows.items()}, context)
  borders = _borders(len(rows), rows['error'].shape[1], context)
  return _strip(rows, borders, columns, scale)


def prediction_video(
  rows: Mapping[str, np.ndarray],
  context: int,
  scale: int = 2,
  seen: Collection[str] = (),
) -> np.ndarray:
  """Compares several models with the true frames, as a clip (Figs. 8, 15).

  Every row except the first has borders as in `open_loop_video`.

  Args:
    rows: label -> [N, T, H, W, 3] uint8; the truth first.
    context: number of frames that the models see.
    scale: factor by which frames are enlarged.
    seen: labels of rows whose model saw every frame.

  Returns:
    [T, h, w, 3] uint8.

  Raises:
    ValueError: if shapes disagree or context is not in 1..T.
  """
  return _panel(rows, _checked_borders(rows, context, seen), scale)


def prediction_strip(
  rows: Mapping[str, np.ndarray],
  context: int,
  columns: int = 10,
  scale: int = 2,
  seen: Collection[str] = (),
) -> np.ndarray:
  """Compares like `prediction_video`, one clip in one picture.

  Args:
    rows: label -> [T, H, W, 3] uint8; the truth first.
    context: number of frames that the models see.
    columns: number of moments, evenly spaced from first to last.
    scale: factor by which frames are enlarged.
    seen: labels of rows whose model saw every frame.

  Returns:
    [h, w, 3] uint8, the frame numbers above.
  """
  rows = {name: frames[None] for name, frames in rows.items()}
  return _strip(rows, _checked_borders(rows, context, seen), columns, scale)


def encode_webp(frames: np.ndarray, fps: float, quality: int = 80) -> bytes:
  """Encodes [T, H, W, 3] uint8 as an animated WebP that loops.

  Equal neighboring frames become one frame that lasts longer.
  """
  _check('frames', frames[None])
  first, *rest = [Image.fromarray(frame) for frame in frames]
  data = io.BytesIO()
  first.save(
    data,
    'WEBP',
    save_all=True,
    append_images=rest,
    duration=round(1000 / fps),
    loop=0,
    quality=quality,
    method=4,
  )
  return data.getvalue()


def encode_png(image: np.ndarray) -> bytes:
  """Encodes [H, W, 3] uint8 as a PNG."""
  data = io.BytesIO()
  Image.fromarray(image).save(data, 'PNG', optimize=True)
  return data.getvalue()


def _check(name: str, videos: np.ndarray):
  if videos.dtype != np.uint8 or videos.ndim != 5 or videos.shape[-1] != 3:
    raise ValueError(
      f'{name} is {videos.dtype}{list(videos.shape)}, expected'
      ' uint8[N, T, H, W, 3] (N = 1 left out for a single clip).'
    )


def _panel(
  rows: Mapping[str, np.ndarray], borders: np.ndarray, scale: int
) -> np.ndarray:
  """Puts clips [N, T, H, W, 3] beside each other, a row for each entry."""
  framed = [
    _framed(videos, border, scale)
    for videos, border in zip(rows.values(), borders, strict=True)
  ]
  panel = grid(np.concatenate(framed), columns=len(framed[0]))
  return _with_labels(panel, list(rows), framed[0].shape[2:4])


def _strip(
  rows: Mapping[str, np.ndarray], borders: np.ndarray, columns: int, scale: int
) -> np.ndarray:
  """Puts moments of one clip beside each other, a row for each entry."""
  T = borders.shape[1]
  moments = np.unique(np.linspace(0, T - 1, columns).round().astype(int))
  cells = [
    _framed(videos, border, scale)[0, moments, None]
    for videos, border in zip(rows.values(), borders, strict=True)
  ]  # [columns, 1, h, w, 3] each
  panel = grid(np.concatenate(cells), columns=len(moments))
  return _with_labels(
    panel, list(rows), cells[0].shape[2:4], [f't = {t}' for t in moments]
  )[0]


def _checked_borders(
  rows: Mapping[str, np.ndarray], context: int, seen: Collection[str]
) -> np.ndarray:
  """Returns border colors [rows, T, 3] uint8; all but the first are predicted.

  Rows in `seen` have the border of seen frames throughout.
  """
  _check_rows(rows, context)
  T = next(iter(rows.values())).shape[1]
  borders = np.empty([len(rows), T, 3], np.uint8)
  borders[:] = CONTEXT_COLOR
  borders[0, context:] = _BACKGROUND
  for row, label in enumerate(rows):
    if row and label not in seen:
      borders[row, context:] = PREDICTED_COLOR
  return borders


def _check_rows(rows: Mapping[str, np.ndarray], context: int) -> None:
  truth = next(iter(rows.values()))
  for name, videos in rows.items():
    _check(name, videos)
    if videos.shape != truth.shape:
      raise ValueError(
        f'{name!r} has shape {list(videos.shape)}, the truth'
        f' {list(truth.shape)}.'
      )
  if not 1 <= context <= truth.shape[1]:
    raise ValueError(f'context={context} must be in 1..T={truth.shape[1]}.')


def _with_error(
  rows: Mapping[str, np.ndarray], context: int
) -> dict[str, np.ndarray]:
  _check_rows(rows, context)
  truth, *_, model = rows.values()
  error = np.abs(truth.astype(np.float32) - model).mean(-1) / _ERROR_TOP
  colored = matplotlib.colormaps['inferno'](np.clip(error, 0, 1))[..., :3]
  return {**rows, 'error': np.round(255 * colored).astype(np.uint8)}


def _borders(num_rows: int, num_frames: int, context: int) -> np.ndarray:
  """Returns the border colors of `open_loop_video`, [rows, T, 3] uint8."""
  borders = np.empty([num_rows, num_frames, 3], np.uint8)
  borders[:] = CONTEXT_COLOR
  borders[0, context:] = _BACKGROUND
  borders[-2:, context:] = PREDICTED_COLOR  # the model's and the error's
  return borders


def _framed(videos: np.ndarray, border: np.ndarray, scale: int) -> np.ndarray:
  """Enlarges [N, T, H, W, 3], and draws border[t] around frame t."""
  videos = videos.repeat(scale, 2).repeat(scale, 3)
  N, T, H, W, _ = videos.shape
  framed = np.empty([N, T, H + 2 * _BORDER, W + 2 * _BORDER, 3], np.uint8)
  framed[:] = border[:, None, None]
  framed[:, :, _BORDER:-_BORDER, _BORDER:-_BORDER] = videos
  return framed


def _with_labels(
  panel: np.ndarray,
  row_labels: list[str],
  cell: tuple[int, int],
  column_labels: Sequence[str] = (),
) -> np.ndarray:
  """Adds a margin with a label per row on the left, per column on top."""
  font = ImageFont.load_default(size=14)
  left = 16 + math.ceil(max(font.getlength(label) for label in row_labels))
  top = 22 if column_labels else 0
  T, H, W, _ = panel.shape
  canvas = Image.new('RGB', (left + W, top + H), _BACKGROUND)
  draw = ImageDraw.Draw(canvas)
  for row, label in enumerate(row_labels):
    y = top + row * (cell[0] + _GAP) + cell[0] / 2
    draw.text((left - 8, y), label, fill=_INK, font=font, anchor='rm')
  for column, label in enumerate(column_labels):
    x = left + column * (cell[1] + _GAP) + cell[1] / 2
    draw.text((x, top / 2), label, fill=_INK, font=font, anchor='mm')
  labeled = np.repeat(np.asarray(canvas)[None], T, 0)
  labeled[:, top:, left:] = panel
  return labeled
