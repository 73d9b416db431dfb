"""Chooses the main video stream of a video file."""

import os

import av

_PACKETS = 1000  # of one stream, enough to recognize a preview   [ours]


def open_file(path: str | os.PathLike) -> av.container.InputContainer:
  """Opens a file of any name for reading.

  Raises:
    av.error.FFmpegError: if FFmpeg cannot read it.
  """
  # With an explicit protocol no part of the name is read as a protocol.
  return av.open(f'file:{os.fspath(path)}')


def choose(
  path: str | os.PathLike, container: av.container.InputContainer
) -> av.VideoStream | None:
  """Chooses the main stream among the video streams of an open file.

  Cover art is excluded, and so are streams with less than half the frames of
  another, which are stills or previews. Of the rest, the stream with the
  largest picture is chosen. FFmpeg's own choice would take a still that is
  marked as the default.

  Args:
    path: path of the file, which is opened again if there are several streams.
    container: the open file.

  Returns:
    A stream of `container`, or None if there is none.

  Raises:
    av.error.FFmpegError: if the file cannot be read that far.
  """
  films = [
    stream
    for stream in container.streams.video
    if not stream.disposition & av.stream.Disposition.attached_pic
  ]
  if len(films) < 2:
    return films[0] if films else None
  counts = dict.fromkeys((stream.index for stream in films), 0)
  with open_file(path) as again:
    for packet in again.demux(*(again.streams[index] for index in counts)):
      counts[packet.stream_index] += packet.size > 0  # the last one is empty
      if max(counts.values()) == _PACKETS:
        break
  most = max(counts.values())
  moving = [stream for stream in films if 2 * counts[stream.index] >= most]
  return max(moving, key=lambda stream: stream.height * stream.width)
