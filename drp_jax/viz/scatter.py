"""Draws points of several groups in a plane."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib import figure

from drp_jax.viz import plot_style

_MARKERS = ('o', '^', 's', 'D', 'v', 'P', 'X')


def draw_groups(
  points: np.ndarray, groups: np.ndarray, names: Sequence[str], title: str
) -> figure.Figure:
  """Draws an embedding, such as a t-SNE, whose axes have no meaning.

  Args:
    points: [N, 2].
    groups: [N] int, indices into `names`.
    names: names of the groups, at most as many as there are colors.
    title: title of the figure.

  Returns:
    The figure; `plot_style.svg` and `plot_style.png` encode it.

  Raises:
    ValueError: if there are too many groups to be distinguished.
  """
  if len(names) > len(_MARKERS):
    raise ValueError(
      f'{len(names)} groups cannot be told apart in a picture; at most'
      f' {len(_MARKERS)}.'
    )
  with matplotlib.rc_context(plot_style.SETTINGS):
    fig = figure.Figure((6.4, 5.2), layout='constrained')
    ax = fig.subplots()
    for number, name in enumerate(names):
      x, y = points[groups == number].T
      ax.scatter(
        x,
        y,
        s=18,
        color=plot_style.COLORS[number],
        marker=_MARKERS[number],
        alpha=0.8,
        linewidths=0,
        label=name,
      )
    ax.set_xticks([])
    ax.set_yticks([])
    for side in ('left', 'bottom'):
      ax.spines[side].set_visible(False)
    ax.set_title(title, loc='left', fontsize=10, fontweight='bold')
    fig.legend(loc='outside lower left', ncols=2)
  return fig
