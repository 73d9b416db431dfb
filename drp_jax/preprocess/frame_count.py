"""Counts the frames of a video file without decoding them."""

import os

import av

from drp_jax.data import schema
from drp_jax.preprocess import streams


def count_frames(path: str | os.PathLike, fps: float = 0.0) -> int:
  """Counts the packets of the main video stream, which hold a frame each.

  Args:
    path: any file that FFmpeg can read and that has a video stream.
    fps: count the frames that `video.decode` takes at this rate; 0 is all.

  Returns:
    The number of frames up to the end, or up to the first damage.
  """
  count, times = 0, []
  with streams.open_file(path) as container:
    stream = streams.choose(path, container)
    assert stream is not None  # there is a film
    packets = container.demux(stream)
    while True:
      try:
        packet = next(packets)
      except (StopIteration, av.error.FFmpegError):
        break
      if packet.size:  # the last one is empty
        count += 1
        if packet.pts is not None:
          times.append(packet.pts)
  if not fps or stream.time_base is None:
    return count
  rate = stream.time_base * fps
  return len({round((time - min(times)) * rate) for time in times})


def count_in_span(span: schema.Span, fps: float) -> int:
  """Counts the frames of a part of a file; at `fps` as `count_frames` does."""
  if not fps:
    return span.num_frames
  step = (span.end - span.start) / span.num_frames
  # Sums of times have rounding errors; half a tick must stay one.
  ticks = (round(i * step * fps, 6) for i in range(span.num_frames))
  return len({round(tick) for tick in ticks})
