import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from drp_jax.viz import curves


def _texts(svg):
  # matplotlib writes the text it draws as paths into comments.
  return re.findall(r'<!-- (.*?) -->', svg.decode())


def _metrics(num, **names):
  return [
    {'step': 10 * i, 'wall_time': 0.0, **{k: f(i) for k, f in names.items()}}
    for i in range(num)
  ]


def test_loss_curves_have_titles_units_and_steps():
  svg = curves.loss_curves(
    _metrics(20, mae=lambda i: 3.0 - 0.1 * i, kl=lambda i: 1.0 + i),
    {'mae': 'L1 per patch', 'kl': 'nats per frame'},
  )
  ET.fromstring(svg)
  texts = _texts(svg)
  for text in ('mae', 'L1 per patch', 'kl', 'nats per frame'):
    assert text in texts
  assert texts.count('gradient steps') == 2


def _lines(svg):
  """Pieces of each line drawn: a gap makes two."""
  paths = re.findall(
    r'<path d="([^"]*)"[^>]*fill: none; stroke: #0072b2', svg.decode()
  )
  return [path.count('M') for path in paths]


def test_missing_and_not_finite_values_are_left_out():
  for num, lines_drawn in ((20, 1), (300, 2)):  # a long run: a mean as well
    lines = _metrics(num, loss=lambda i: 2.0 + math.sin(i))
    lines[12]['loss'] = math.nan
    del lines[13]['loss']
    svg = curves.loss_curves(lines, {'loss': 'nats'})
    assert _lines(svg) == [1] * lines_drawn


def test_a_metric_that_is_never_finite_gets_an_empty_plot():
  svg = curves.loss_curves(_metrics(5, a=lambda _: math.nan), {'a': 'x'})
  assert 'no finite value' in _texts(svg)
  assert _lines(svg) == []


def test_unknown_metric_is_named():
  with pytest.raises(ValueError, match=r"'los'.*'loss'"):
    curves.loss_curves(_metrics(3, loss=float), {'los': ''})


def test_return_curve_shows_systems_and_the_random_policy():
  steps = np.arange(4) * 1000
  returns = np.linspace(10, 90, 4)[:, None] + np.array([[-1.0, 0.0, 1.0]])
  svg = curves.return_curve(
    [
      curves.ReturnCurve('DRP', steps, returns),
      curves.ReturnCurve('IPV', steps, returns / 2),
    ],
    random_returns=np.array([8.0, 12.0]),
    action_repeat=2,
  )
  ET.fromstring(svg)
  texts = _texts(svg)
  for text in ('DRP', 'IPV', 'random policy, 2 episodes'):
    assert text in texts
  assert 'agent steps (1 = 2 environment steps)' in texts
  assert any('episode return' in text for text in texts)


def test_curves_adapt_to_a_dark_page_and_repeat_byte_for_byte():
  svg, again = (
    curves.loss_curves(_metrics(9, a=float), {'a': 'x'}) for _ in range(2)
  )
  assert b'prefers-color-scheme: dark' in svg
  assert svg == again


def test_compared_curves_share_axes_and_leave_out_other_lines():
  lines = _metrics(10, mae=lambda i: 3.0 - 0.1 * i, zero=lambda _: 3.0)
  lines.insert(5, {'step': 45, 'loss': 1.0})
  names = {'mae': 'model', 'zero': 'no motion'}
  svg = curves.compared_curves(lines, names, 'loss per patch')
  ET.fromstring(svg)
  texts = _texts(svg)
  for text in ('model', 'no motion', 'loss per patch', 'gradient steps'):
    assert texts.count(text) == 1
  assert _lines(svg)[:1] == [1]
  with pytest.raises(ValueError, match="'mean'"):
    curves.compared_curves(lines, {'mean': 'mean patch'}, 'loss')


def test_a_histogram_has_a_bar_for_each_count():
  svg = curves.histogram(np.array([1, 0, 3]), np.arange(4), 'clips', 'label')
  assert {'clips', 'label'} <= set(_texts(svg))
  other = curves.histogram(np.array([1, 3, 0]), np.arange(4), 'clips', 'label')
  assert svg != other
  with pytest.raises(ValueError, match='3 counts need 4 edges, not 3'):
    curves.histogram(np.ones(3), np.arange(3), '', '')
