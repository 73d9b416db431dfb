import base64
import html.parser
import io
import re

import browser
import numpy as np
import pytest
from PIL import Image

from drp_jax.viz import curves, report, video


class _Page(html.parser.HTMLParser):
  """Collects tags and text, and checks that tags close in order."""

  VOID = {'meta', 'img', 'source', 'br'}

  def __init__(self, text):
    super().__init__()
    self.tags, self.text, self._open = [], '', []
    self.feed(text)
    assert self._open == []

  def handle_starttag(self, tag, attrs):
    self.tags.append((tag, dict(attrs)))
    if tag not in self.VOID:
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    self.text += data

  def all(self, tag):
    return [attrs for name, attrs in self.tags if name == tag]


def _pictures():
  frames = np.zeros([3, 16, 24, 3], np.uint8)
  for t in range(3):
    frames[t, :, 8 * t : 8 * t + 8] = 255
  metrics = [{'step': i, 'loss': 1.0 / (1 + i)} for i in range(5)]
  return (
    curves.loss_curves(metrics, {'loss': 'nats'}),
    video.encode_png(frames[0]),
    video.encode_webp(frames, fps=4),
  )


@pytest.fixture
def page(tmp_path):
  svg, png, webp = _pictures()
  sections = [
    report.Section(
      'At a glance',
      [
        report.Facts([('return', '12 ± 3')]),
        report.Text('a < b & c\n\nsecond'),
      ],
    ),
    report.Section('Curves', [report.Figure(svg, 'loss', 'falls')]),
    report.Section(
      '<script>alert(1)</script>',
      [
        report.Row(
          [
            report.Clip(webp, 'an "episode"', 'moves <fast>'),
            report.Figure(png, 'a frame'),
          ]
        )
      ],
    ),
    report.Section(
      'What ran',
      [report.Table(['stage', 'time'], [['<x>', '3 s'], ['y', '4 s']], 'c')],
    ),
  ]
  path = tmp_path / 'runs' / 'demo' / 'report.html'
  report.write_report(path, 'A <title>', sections, 'sub & title')
  assert [p.name for p in path.parent.iterdir()] == ['report.html']
  return path.read_text(encoding='utf-8')


def test_every_section_is_there_and_linked(page):
  parsed = _Page(page)
  assert len(parsed.all('section')) == 4
  ids = [attrs['id'] for attrs in parsed.all('section')]
  assert [a['href'] for a in parsed.all('a')] == [f'#{i}' for i in ids]
  for text in ('At a glance', '12 ± 3', 'second', 'falls', 'What ran', '4 s'):
    assert text in parsed.text
  assert len(parsed.all('td')) == 4


def test_all_text_is_escaped(page):
  parsed = _Page(page)
  assert parsed.all('script') == [] and parsed.all('x') == []
  for text in (
    '<script>alert(1)</script>',
    'A <title>',
    'sub & title',
    'a < b & c',
    'moves <fast>',
    '<x>',
  ):
    assert text in parsed.text
  assert 'an "episode"' in [attrs['alt'] for attrs in parsed.all('img')]


def test_nothing_is_fetched(page):
  assert 'http' not in page
  assert '//' not in re.sub(r'base64,[A-Za-z0-9+/=]*', '', page)
  parsed = _Page(page)
  assert parsed.all('link') == []
  for attrs in parsed.all('img'):
    assert attrs['src'].startswith('data:image/') and attrs['alt']
  for tag in ('url(', '@import'):
    assert tag not in page


def test_pictures_decode_from_the_page(page):
  parsed = _Page(page)
  sources = [attrs['src'] for attrs in parsed.all('img')]
  kinds = [source[5 : source.index(';')] for source in sources]
  assert kinds == ['image/svg+xml', 'image/webp', 'image/png']

  def decode(uri):
    return Image.open(io.BytesIO(base64.b64decode(uri.split(',')[1])))

  clip = decode(sources[1])
  assert (clip.n_frames, clip.size) == (3, (24, 16))
  assert decode(sources[2]).size == (24, 16)
  assert parsed.all('img')[1]['width'] == '24'
  (still,) = parsed.all('source')  # for readers who want less motion
  assert 'reduce' in still['media']
  assert decode(still['srcset']).n_frames == 1


def test_the_page_follows_the_reader(page):
  assert 'prefers-color-scheme: dark' in page
  assert {'name': 'color-scheme', 'content': 'light dark'} in _Page(page).all(
    'meta'
  )


def test_bad_pictures_leave_the_old_page_alone(tmp_path):
  path = tmp_path / 'report.html'
  report.write_report(path, 'old', [])
  before = path.read_bytes()
  for picture, message in (
    (report.Figure(b'GARBAGE', 'alt'), 'GARBAGE'),
    (report.Figure(_pictures()[1], ''), 'alt is empty'),
    ('text', 'not an item'),
  ):
    with pytest.raises(ValueError, match=message):
      report.write_report(path, 'new', [report.Section('s', [picture])])
  assert path.read_bytes() == before


def test_a_browser_shows_pictures_and_clips(page, tmp_path):
  seen = browser.look(page, tmp_path)
  assert seen.pictures == [True] * 3
  assert seen.complaints == [] and not seen.too_wide


def test_a_browser_would_tell_if_they_were_broken(page, tmp_path):
  """So that the tests which ask it can fail."""
  broken = page.replace('image/webp;base64,', 'image/webp;base64,AAAA')
  broken = broken.replace('<main>', '<main><script>nowhere()</script>')
  seen = browser.look(broken, tmp_path)
  assert seen.pictures.count(False) == 1
  assert len(seen.complaints) == 1 and 'nowhere' in seen.complaints[0]
