"""Scores predictions of each body on moving pixels, with intervals and bars.

A pixel of frame t moves if its own optical flow, entry t of the clip's `flow`,
is longer than `MOVES`. Entry t led from frame t-1 to frame t, so the pixels
that moving things leave count as moving. Predictions have no influence on it.

Videos are the independent unit. The error of a video is the mean over all such
pixels of the predicted frames of all its clips. The error of a body is the mean
over its videos, and averages over a set are means over its videos. A video
without such pixels has no error. Intervals are 95 % percentile intervals of a
bootstrap over videos with a fixed seed.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOVES = 0.5  # pixels per frame                                    [N42]
PIXELS = ('all', 'moving', 'still')

# Kinds of frames that are scored: copies of the last frame seen,
# reconstructions of all frames, and predictions that follow the clip's own
# later motion, that of a clip of another video, or none.
COPY = 'last seen frame'
RECONSTRUCTION = 'reconstruction'
PREDICTION = 'prediction'
OTHER = "another clip's motion"
STILL = 'no later motion'

# Bars: shares by which one error must be below another.
BELOW_COPYING = 0.25  # of moving pixels, on average
BELOW_CONTROLS = 0.10  # own motion, on average
_BODIES_NOT_BELOW = 1  # bodies that may fail on moving pixels

# The name of the file without its number, with the folder.
BODY = r'(.*?)[_/-]*\d*(?:\.\w+)?$'

_REPS = 5_000
_PERCENTILES = (2.5, 97.5)
_SEED = 0

# pixels -> [V], the error of each video; NaN if it has no such pixel.
VideoErrors = Mapping[str, np.ndarray]


def masks(flow: np.ndarray) -> dict[str, np.ndarray]:
  """Separates moving from still pixels.

  Args:
    flow: [..., H, W, 2] float, pixels per frame.

  Returns:
    For each of `PIXELS`, [..., H, W] bool.
  """
  moves = np.square(flow.astype(np.float32)).sum(-1) > MOVES**2
  return {'all': np.ones_like(moves), 'moving': moves, 'still': ~moves}


def squared_errors(
  true: np.ndarray, frames: np.ndarray, chosen: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Sums squared errors over pixels.

  Args:
    true: [N, T, H, W, 3] uint8.
    frames: frames of a model, of the same shape.
    chosen: name -> [N, T, H, W] bool, from `masks`.

  Returns:
    Name -> [N], sums over the chosen pixels of the squared difference at 0..1,
    mean over channels.
  """
  sums = {name: np.zeros(len(true)) for name in chosen}
  for i, pair in enumerate(zip(true, frames, strict=True)):
    a, b = (x.astype(np.float32) / 255 for x in pair)
    square = np.square(b - a).mean(-1)
    for name, masks_of_clips in chosen.items():
      sums[name][i] = (square * masks_of_clips[i]).sum(dtype=np.float64)
  return sums


def by_video(
  sums: np.ndarray, counts: np.ndarray, videos: np.ndarray
) -> np.ndarray:
  """Joins the clips of each video.

  Args:
    sums: [N] sums of errors of clips.
    counts: [N] numbers of pixels.
    videos: [N] video of each clip.

  Returns:
    [V] means over pixels, in the order of `np.unique(videos)`.
  """
  _, place = np.unique(videos, return_inverse=True)
  total, pixels = np.bincount(place, sums), np.bincount(place, counts)
  return np.divide(
    total, pixels, out=np.full(len(total), np.nan), where=pixels > 0
  )


def body_of(source_id: str, pattern: str) -> str:
  """Names the body that a video shows.

  Args:
    source_id: source id of the video.
    pattern: regular expression, searched in it. The name is the first group
      that matched a text that is not empty; without one it is 'videos'.

  Raises:
    ValueError: if the pattern is invalid, has no group, or is not found.
  """
  try:
    found = re.search(pattern, source_id)
    groups = re.compile(pattern).groups
  except re.error as error:
    raise ValueError(
      f'--body={pattern!r} is not a regular expression: {error}.'
    ) from error
  if not groups or not found:
    raise ValueError(
      f'--body={pattern!r} must be found in every source id, with a group that'
      f' names the body; {source_id!r} does not match it.'
    )
  return next((name for name in found.groups() if name), 'videos')


def reduction(ours: np.ndarray, other: np.ndarray) -> dict[str, float]:
  """Computes the share by which our mean error is below another.

  Args:
    ours: [V] errors of videos; NaN are left out.
    other: [V] errors to compare with.

  Returns:
    `value`, negative if ours is larger, and the ends of its interval, `low` and
    `high`.
  """
  there = np.isfinite(ours) & np.isfinite(other)
  ours, other = ours[there], other[there]
  rng = np.random.default_rng(_SEED)
  drawn = rng.integers(len(ours), size=(_REPS, len(ours)))
  value = 1 - ours.mean() / other.mean()
  low, high = np.percentile(
    1 - ours[drawn].mean(1) / other[drawn].mean(1), _PERCENTILES
  )
  return {'value': float(value), 'low': float(low), 'high': float(high)}


def mean_of_videos(
  errors: Mapping[str, VideoErrors],
) -> dict[str, dict[str, float | None]]:
  """Averages errors by kind and pixels; None if no video has such a pixel."""
  return {
    kind: {pixels: _mean(values) for pixels, values in found.items()}
    for kind, found in errors.items()
  }


def bodies_table(
  errors: Mapping[str, VideoErrors], bodies: np.ndarray
) -> dict[str, dict[str, dict[str, float | None]]]:
  """Averages the errors of every body.

  Args:
    errors: errors by kind.
    bodies: [V] names.

  Returns:
    Body -> kind -> pixels -> error; None if no video of the body has such a
    pixel.
  """
  return {
    str(body): mean_of_videos(_only(errors, bodies == body))
    for body in np.unique(bodies)
  }


def bars(
  errors: Mapping[str, VideoErrors],
  bodies: np.ndarray,
  following: Sequence[str],
) -> list[dict[str, Any]]:
  """Measures predictions against the bars.

  Args:
    errors: errors by kind; those of `OTHER` and `STILL` may be missing.
    bodies: [V] names.
    following: bodies whose camera follows them.

  Returns:
    For every bar `bar`, its requirement; `passed`; and either `value`, `low`
    and `high` of `reduction`, or `bodies`, those of `of` bodies that are not
    below copying. Intervals do not decide whether a bar is passed.
  """
  every = [str(body) for body in np.unique(bodies)]
  found = [
    _average(errors, 'moving', COPY, BELOW_COPYING),
    _each(errors, 'moving', bodies, every, _BODIES_NOT_BELOW),
    _average(errors, 'all', COPY, 0.0),
  ]
  if following:
    found.append(_each(errors, 'all', bodies, following, 0))
  return found + [
    _average(errors, pixels, control, BELOW_CONTROLS)
    for control in (OTHER, STILL)
    if control in errors
    for pixels in ('moving', 'all')
  ]


def _average(errors, pixels, other, least) -> dict[str, Any]:
  """Measures the bar of a reduction of at least `least`."""
  found = reduction(errors[PREDICTION][pixels], errors[other][pixels])
  by = f' by {least:.0%}' if least else ''
  return {
    'bar': f'{pixels} pixels, on average: below "{other}"{by}',
    'passed': found['value'] > 0 and found['value'] >= least,
    **found,
  }


def _each(errors, pixels, bodies, names, allowed) -> dict[str, Any]:
  """Measures the bar that at most `allowed` bodies do worse than copying."""
  table = bodies_table(errors, bodies)
  scored = [name for name in names if table[name][COPY][pixels] is not None]
  failed = [
    name
    for name in scored
    if table[name][PREDICTION][pixels] >= table[name][COPY][pixels]
  ]
  which = 'every body' if allowed else ', '.join(names)
  but = f', but for {allowed}' if allowed else ''
  return {
    'bar': f'{pixels} pixels, of {which}: below "{COPY}"{but}',
    'passed': len(failed) <= allowed,
    'bodies': failed,
    'of': len(scored),
  }


def markdown(
  label: str,
  errors: Mapping[str, VideoErrors],
  bodies: np.ndarray,
  shares: np.ndarray,
  measured: Sequence[Mapping[str, Any]],
  spread: Mapping[str, float],
) -> str:
  """Writes a table of bodies, and the bars.

  Args:
    label: label of the model.
    errors: errors by kind.
    bodies: [V] names.
    shares: [V] shares of pixels that move.
    measured: from `bars`.
    spread: pixels -> standard deviation over draws of the average error of
      predictions.
  """
  table = bodies_table(errors, bodies)
  share = {body: shares[bodies == body].mean() for body in table}
  rows = [
    _row(body, (bodies == body).sum(), share[body], table[body])
    for body in table
  ]
  over_bodies = {
    kind: {
      pixels: _mean(np.array([row[kind][pixels] for row in table.values()]))
      for pixels in PIXELS
    }
    for kind in errors
  }
  mean_share = np.mean(list(share.values()))
  spreads = ', '.join(f'{x:.5f} ({name})' for name, x in spread.items())
  return '\n'.join(
    [
      f'## {label}',
      '',
      'Mean squared error of all pixels / of moving pixels.',
      '',
      '| | videos | pixels that move | ' + ' | '.join(errors) + ' |',
      '|---|---|---|' + '---|' * len(errors),
      *rows,
      _row(
        '**mean of videos**', len(bodies), shares.mean(), mean_of_videos(errors)
      ),
      _row('mean of bodies', len(bodies), mean_share, over_bodies),
      '',
      *(_bar_line(bar) for bar in measured),
      '',
      f'Standard deviation over draws of the mean of videos: {spreads}.',
      '',
    ]
  )


def _only(errors, keep: np.ndarray) -> dict[str, VideoErrors]:
  return {
    kind: {pixels: values[keep] for pixels, values in found.items()}
    for kind, found in errors.items()
  }


def _row(name, videos, share, errors) -> str:
  cells = [
    ' / '.join(_number(found[pixels]) for pixels in ('all', 'moving'))
    for found in errors.values()
  ]
  return f'| {name} | {videos} | {share:.0%} | ' + ' | '.join(cells) + ' |'


def _number(value: float | None) -> str:
  return '-' if value is None else f'{value:.4f}'.removeprefix('0')


def _bar_line(bar: Mapping[str, Any]) -> str:
  if 'bodies' in bar:
    found = f'{len(bar["bodies"])} of {bar["of"]} are not'
    found += ''.join(f', {name}' for name in bar['bodies'])
  else:
    found = f'{bar["value"]:.1%} (95 %: {bar["low"]:.1%} to {bar["high"]:.1%})'
  return f'- {"pass" if bar["passed"] else "**fail**"}: {bar["bar"]}: {found}'


def _mean(values: np.ndarray) -> float | None:
  values = np.asarray(values, float)
  values = values[np.isfinite(values)]
  return float(values.mean()) if len(values) else None
