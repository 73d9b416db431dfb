"""The style of all plots, and their encoding as files.

Colors are those of Okabe and Ito, which people with any kind of color
blindness can distinguish, and lines differ in style as well. SVG pictures have
no background, and their ink turns light if the reader prefers dark pages.
"""

import io

import matplotlib
from matplotlib import axes, figure, ticker

COLORS = (
  '#0072b2',
  '#d55e00',
  '#009e73',
  '#cc79a7',
  '#e69f00',
  '#56b4e9',
  '#8a8a94',
)
LINES = ('-', '--', '-.', ':')
_INK, _INK_ON_DARK = '#3f3f46', '#d4d4d8'
_GRID, _GRID_ON_DARK = '#e4e4e7', '#3f3f47'
_PNG_DPI = 160
SETTINGS = {
  'axes.edgecolor': _INK,
  'axes.labelcolor': _INK,
  'axes.titlecolor': _INK,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.grid': True,
  'axes.axisbelow': True,
  'grid.color': _GRID,
  'font.family': 'DejaVu Sans',  # comes with matplotlib
  'font.size': 10,
  'legend.frameon': False,
  'legend.labelcolor': _INK,
  'svg.hashsalt': 'drp_jax',  # the same data, the same bytes
  'text.color': _INK,
  'xtick.color': _INK,
  'ytick.color': _INK,
}


def plain_steps(ax: axes.Axes) -> None:
  """Labels steps along x as 10k, 20k, ..."""
  ax.xaxis.set_major_locator(ticker.MaxNLocator(5, integer=True))
  ax.xaxis.set_major_formatter(ticker.EngFormatter(sep=''))


def svg(fig: figure.Figure) -> bytes:
  """Encodes a figure as an SVG file for light and dark pages."""
  data = io.BytesIO()
  with matplotlib.rc_context(SETTINGS):
    fig.savefig(data, format='svg', transparent=True, metadata={'Date': None})
  dark = ''.join(
    f'[style*="{kind}: {light}"]{{{kind}:{on_dark} !important}}'
    for light, on_dark in ((_INK, _INK_ON_DARK), (_GRID, _GRID_ON_DARK))
    for kind in ('fill', 'stroke')
  )
  style = f'<style>@media (prefers-color-scheme: dark){{{dark}}}</style></svg>'
  return data.getvalue().replace(b'</svg>', style.encode())


def png(fig: figure.Figure) -> bytes:
  """Encodes a figure as a PNG file on white."""
  data = io.BytesIO()
  with matplotlib.rc_context(SETTINGS):
    fig.savefig(data, format='png', dpi=_PNG_DPI, facecolor='white')
  return data.getvalue()
