import io
import re
import xml.etree.ElementTree as ET

import numpy as np
from PIL import Image

from drp_jax.viz import learning_curves, plot_style


def _curve(height):
  steps = np.arange(4) * 1000
  center = height + np.arange(4.0)
  return learning_curves.Curve(steps, center, center - 1, center + 1)


def _texts(svg):
  # matplotlib writes the text it draws as paths into comments.
  return re.findall(r'<!-- (.*?) -->', svg.decode())


def _line_colors(svg):
  return re.findall(r'fill: none;[^"]*stroke: (#[0-9a-f]{6})', svg.decode())


def test_panels_have_titles_and_one_legend():
  names = ('DRP', 'IPV', 'never run')
  panels = [
    learning_curves.Panel(
      'Walker Run', 'return', {'DRP': _curve(5), 'IPV': _curve(1)}
    ),
    learning_curves.Panel('Reach', 'success, %', {'IPV': _curve(2)}),
  ]
  svg = plot_style.svg(learning_curves.draw_curves(panels, names, 'steps'))
  ET.fromstring(svg)
  texts = _texts(svg)
  for text in ('Walker Run', 'return', 'Reach', 'success, %', 'DRP', 'IPV'):
    assert texts.count(text) == 1, text
  assert 'never run' not in texts and texts.count('steps') == 2


def test_a_system_has_its_color_in_every_panel():
  names = ('DRP', 'IPV')
  for curves, colors in (
    ({'DRP': _curve(1)}, plot_style.COLORS[:1]),
    ({'IPV': _curve(1)}, plot_style.COLORS[1:2]),
  ):
    panel = learning_curves.Panel('a', 'b', curves)
    svg = plot_style.svg(learning_curves.draw_curves([panel], names, 'steps'))
    drawn = set(_line_colors(svg)) & set(plot_style.COLORS)
    assert drawn == set(colors)


def test_intervals_show_points_within_their_ends():
  groups = [
    learning_curves.Intervals(
      'IQM', {'DRP': (0.5, 0.4, 0.6), 'IPV': (0.3, 0.1, 0.4)}
    ),
    learning_curves.Intervals('P', {'IPV': (0.9, 0.7, 1.0)}, line=0.5),
  ]
  fig = learning_curves.draw_intervals(groups, ('DRP', 'IPV'))
  texts = _texts(plot_style.svg(fig))
  assert texts.count('DRP') == 1 and texts.count('IPV') == 2
  bars, points = fig.axes[0].lines[::2], fig.axes[0].lines[1::2]
  assert [list(line.get_xdata()) for line in bars] == [[0.4, 0.6], [0.1, 0.4]]
  assert [list(line.get_xdata()) for line in points] == [[0.5], [0.3]]
  assert list(fig.axes[1].lines[-1].get_xdata()) == [0.5, 0.5]


def test_pictures_are_the_same_bytes_again_and_png_is_one():
  panel = learning_curves.Panel('a', 'b', {'DRP': _curve(1)})
  first, second = (
    learning_curves.draw_curves([panel], ('DRP',), 'steps') for _ in range(2)
  )
  assert plot_style.svg(first) == plot_style.svg(second)
  png = Image.open(io.BytesIO(plot_style.png(first)))
  assert png.size[0] > 600 and png.convert('RGB').getpixel((0, 0)) == (
    255,
    255,
    255,
  )
