"""Alarms: metrics that say that something has collapsed, and terminations.

A run that has collapsed goes on to its end without an error, so each of these
is warned about once, when it has lasted for `PATIENCE` log lines in a row,
after the first `WARM_UP` updates. They change nothing.

The limits lie far from what healthy runs show (nano, fine-tuning from scratch):
entropies of posteriors 0.5 to 40 % of their maximum, KL 0.06 to 10 nats, spread
of a_agg 0.2 to 0.6.
"""

import logging
import math
from collections.abc import Mapping

import numpy as np

PATIENCE = 5  # log lines
WARM_UP = 1_000  # updates
LOW_ENTROPY = 1e-3  # of the maximum, groups * ln(classes)
LOW_KL = 1e-2  # nats
LOW_SPREAD = 1e-2  # of a_agg, mean standard deviation
BARELY_BETTER = 0.98  # of the error of a constant prediction

_log = logging.getLogger(__name__)


def check(metrics: Mapping[str, float], max_entropy: float) -> dict[str, str]:
  """What of a log line looks like a collapse.

  Args:
    metrics: those that are missing are not judged.
    max_entropy: of a state, groups * ln(classes), nats.

  Returns:
    Name of the metric -> what is wrong with it.
  """
  found = {}

  def judge(name, limit, meaning, above=False):
    value = metrics.get(name, math.nan)
    if (value > limit) if above else (value < limit):  # false for NaN
      side = 'above' if above else 'below'
      found[name] = f'{name}={value:.3g} is {side} {limit:.3g}: {meaning}.'

  for state in 'zs':
    judge(
      f'entropy/{state}_post',
      LOW_ENTROPY * max_entropy,
      f'the posterior of {state} has become deterministic',
    )
    judge(f'kl/{state}', LOW_KL, f'the image tells {state} nothing')
  judge('a_agg/std', LOW_SPREAD, 'a_agg is the same whatever moves')
  constant = 'the motion is predicted no better than by'
  for name, reference, what in (
    ('held_out/mae', 'held_out/mae_mean_patch', 'the mean patch'),
    ('loss/mae', 'mae/zero_flow', 'no motion'),
  ):
    limit = BARELY_BETTER * metrics.get(reference, math.nan)
    judge(name, limit, f'{constant} {what}', above=True)
  return found


class Alarms:
  """Remembers for how long something has been wrong."""

  def __init__(self, max_entropy: float):
    self._max_entropy = max_entropy
    self._lines: dict[str, int] = {}

  def look(self, updates: int, metrics: Mapping[str, float]) -> None:
    """Judges a log line.

    Args:
      updates: so far.
      metrics: of the line.
    """
    if updates < WARM_UP:
      return
    found = check(metrics, self._max_entropy)
    for name in metrics:
      lines = self._lines.get(name, 0) + 1 if name in found else 0
      self._lines[name] = lines
      if lines == PATIENCE:
        _log.warning('Collapse after %d updates? %s', updates, found[name])


class Terminations:
  """Warns once where episodes terminate and the system is not told (N41)."""

  def __init__(self, are_learned: bool):
    """Starts before the first episode.

    Args:
      are_learned: whether the system predicts continuation.
    """
    self._silent = are_learned

  def look(self, number: int, is_terminal: np.ndarray) -> None:
    """Looks at an episode that has ended.

    Args:
      number: of the episode, from 0.
      is_terminal: [T] bool.
    """
    if is_terminal.any() and not self._silent:
      self._silent = True
      _log.warning(
        'Episode %d terminated, which nothing learns from: returns continue'
        ' past its end while config.behavior.continuation=False. Where'
        ' episodes terminate it should be True.',
        number + 1,
      )
