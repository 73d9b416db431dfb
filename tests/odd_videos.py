"""Video files as they come from the world: odd, damaged, or none at all.

All are made here with PyAV. `USABLE` and `UNUSABLE` map a file name to a
function that writes such a file to a path; what cannot be used has the reason
under which it is counted.
"""

import fractions
import pathlib
import struct

import av
import numpy as np
import random_inputs

from drp_jax.preprocess import video

NUM_FRAMES = 40


def frames(num: int = NUM_FRAMES) -> np.ndarray:
  """[N, 64, 64, 3] uint8: a square that swings."""
  return random_inputs.moving_squares(num, 0)


def plain(path: pathlib.Path) -> None:
  """H.264 in MP4, as `video.write_video` makes it."""
  video.write_video(path, frames(), 25)


def variable_rate(path: pathlib.Path) -> None:
  """Frames that stand for 1 to 7 fiftieths of a second each."""
  times = np.cumsum(1 + np.arange(NUM_FRAMES) % 7)
  encode(path, 'libx264', 'yuv420p', frames(), [int(t) for t in times])


def note_clockwise(path: pathlib.Path) -> None:
  """Writes into an mp4 that players are to turn it clockwise."""
  data = bytearray(path.read_bytes())
  matrix = data.index(b'tkhd') + 44  # of the display, in the track header
  one, unit = 1 << 16, 1 << 30
  clockwise = struct.pack('>9i', 0, one, 0, -one, 0, 0, 64 * one, 0, unit)
  data[matrix : matrix + 36] = clockwise
  path.write_bytes(data)


def rotated(path: pathlib.Path) -> None:
  """Stored turned to the left, with a note to turn it clockwise."""
  video.write_video(path, np.rot90(frames(), 1, (1, 2)), 25)
  note_clockwise(path)


def gray(path: pathlib.Path) -> None:
  """One channel of light and none of color."""
  encode(path, 'ffv1', 'gray', frames())


def ten_bit(path: pathlib.Path) -> None:
  """10 bits a channel."""
  encode(path, 'ffv1', 'yuv420p10le', frames())


def cover(path: pathlib.Path) -> None:
  """Cover art beside the film."""
  _with_picture(path, av.stream.Disposition.attached_pic)


def still(path: pathlib.Path) -> None:
  """A picture before the film, larger and said to be what players show."""
  _with_picture(path, av.stream.Disposition.default)


def preview(path: pathlib.Path) -> None:
  """A small copy of the film before the film."""
  with av.open(str(path), 'w') as container:
    films = [container.add_stream('libx264', rate=25) for _ in range(2)]
    for film, side in zip(films, (16, 64), strict=True):
      film.height, film.width, film.pix_fmt = side, side, 'yuv420p'
    for image in frames():
      for film in films:
        step = 64 // film.width
        small = np.ascontiguousarray(image[::step, ::step])
        container.mux(film.encode(av.VideoFrame.from_ndarray(small, 'rgb24')))
    for film in films:
      container.mux(film.encode())


def truncated(path: pathlib.Path) -> None:
  """The first half of a file whose index is at the end."""
  plain(path)
  whole = path.read_bytes()
  path.write_bytes(whole[: len(whole) // 2])


def zero_bytes(path: pathlib.Path) -> None:
  path.touch()


def sound_only(path: pathlib.Path, with_cover: bool = False) -> None:
  """An MP4 with a second of silence."""
  with av.open(str(path), 'w') as container:
    stream = container.add_stream('aac', rate=8000, layout='mono')
    if with_cover:
      picture = container.add_stream('mjpeg', rate=25)
      picture.height, picture.width, picture.pix_fmt = 64, 64, 'yuvj420p'
      picture.disposition = av.stream.Disposition.attached_pic
      image = av.VideoFrame.from_ndarray(frames(1)[0], 'rgb24')
      container.mux(picture.encode(image))
      container.mux(picture.encode())
    silence = av.AudioFrame.from_ndarray(
      np.zeros((1, 8000), np.float32), format='fltp', layout='mono'
    )
    silence.sample_rate = 8000
    container.mux(stream.encode(silence))
    container.mux(stream.encode())


def song(path: pathlib.Path) -> None:
  """Sound and cover art."""
  sound_only(path, with_cover=True)


def one_frame(path: pathlib.Path) -> None:
  video.write_video(path, frames(1), 25)


def corrupt(path: pathlib.Path) -> None:
  """Whole but for a twentieth of it in the middle, which is noise."""
  plain(path)
  data = bytearray(path.read_bytes())
  middle, length = len(data) // 2, len(data) // 20
  data[middle : middle + length] = np.random.default_rng(0).bytes(length)
  path.write_bytes(data)


def text(path: pathlib.Path) -> None:
  path.write_text('This is not a video.\n' * 100)


def motionless(path: pathlib.Path) -> None:
  """A good file in which nothing moves."""
  video.write_video(path, np.repeat(frames(1), NUM_FRAMES, 0), 25)


USABLE = {
  'plain.mp4': plain,
  'variable_rate.mp4': variable_rate,
  'rotated.mp4': rotated,
  'gray.mkv': gray,
  'ten_bit.mkv': ten_bit,
  'cover.mp4': cover,
  'still.mp4': still,
  'still.mkv': still,
  'preview.mp4': preview,
}
UNUSABLE = {
  'truncated.mp4': (truncated, 'unreadable'),
  'zero_bytes.mp4': (zero_bytes, 'unreadable'),
  'sound_only.mp4': (sound_only, 'no_video'),
  'song.mp4': (song, 'no_video'),
  'one_frame.mp4': (one_frame, 'too_short'),
  'corrupt.mp4': (corrupt, 'corrupt'),
  'text.mp4': (text, 'unreadable'),
  'motionless.mp4': (motionless, 'no_motion'),
}


def _with_picture(
  path: pathlib.Path, disposition: av.stream.Disposition
) -> None:
  """Writes a stream of one large picture, then one of `frames`."""
  with av.open(str(path), 'w') as container:
    picture = container.add_stream('mjpeg', rate=25)
    picture.height, picture.width, picture.pix_fmt = 512, 512, 'yuvj420p'
    picture.disposition = disposition
    film = container.add_stream('libx264', rate=25)
    film.height, film.width, film.pix_fmt = 64, 64, 'yuv420p'
    gray = np.full((1, 512, 512, 3), 200, np.uint8)
    for stream, images in ((picture, gray), (film, frames())):
      for image in images:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, 'rgb24')))
      container.mux(stream.encode())


def encode(
  path: pathlib.Path,
  codec: str,
  pixels: str,
  images: np.ndarray,
  times: list[int] | None = None,
) -> None:
  """Writes images that are shown at `times`, in fiftieths of a second."""
  base = fractions.Fraction(1, 50)
  with av.open(str(path), 'w') as container:
    stream = container.add_stream(codec, rate=50)
    stream.height, stream.width = images.shape[1:3]
    stream.pix_fmt = pixels
    stream.codec_context.time_base = base
    for image, time in zip(
      images, times or 2 * np.arange(len(images)), strict=True
    ):
      picture = av.VideoFrame.from_ndarray(
        np.ascontiguousarray(image), format='rgb24'
      )
      picture.pts, picture.time_base = int(time), base
      container.mux(stream.encode(picture))
    container.mux(stream.encode())
