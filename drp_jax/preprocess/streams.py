"""Which stream of a video file is the film."""

import os

import av

_PACKETS = 1000  # of one stream tell what is a preview           [ours]


def open_file(path: str | os.PathLike) -> av.container.InputContainer:
  """Opens a file of any name for reading.

  Raises:
    av.error.FFmpegError: if FFmpeg cannot read it.
  """
  # With the protocol in front no part of a name is read as one.
  return av.open(f'file:{os.fspath(path)}')


def choose(
  path: str | os.PathLike, container: av.container.InputContainer
) -> av.VideoStream | None:
  """Finds the film among the video streams of an open file.

  No cover art. Of the rest the largest picture, but none with less than half
  the frames of another: such are stills and previews. FFmpeg's own choice takes
  a still that is marked as the default.

  Args:
    path: of the file; it is opened once more if there are several streams.
    container: the file.

  Returns:
    A stream of `container`, or None if there is no film.

  Raises:
    av.error.FFmpegError: if the file cannot be read up to there.
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
