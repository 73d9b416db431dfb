"""A report page of a run: one self-contained HTML file.

The page needs no other file, no script and no network, so it can be mailed. It
follows the reader's light or dark preference and the width of the window.
"""

import base64
import dataclasses
import html
import io
import os
from collections.abc import Sequence

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
  contents = ''.join(
    f'<li><a href="#s{number}">{html.escape(section.title)}</a></li>'
    for number, section in enumerate(sections)
  )
  body = ''.join(
    f'<section id="s{number}"><h2>{html.escape(section.title)}</h2>'
    f'{"".join(_item(item) for item in section.items)}</section>'
    for number, section in enumerate(sections)
  )
  page = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    '<meta name="color-scheme" content="light dark">'
    f'<title>{html.escape(title)}</title>'
    f'<style>{report_style.CSS}</style></head><body>'
    f'<header><h1>{html.escape(title)}</h1><p>{html.escape(subtitle)}</p>'
    f'<nav aria-label="Contents"><ol>{contents}</ol></nav></header>'
    f'<main>{body}</main></body></html>\n'
  )
  files.write(path, page.encode())


def _item(item: Item) -> str:
  match item:
    case Text(text):
      return ''.join(
        f'<p>{html.escape(part)}</p>' for part in text.split('\n\n')
      )
    case Facts(pairs):
      return f'<dl>{"".join(_fact(*pair) for pair in pairs)}</dl>'
    case Table():
      return _table(item)
    case Figure(data, alt, caption):
      return _figure(_image(data, alt), caption)
    case Clip(data, alt, caption):
      return _figure(_clip(data, alt), caption)
    case Row(pictures):
      return f'<div class="row">{"".join(map(_item, pictures))}</div>'
    case _:
      raise ValueError(f'{item!r} is not an item of a report.')


def _fact(label: str, value: str) -> str:
  return (
    f'<div><dt>{html.escape(label)}</dt><dd>{html.escape(value)}</dd></div>'
  )


def _table(table: Table) -> str:
  head = ''.join(
    f'<th scope="col">{html.escape(str(cell))}</th>' for cell in table.header
  )
  rows = ''.join(
    f'<tr>{"".join(f"<td>{html.escape(str(c))}</td>" for c in row)}</tr>'
    for row in table.rows
  )
  caption = html.escape(table.caption)
  return (
    f'<div class="scroll"><table><caption>{caption}</caption>'
    f'<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
  )


def _figure(content: str, caption: str) -> str:
  return (
    f'<figure><div class="scroll">{content}</div>'
    f'<figcaption>{html.escape(caption)}</figcaption></figure>'
  )


def _image(data: bytes, alt: str) -> str:
  if not alt:
    raise ValueError('a picture needs a description: alt is empty.')
  uri = _data_uri(data)
  return f'<img src="{uri}" alt="{html.escape(alt)}"{_size(data)}>'


def _clip(data: bytes, alt: str) -> str:
  first = io.BytesIO()
  with Image.open(io.BytesIO(data)) as clip:
    clip.convert('RGB').save(first, 'WEBP', quality=80)
  still = _data_uri(first.getvalue())
  return (
    f'<picture><source media="(prefers-reduced-motion: reduce)"'
    f' srcset="{still}">{_image(data, alt)}</picture>'
  )


def _size(data: bytes) -> str:
  if _media_type(data) == 'image/svg+xml':
    return ' class="wide"'
  with Image.open(io.BytesIO(data)) as image:
    width, height = image.size
  return f' width="{width}" height="{height}"'


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
