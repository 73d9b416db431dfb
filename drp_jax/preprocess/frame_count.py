"""How many frames a video file has, without decoding them."""

import os

import av


def count_frames(path: str | os.PathLike) -> int:
  """Counts the packets of the best video stream, which hold a frame each.

  Args:
    path: any file that FFmpeg can read.

  Returns:
    The frames up to the end, or up to where the file is damaged.
  """
  count = 0
  # With the protocol in front no part of a name is read as one.
  with av.open(f'file:{os.fspath(path)}') as container:
    stream = container.streams.best('video')
    packets = container.demux(stream)
    while True:
      try:
        packet = next(packets)
      except (StopIteration, av.error.FFmpegError):
        return count
      count += packet.size > 0  # the last one is empty
