"""Video files in and out, through PyAV (the FFmpeg libraries), and pictures.

Frames come one at a time, so a long video never has to fit into memory, and
are resized straight to 64x64 without keeping the aspect, as IPV does [IPV]; by
option the largest square in the centre is cut out first, which keeps it.
"""

import contextlib
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import av
import cv2
import numpy as np

from drp_jax.data import schema

# Visually lossless: at 64 pixels FFmpeg's defaults blur the texture that flow
# and tracking live on. x264's macroblock tree reads memory that it never wrote,
# so it encodes the same frames differently from call to call; and the fastest
# code for one processor rounds differently from that for another.
_CODECS = {
  '.mp4': (
    'libx264',
    {'crf': '10', 'x264-params': 'mbtree=0:cpu-independent=1'},
  ),
  '.webm': ('libvpx-vp9', {'crf': '10', 'b:v': '0', 'cpu-used': '4'}),
}


class UnusableVideo(ValueError):
  """A video that cannot become a clip; a build lists it and goes on.

  Attributes:
    reason: for counting, one of 'missing', 'unreadable' (nothing that FFmpeg
      knows, or its index is lost), 'no_video' (sound only), 'empty', 'corrupt'
      (damaged after its beginning), 'truncated' (fewer frames than needed) and
      'too_large' (for the memory it may use).
    detail: what happened, without the path.
  """

  def __init__(self, path: str | os.PathLike, reason: str, detail: str):
    # All arguments go up, so that it survives the way out of a worker process.
    super().__init__(path, reason, detail)
    self.reason, self.detail = reason, detail

  def __str__(self) -> str:
    path, reason, detail = self.args
    return f'{os.fspath(path)}: {reason} ({detail}).'


def iterate(
  path: str | os.PathLike, centre_crop: bool = False
) -> Iterator[np.ndarray]:
  """Decodes a video file, frame by frame.

  Args:
    path: any file that FFmpeg can read; its first video stream is used.
    centre_crop: cut out the centre square before resizing.

  Yields:
    [64, 64, 3] uint8 RGB, upright: a rotation in the metadata is applied.

  Raises:
    UnusableVideo: 'missing', 'unreadable', 'no_video', 'empty' or, after some
      good frames, 'corrupt'. Raised while iterating.
  """
  if not os.path.isfile(path):
    raise UnusableVideo(path, 'missing', 'no such file')
  count = 0
  try:
    # With the protocol in front no part of a name is read as one.
    with av.open(f'file:{os.fspath(path)}') as container:
      if not container.streams.video:
        raise UnusableVideo(path, 'no_video', 'no video stream')
      stream = container.streams.video[0]
      # Extraction runs one process per core; more threads only add delay.
      stream.codec_context.thread_count = 1
      for frame in container.decode(stream):
        yield _upright(frame, centre_crop)
        count += 1
  except av.error.FFmpegError as error:
    detail = f'after {count} frames: {error.strerror}'
    reason = 'corrupt' if count else 'unreadable'
    raise UnusableVideo(path, reason, detail) from error
  if not count:
    raise UnusableVideo(path, 'empty', 'no frames')


def decode(
  source: str | os.PathLike | Sequence[str | os.PathLike],
  max_frames: int,
  centre_crop: bool,
) -> np.ndarray:
  """Decodes the first frames of a video file, or of picture files.

  Args:
    source: path of a file that FFmpeg can read; or paths of pictures, in order.
    max_frames: of a longer video only so many are read.
    centre_crop: as in `iterate`.

  Returns:
    [N, 64, 64, 3] uint8 RGB, N <= max_frames.

  Raises:
    UnusableVideo: as `iterate` and `iterate_pictures`, and 'too_large'.
  """
  one = isinstance(source, str | os.PathLike)
  frames = (iterate if one else iterate_pictures)(source, centre_crop)
  try:
    with contextlib.closing(frames):
      images = list(itertools.islice(frames, max_frames))
  except MemoryError as error:
    path = source if one else source[0]
    detail = 'decoding it takes too much memory'
    raise UnusableVideo(path, 'too_large', detail) from error
  return np.stack(images) if images else np.zeros((0, 64, 64, 3), np.uint8)


def iterate_pictures(
  paths: Iterable[str | os.PathLike], centre_crop: bool = False
) -> Iterator[np.ndarray]:
  """Decodes picture files, one frame each.

  Args:
    paths: PNG, JPEG or what else OpenCV reads, in order.
    centre_crop: as in `iterate`.

  Yields:
    [64, 64, 3] uint8 RGB; grey, transparent and 16-bit pictures too.

  Raises:
    UnusableVideo: 'unreadable' or, after the first, 'corrupt'. Raised while
      iterating.
  """
  for count, path in enumerate(paths):
    # Not imread: it logs on its own, and does not say what went wrong.
    data = np.fromfile(path, np.uint8)
    picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if picture is None:
      reason = 'corrupt' if count else 'unreadable'
      raise UnusableVideo(path, reason, f'after {count} frames: no picture')
    yield to_image(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), centre_crop)


def to_image(frame: np.ndarray, centre_crop: bool = False) -> np.ndarray:
  """Brings a frame [H, W, 3] uint8 to [64, 64, 3], by area interpolation.

  Args:
    frame: of any size.
    centre_crop: cut out the largest square in the centre first.
  """
  if centre_crop:
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    frame = frame[top : top + side, left : left + side]
  size = (schema.IMAGE_SIZE, schema.IMAGE_SIZE)
  return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def read(path: str | os.PathLike, num_frames: int) -> np.ndarray:
  """Decodes the first frames of a video file.

  Args:
    path: any file that FFmpeg can read.
    num_frames: T, how many frames are needed.

  Returns:
    [T, 64, 64, 3] uint8 RGB.

  Raises:
    UnusableVideo: as `iterate`, and 'truncated' if there are fewer than T.
  """
  with contextlib.closing(iterate(path)) as stream:
    frames = list(itertools.islice(stream, num_frames))
  if len(frames) < num_frames:
    detail = f'{len(frames)} of {num_frames} frames'
    raise UnusableVideo(path, 'truncated', detail)
  return np.stack(frames)


def write_video(path: str | os.PathLike, frames: np.ndarray, fps: int) -> None:
  """Writes frames to a video file, which appears only when it is whole.

  Its bytes are a function of the frames, `fps` and the suffix, whatever the
  process did before and however many cores there are. Another version of PyAV
  may write others.

  Args:
    path: its suffix chooses the codec: .mp4 is H.264, .webm is VP9.
    frames: [T, H, W, 3] uint8 RGB; H and W even (chroma is halved).
    fps: frames per second.

  Raises:
    ValueError: on another suffix, dtype or shape.
  """
  path = pathlib.Path(path)
  if path.suffix not in _CODECS:
    raise ValueError(
      f'path={str(path)!r}: the suffix must be one of {sorted(_CODECS)}.'
    )
  frames = np.asarray(frames)
  shaped = frames.ndim == 4 and frames.shape[-1] == 3 and len(frames)
  if (
    frames.dtype != np.uint8
    or not shaped
    or np.any(np.mod(frames.shape[1:3], 2))
  ):
    raise ValueError(
      f'frames is {frames.dtype}{list(frames.shape)}, expected '
      'uint8[T, H, W, 3] with T > 0 and even H and W.'
    )
  codec, options = _CODECS[path.suffix]
  unfinished = path.with_name(f'.{path.stem}.unfinished{path.suffix}')
  bitexact = {'fflags': '+bitexact'}  # otherwise WebM holds a random number
  with av.open(f'file:{unfinished}', 'w', options=bitexact) as container:
    stream = container.add_stream(codec, rate=fps, options=options)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.thread_count = 1  # another number, other bytes
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(frame), format='rgb24'
      )
      container.mux(stream.encode(picture))
    container.mux(stream.encode())
  os.replace(unfinished, path)


def _upright(frame: av.VideoFrame, centre_crop: bool) -> np.ndarray:
  """[64, 64, 3] uint8 RGB of a decoded frame."""
  image = to_image(frame.to_ndarray(format='rgb24'), centre_crop)
  # FFmpeg gives degrees anticlockwise, in steps of 90 in practice.
  quarters = round(frame.rotation / 90) % 4
  return np.ascontiguousarray(np.rot90(image, quarters))
