"""Reads and writes video files with PyAV (the FFmpeg libraries), and pictures.

Frames are decoded one at a time, so a long video never has to fit into memory.
They are resized to 64x64 without keeping the aspect ratio, as in IPV [IPV]. An
option cuts out the largest centered square first, which keeps the ratio.
"""

import contextlib
import errno
import itertools
import os
import pathlib
from collections.abc import Generator, Iterable, Iterator

import av
import cv2
import numpy as np

from drp_jax import files
from drp_jax.data import schema
from drp_jax.preprocess import streams

# Visually lossless, because at 64 pixels FFmpeg's defaults blur the texture
# that flow and tracking need. x264's macroblock tree reads uninitialized
# memory, so it encodes the same frames differently from call to call. Its code
# for one processor rounds differently from that for another.
_CODECS = {
  '.mp4': (
    'libx264',
    {'crf': '10', 'x264-params': 'mbtree=0:cpu-independent=1'},
  ),
  '.webm': ('libvpx-vp9', {'crf': '10', 'b:v': '0', 'cpu-used': '4'}),
}
_SLOW = 0.9  # smallest share of the requested frames per second [ours]
_REORDERED = 16  # frames that may be decoded before an earlier one [H.265]
_LATE = 0.25  # largest error of a time stamp, in frames         [ours]


# Path of a picture file, its bytes, or a frame [H, W, 3] uint8 RGB.
Picture = str | os.PathLike | bytes | np.ndarray


class UnusableVideo(ValueError):
  """A video that cannot become a clip; a build lists it and continues.

  Attributes:
    reason: for counting, one of 'missing', 'unreadable' (a format unknown to
      FFmpeg, or a lost index), 'no_video' (sound only), 'empty', 'corrupt'
      (damaged after its beginning), 'truncated' (fewer frames than needed),
      'no_times' (no time stamps to resample or to find a part by),
      'wrong_times' (a part of a file has frames at wrong times) and 'slow'
      (fewer frames per second than requested).
    detail: what happened, without the path.
  """

  def __init__(self, path: str | os.PathLike, reason: str, detail: str):
    # All arguments are passed up, so that the exception can be pickled.
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
    path: any file that FFmpeg can read; `streams.choose` chooses the stream.
    centre_crop: cut out the center square before resizing.

  Yields:
    [64, 64, 3] uint8 RGB, upright: a rotation in the metadata is applied.

  Raises:
    UnusableVideo: 'missing', 'unreadable', 'no_video', 'empty' or, after some
      good frames, 'corrupt'. Raised while iterating.
    MemoryError: if decoding takes more memory than there is.
  """
  with contextlib.closing(_frames(path)) as frames:
    for frame in frames:
      yield _upright(frame, centre_crop)


def decode(
  source: str | os.PathLike | Iterable[Picture],
  max_frames: int,
  centre_crop: bool,
  fps: float = 0.0,
  span: schema.Span | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes the first frames of a video file, or of pictures.

  Args:
    source: path of a file that FFmpeg can read; or pictures, in order.
    max_frames: maximum number of frames.
    centre_crop: as in `iterate`.
    fps: frames per second to resample a file to, by its time stamps. For each
      multiple of 1 / fps the nearest frame is taken, and no frame twice. 0
      takes all frames.
    span: part of the file to decode; None is all of it.

  Returns:
    images: [N, 64, 64, 3] uint8 RGB, N <= max_frames.
    numbers: [N] int, which frames of the source these are, from 0.

  Raises:
    UnusableVideo: as `iterate` and `iterate_pictures`; 'no_times'; 'slow' if
      the rate is less than nine tenths of `fps`; 'truncated' or 'wrong_times'
      if the file does not hold the frames of `span` at their times.
    MemoryError: as `iterate`.
  """
  if not isinstance(source, str | os.PathLike):
    found = collect(iterate_pictures(source, centre_crop), max_frames)
    return found, np.arange(len(found))
  times, numbers = [], []

  def images() -> Iterator[np.ndarray]:
    with contextlib.closing(_frames(source, span)) as frames:
      numbered = enumerate(frames)
      if fps:
        numbered = _resampled(source, numbered, fps)
      for number, frame in numbered:
        times.append(frame.time)
        numbers.append(number)
        yield _upright(frame, centre_crop)

  found = collect(images(), max_frames)
  seconds = times[-1] - times[0] if fps else 0.0
  if len(times) - 1 < _SLOW * fps * seconds:
    detail = (
      f'{(len(times) - 1) / seconds:.3g} frames/s, fewer than'
      f' config.data.fps={fps:g}'
    )
    raise UnusableVideo(source, 'slow', detail)
  return found, np.array(numbers, int)


def collect(images: Iterable[np.ndarray], max_frames: int) -> np.ndarray:
  """Stacks the first `max_frames` images [64, 64, 3] uint8.

  Returns:
    [N, 64, 64, 3] uint8, N <= max_frames.
  """
  # One growing array. Many small arrays between the large ones that a decoder
  # makes and frees would prevent malloc from reusing their memory.
  size, count = schema.IMAGE_SIZE, 0
  stack = np.empty((min(64, max_frames), size, size, 3), np.uint8)
  for image in itertools.islice(images, max_frames):
    if count == len(stack):
      length = min(2 * count, max_frames)
      stack.resize((length, *stack.shape[1:]), refcheck=False)
    stack[count] = image
    count += 1
  return stack[:count]


def iterate_pictures(
  pictures: Iterable[Picture], centre_crop: bool = False
) -> Iterator[np.ndarray]:
  """Decodes pictures, one frame each.

  Args:
    pictures: PNG, JPEG or other files that OpenCV reads, or frames, in order.
    centre_crop: as in `iterate`.

  Yields:
    [64, 64, 3] uint8 RGB; gray, transparent and 16-bit pictures too.

  Raises:
    UnusableVideo: 'unreadable' or, after the first, 'corrupt'. Raised while
      iterating.
    MemoryError: as `iterate`.
  """
  for count, source in enumerate(pictures):
    if isinstance(source, np.ndarray):
      yield to_image(source, centre_crop)
      continue
    # Not imread, which logs by itself and does not say what went wrong.
    if isinstance(source, bytes):
      path, data = f'picture {count}', np.frombuffer(source, np.uint8)
    else:
      path, data = source, np.fromfile(source, np.uint8)
    try:
      picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    except cv2.error as error:
      if _is_memory(error):
        raise MemoryError(f'after {count} frames') from error
      picture = None
    if picture is None:
      reason = 'corrupt' if count else 'unreadable'
      raise UnusableVideo(path, reason, f'after {count} frames: no picture')
    yield to_image(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), centre_crop)


def to_image(frame: np.ndarray, centre_crop: bool = False) -> np.ndarray:
  """Resizes a frame [H, W, 3] uint8 to [64, 64, 3], by area interpolation.

  Args:
    frame: a frame of any size.
    centre_crop: cut out the largest centered square first.
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
    num_frames: T, number of frames needed.

  Returns:
    [T, 64, 64, 3] uint8 RGB.

  Raises:
    UnusableVideo: as `iterate`, and 'truncated' if there are fewer than T.
  """
  frames = collect(iterate(path), num_frames)
  if len(frames) < num_frames:
    detail = f'{len(frames)} of {num_frames} frames'
    raise UnusableVideo(path, 'truncated', detail)
  return frames


def write_video(path: str | os.PathLike, frames: np.ndarray, fps: int) -> None:
  """Writes frames to a video file, whole or not at all.

  Its bytes are a function of the frames, `fps` and the suffix. They depend
  neither on what the process did before nor on the number of cores. Another
  version of PyAV may write other bytes.

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
  bitexact = {'fflags': '+bitexact'}  # otherwise WebM holds a random number
  with (
    files.replacing(path) as partial,
    av.open(
      f'file:{partial}', 'w', format=path.suffix[1:], options=bitexact
    ) as container,
  ):
    stream = container.add_stream(codec, rate=fps, options=options)
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = 'yuv420p'
    stream.codec_context.thread_count = 1  # the bytes depend on this number
    for frame in frames:
      picture = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(frame), format='rgb24'
      )
      container.mux(stream.encode(picture))
    container.mux(stream.encode())


def _frames(
  path: str | os.PathLike, span: schema.Span | None = None
) -> Generator[av.VideoFrame]:
  """Yields frames of a file as they are decoded; raises as `decode` does."""
  if not os.path.isfile(path):
    raise UnusableVideo(path, 'missing', 'no such file')
  count = 0
  try:
    with streams.open_file(path) as container:
      stream = streams.choose(path, container)
      if stream is None:
        raise UnusableVideo(path, 'no_video', 'no video stream')
      # Extraction runs one process per core; more threads only add delay.
      stream.codec_context.thread_count = 1
      frames = container.decode(stream)
      if span is not None:
        frames = _within(path, container, stream, span)
      for frame in frames:
        yield frame
        count += 1
  except av.error.FFmpegError as error:
    if _is_memory(error):
      raise MemoryError(f'after {count} frames') from error
    detail = f'after {count} frames: {error.strerror}'
    reason = 'corrupt' if count else 'unreadable'
    raise UnusableVideo(path, reason, detail) from error
  if not count:
    raise UnusableVideo(path, 'empty', 'no frames')


def _within(
  path: str | os.PathLike,
  container: av.container.InputContainer,
  stream: av.VideoStream,
  span: schema.Span,
) -> Iterator[av.VideoFrame]:
  """Yields the frames of a part of a file, by their times."""
  step = (span.end - span.start) / span.num_frames
  if stream.time_base is None:
    raise UnusableVideo(path, 'no_times', 'no unit of time stamps')
  # Decoding begins at a key frame that is shown before the part begins.
  begin = round((span.start - _REORDERED * step) / stream.time_base)
  if begin > 0:
    container.seek(begin, stream=stream)
  count = 0
  for frame in container.decode(stream):
    if frame.time is None:
      raise UnusableVideo(path, 'no_times', 'no time stamps to find a part by')
    place = (frame.time - span.start) / step
    if place < -0.5:
      continue
    if place >= span.num_frames - 0.5:
      break
    if abs(place - count) > _LATE:
      detail = f'a frame at {frame.time:.3f} s in the place of frame {count}'
      raise UnusableVideo(path, 'wrong_times', detail)
    yield frame
    count += 1
  if count < span.num_frames:
    detail = f'{count} of {span.num_frames} frames'
    raise UnusableVideo(path, 'truncated', detail)


def _resampled(
  path: str | os.PathLike,
  frames: Iterable[tuple[int, av.VideoFrame]],
  fps: float,
) -> Iterator[tuple[int, av.VideoFrame]]:
  """Yields the frame nearest to each multiple of 1 / fps, none twice."""
  start = None

  def ticks(numbered: tuple[int, av.VideoFrame]) -> float:
    nonlocal start
    _, frame = numbered
    if frame.time is None:
      detail = 'no time stamps, which config.data.fps needs'
      raise UnusableVideo(path, 'no_times', detail)
    if start is None:
      start = frame.time
    return (frame.time - start) * fps

  def distance(numbered: tuple[int, av.VideoFrame]) -> float:
    return abs(ticks(numbered) - round(ticks(numbered)))

  for _, near in itertools.groupby(frames, lambda pair: round(ticks(pair))):
    yield min(near, key=distance)


def _upright(frame: av.VideoFrame, centre_crop: bool) -> np.ndarray:
  """Converts a decoded frame to [64, 64, 3] uint8 RGB, upright."""
  try:
    array = frame.to_ndarray(format='rgb24', threads=1)
    image = to_image(array, centre_crop)
  except (av.error.FFmpegError, cv2.error) as error:
    if _is_memory(error):
      raise MemoryError('a frame in RGB') from error
    raise
  # FFmpeg gives degrees counterclockwise, in steps of 90 in practice.
  quarters = round(frame.rotation / 90) % 4
  return np.ascontiguousarray(np.rot90(image, quarters))


def _is_memory(error: av.error.FFmpegError | cv2.error) -> bool:
  """Returns whether FFmpeg or OpenCV failed for lack of memory."""
  if isinstance(error, cv2.error):
    code = getattr(error, 'code', None)
    return code == cv2.Error.STS_NO_MEM or 'bad_alloc' in str(error)
  # EAGAIN: there is no memory for another thread.
  return error.errno in (errno.ENOMEM, errno.EAGAIN)
