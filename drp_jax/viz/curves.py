"""Curves as SVG: losses of a run, returns of an agent, counts of a data set."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib import figure

from drp_jax.viz import plot_style

_MANY = 60  # points; a curve with more gets a running mean


@dataclasses.dataclass(frozen=True)
class ReturnCurve:
  """Returns of one system.

  Attributes:
    label: name of the system.
    steps: [n], agent steps of the evaluations.
    returns: [n, m], undiscounted episode returns; m episodes or seeds.
  """

  label: str
  steps: np.ndarray
  returns: np.ndarray


def loss_curves(
  metrics: Sequence[Mapping[str, float]],
  names: Mapping[str, str],
  unit: str = 'gradient steps',
) -> bytes:
  """Draws one small plot per metric.

  Args:
    metrics: lines of a run from `train.logger.read_metrics`. Lines without a
      metric, or with NaN, are left out of its plot.
    names: metric -> text with what it measures and its unit, in the order of
      the plots.
    unit: unit of the lines' 'step'.

  Returns:
    An SVG file.

  Raises:
    ValueError: if no line has one of `names`. (A metric that is never finite
      gets an empty plot that says so.)
  """
  columns = 2 if len(names) in (2, 4) else min(3, len(names))
  rows = math.ceil(len(names) / columns)
  with matplotlib.rc_context(plot_style.SETTINGS):
    fig = figure.Figure((9.6, 0.3 + 2.5 * rows), layout='constrained')
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax, (name, label) in zip(axes, names.items(), strict=False):
      steps, values = _series(metrics, name)
      _draw_run(ax, steps, values)
      ax.set_ylabel(label)
      ax.set_title(name, loc='left', fontsize=10, fontweight='bold')
    for ax in axes[len(names) :]:
      ax.set_visible(False)
    for column in range(columns):
      below = [a for a in axes[column::columns] if a.get_visible()]
      below[-1].set_xlabel(unit)
    return plot_style.svg(fig)


def compared_curves(
  metrics: Sequence[Mapping[str, float]],
  names: Mapping[str, str],
  label: str,
  unit: str = 'gradient steps',
) -> bytes:
  """Draws a metric and those it is compared with on the same axes.

  Args:
    metrics: as in `loss_curves`.
    names: metric -> its name in the legend; the first is drawn solid.
    label: what all of them measure, and its unit.
    unit: unit of the lines' 'step'.

  Returns:
    An SVG file.

  Raises:
    ValueError: if no line has one of `names`.
  """
  with matplotlib.rc_context(plot_style.SETTINGS):
    fig = figure.Figure((9.6, 3.4), layout='constrained')
    ax = fig.subplots()
    for index, (name, title) in enumerate(names.items()):
      steps, values = _series(metrics, name)
      ax.plot(
        steps,
        values,
        color=plot_style.COLORS[index % len(plot_style.COLORS)],
        ls=plot_style.LINES[index % len(plot_style.LINES)],
        lw=1.8 if index else 2.4,
        marker='o',
        ms=3.5,
        label=title,
      )
    ax.set_xlabel(unit)
    ax.set_ylabel(label)
    plot_style.plain_steps(ax)
    fig.legend(loc='outside upper left', ncols=4)
    return plot_style.svg(fig)


def return_curve(
  curves: Sequence[ReturnCurve],
  random_returns: np.ndarray,
  action_repeat: int = 1,
) -> bytes:
  """Draws returns over agent steps, with those of a random policy.

  Lines are means over episodes or seeds. Bands show one standard deviation to
  either side.

  Args:
    curves: one or several systems.
    random_returns: [m], returns of a random policy's episodes.
    action_repeat: environment steps in an agent step (D14), for the label.

  Returns:
    An SVG file.
  """
  random_returns = np.asarray(random_returns, np.float64)
  mean, std = random_returns.mean(), random_returns.std()
  with matplotlib.rc_context(plot_style.SETTINGS):
    fig = figure.Figure((9.6, 3.8), layout='constrained')
    ax = fig.subplots()
    ax.axhspan(mean - std, mean + std, color='#8a8a94', alpha=0.2, lw=0)
    ax.axhline(mean, color='#8a8a94', ls=(0, (2, 2)), lw=1.5)
    count = f'random policy, {random_returns.size} episodes'
    ax.plot([], [], color='#8a8a94', ls=(0, (2, 2)), lw=1.5, label=count)
    for index, curve in enumerate(curves):
      color = plot_style.COLORS[index % len(plot_style.COLORS)]
      returns = np.asarray(curve.returns, np.float64)
      center, spread = returns.mean(1), returns.std(1)
      ax.fill_between(
        curve.steps,
        center - spread,
        center + spread,
        color=color,
        alpha=0.18,
        lw=0,
      )
      ax.plot(
        curve.steps,
        center,
        color=color,
        ls=plot_style.LINES[index % len(plot_style.LINES)],
        lw=2,
        marker='o',
        ms=4,
        label=curve.label,
      )
    label = 'agent steps'
    if action_repeat > 1:
      label += f' (1 = {action_repeat} environment steps)'
    ax.set_xlabel(label)
    ax.set_ylabel('episode return\n(mean ± 1 std)')
    ax.margins(x=0.02)
    plot_style.plain_steps(ax)
    fig.legend(loc='outside upper left', ncols=4)
    return plot_style.svg(fig)


def histogram(
  counts: np.ndarray, edges: np.ndarray, label: str, unit: str
) -> bytes:
  """Draws a histogram.

  Args:
    counts: [n], heights of the bars.
    edges: [n + 1], ascending edges of the bars.
    label: label of the heights.
    unit: unit of the edges.

  Returns:
    An SVG file.

  Raises:
    ValueError: if there are not n + 1 edges for n counts.
  """
  counts, edges = np.asarray(counts), np.asarray(edges)
  if len(edges) != len(counts) + 1:
    raise ValueError(
      f'{len(counts)} counts need {len(counts) + 1} edges, not {len(edges)}.'
    )
  with matplotlib.rc_context(plot_style.SETTINGS):
    fig = figure.Figure((9.6, 2.8), layout='constrained')
    ax = fig.subplots()
    ax.stairs(counts, edges, fill=True, color=plot_style.COLORS[0])
    ax.set_xlabel(unit)
    ax.set_ylabel(label)
    ax.margins(x=0.01)
    return plot_style.svg(fig)


def _series(
  metrics: Sequence[Mapping[str, float]], name: str
) -> tuple[np.ndarray, np.ndarray]:
  if not any(name in line for line in metrics):
    known = sorted({key for line in metrics for key in line})
    raise ValueError(f'no line has {name!r}; they have {known}.')
  pairs = [
    (line['step'], line[name])
    for line in metrics
    if math.isfinite(line.get(name, math.nan))
  ]
  steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
  return steps, values


def _draw_run(ax, steps: np.ndarray, values: np.ndarray):
  """Draws a line; a long one is drawn pale, with its running mean."""
  plot_style.plain_steps(ax)
  if not len(steps):
    ax.text(0.5, 0.5, 'no finite value', transform=ax.transAxes, ha='center')
    return
  if len(steps) <= _MANY:
    ax.plot(steps, values, color=plot_style.COLORS[0], lw=1.8, marker='.')
  else:
    window = len(steps) // 30
    mean = np.convolve(values, np.ones(window) / window, 'valid')
    ax.plot(steps, values, color=plot_style.COLORS[0], lw=0.8, alpha=0.3)
    middle = steps[window // 2 :][: len(mean)]
    ax.plot(middle, mean, color=plot_style.COLORS[0], lw=1.8)
  low, high = values.min(), values.max()
  if low > 0 and high > 30 * low:
    ax.set_yscale('log')
