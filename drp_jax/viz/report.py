"""A report page of a run: one self-contained HTML file.

The page needs no other file, no script and no network, so it can be mailed. It
follows the reader's light or dark preference and the width of the window.
"""

import base64
import dataclasses
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
from PIL import Image

from drp_jax import files
from drp_jax.viz import report_style


@dataclasses.dataclass(frozen=True)
class Text:
  """One or more paragraphs, separated by empty lines."""

  text: str


@dataclasses.dataclass(frozen=True)
class Facts:
  """A few important numbers in large type: (label, value) each."""

  pairs: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Table:
  """Rows of cells; the caller formats numbers as text."""

  header: Sequence[str]
  rows: Sequence[Sequence[str]]
  caption: str = ''


@dataclasses.dataclass(frozen=True)
class Figure:
  """A still picture: the bytes of an SVG, PNG or WebP file."""

  data: bytes
  alt: str
  caption: str = ''


@dataclasses.dataclass(frozen=True)
class Clip:
  """A moving picture: the bytes of an animated WebP or GIF file.

  Readers who asked their system for reduced motion see its first frame.
  """

  data: bytes
  alt: str
  caption: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
  """Pictures beside each other, if the window is wide enough."""

  pictures: Sequence[Figure | Clip]


Item = Text | Facts | Table | Figure | Clip | Row


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading and the items below it."""

  title: str
  items: Sequence[Item]


def write_report(
  path: str | os.PathLike,
  title: str,
  sections: Sequence[Section],
  subtitle: str = '',
):
  """Writes the page, whole or not at all.

  Args:
    path: path of the HTML file; its folder is created if missing.
    title: title of the page.
    sections: sections in order. All text in them is escaped.
    subtitle: one sentence under the title.

  Raises:
    ValueError: if a picture has an unknown format, or no description (`alt`).
  """
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=jinja2.StrictUndefined,
  )
  page = environment.get_template('report.html.jinja').render(
    title=title,
    subtitle=subtitle,
    css=report_style.CSS,
    sections=[
      {'title': section.title, 'parts': [_prepared(x) for x in section.items]}
      for section in sections
    ],
  )
  files.write(path, page.lstrip().encode())


def _prepared(item: Item) -> dict[str, Any]:
  """An item as the template takes it, under the name of its kind."""
  match item:
    case Text(text):
      found = {'paragraphs': text.split('\n\n')}
    case Facts() | Table():
      found = vars(item)
    case Figure():
      found = _picture(item) | {'still': None}
    case Clip():
      found = _picture(item) | {'still': _still(item.data)}
    case Row(pictures):
      found = {'pictures': [_prepared(picture) for picture in pictures]}
    case _:
      raise ValueError(f'{item!r} is not an item of a report.')
  return {'kind': type(item).__name__, **found}


def _picture(item: Figure | Clip) -> dict[str, Any]:
  if not item.alt:
    raise ValueError('a picture needs a description: alt is empty.')
  return {
    'uri': _data_uri(item.data),
    'alt': item.alt,
    'caption': item.caption,
    'size': _size(item.data),
  }


def _still(clip: bytes) -> str:
  """The first frame."""
  first = io.BytesIO()
  with Image.open(io.BytesIO(clip)) as frames:
    frames.convert('RGB').save(first, 'WEBP', quality=80)
  return _data_uri(first.getvalue())


def _size(data: bytes) -> tuple[int, int] | None:
  """Width and height in pixels; None of an SVG, which has any."""
  if _media_type(data) == 'image/svg+xml':
    return None
  with Image.open(io.BytesIO(data)) as image:
    return image.size


def _data_uri(data: bytes) -> str:
  code = base64.b64encode(data).decode('ascii')
  return f'data:{_media_type(data)};base64,{code}'


def _media_type(data: bytes) -> str:
  if data.startswith(b'\x89PNG'):
    return 'image/png'
  if data[:4] == b'RIFF' and data[8:12] == b'WEBP':
    return 'image/webp'
  if data.startswith(b'GIF8'):
    return 'image/gif'
  if data.lstrip().startswith((b'<?xml', b'<svg')):
    return 'image/svg+xml'
  raise ValueError(
    f'a picture starts with {data[:12]!r}: expected PNG, WebP, GIF or SVG.'
  )
