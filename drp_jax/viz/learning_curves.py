"""Draws curves of several systems on several tasks, and score intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import axes, figure

from drp_jax.viz import plot_style

_WIDTH = 9.6  # inches, of all figures, so that their text has one size


@dataclasses.dataclass(frozen=True)
class Curve:
  """Curve of one system on one task.

  Attributes:
    steps: [n], x axis.
    center: [n], values of the line.
    low: [n], lower end of the band.
    high: [n], upper end of the band.
  """

  steps: np.ndarray
  center: np.ndarray
  low: np.ndarray
  high: np.ndarray


@dataclasses.dataclass(frozen=True)
class Panel:
  """Curves of one task, or of several tasks combined.

  Attributes:
    title: name of the task.
    label: label of the values.
    curves: name of the system -> curve; systems without a curve are left out.
  """

  title: str
  label: str
  curves: Mapping[str, Curve]


@dataclasses.dataclass(frozen=True)
class Intervals:
  """Scores of all systems by one measure.

  Attributes:
    title: name of the measure.
    scores: name of the system -> point, lower end and upper end.
    line: value to mark by a line, such as an even chance; None for no line.
  """

  title: str
  scores: Mapping[str, tuple[float, float, float]]
  line: float | None = None


def draw_curves(
  panels: Sequence[Panel], names: Sequence[str], unit: str
) -> figure.Figure:
  """Draws panels beside each other, with one legend.

  Args:
    panels: at least one panel.
    names: names of all systems, in the order of the legend; a system has the
      same color in every panel.
    unit: unit of the steps.

  Returns:
    The figure; `plot_style.svg` and `plot_style.png` encode it.
  """
  columns = 2 if len(panels) in (2, 4) else min(3, len(panels))
  rows = math.ceil(len(panels) / columns)
  with matplotlib.rc_context(plot_style.SETTINGS):
    fig = figure.Figure((_WIDTH, 0.6 + 2.7 * rows), layout='constrained')
    grid = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax, panel in zip(grid, panels, strict=False):
      _draw_panel(ax, panel, names)
      ax.set_xlabel(unit)
    for ax in grid[len(panels) :]:
      ax.set_visible(False)
    shown = [n for n in names if any(n in panel.curves for panel in panels)]
    lines = [
      grid[0].plot([], [], lw=2, label=name, **_look(names.index(name)))[0]
      for name in shown
    ]
    fig.legend(handles=lines, loc='outside upper left', ncols=4)
  return fig


def draw_intervals(
  groups: Sequence[Intervals], names: Sequence[str]
) -> figure.Figure:
  """Draws a point and an interval for every system, one panel per measure.

  Args:
    groups: at least one.
    names: names of all systems, from the top down.

  Returns:
    The figure.
  """
  columns = min(2, len(groups))
  rows = math.ceil(len(groups) / columns)
  height = 0.7 + 0.3 * max(len(group.scores) for group in groups)
  with matplotlib.rc_context(plot_style.SETTINGS):
    fig = figure.Figure((_WIDTH, rows * height), layout='constrained')
    grid = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid[len(groups) :]:
      ax.set_visible(False)
    for ax, group in zip(grid, groups, strict=False):
      shown = [name for name in names if name in group.scores]
      for row, name in enumerate(shown):
        point, low, high = group.scores[name]
        color = _look(names.index(name))['color']
        ax.plot(
          [low, high],
          [row, row],
          color=color,
          lw=8,
          alpha=0.35,
          solid_capstyle='butt',
        )
        ax.plot([point], [row], color=color, marker='|', ms=14, mew=2.5)
      if group.line is not None:
        ax.axvline(group.line, color='#8a8a94', ls=(0, (2, 2)), lw=1.5)
      ax.set_yticks(range(len(shown)), shown)
      ax.set_ylim(len(shown) - 0.5, -0.5)
      ax.set_title(group.title, loc='left', fontsize=10, fontweight='bold')
      ax.margins(x=0.08)
  return fig


def _draw_panel(ax: axes.Axes, panel: Panel, names: Sequence[str]) -> None:
  for index, name in enumerate(names):
    if name not in panel.curves:
      continue
    curve, look = panel.curves[name], _look(index)
    ax.fill_between(
      curve.steps,
      curve.low,
      curve.high,
      color=look['color'],
      alpha=0.18,
      lw=0,
    )
    marker = 'o' if len(curve.steps) < 2 else None
    ax.plot(curve.steps, curve.center, lw=2, marker=marker, **look)
  ax.set_title(panel.title, loc='left', fontsize=10, fontweight='bold')
  ax.set_ylabel(panel.label)
  ax.margins(x=0.02)
  plot_style.plain_steps(ax)


def _look(index: int) -> dict[str, Any]:
  return {
    'color': plot_style.COLORS[index % len(plot_style.COLORS)],
    'ls': plot_style.LINES[index % len(plot_style.LINES)],
  }
