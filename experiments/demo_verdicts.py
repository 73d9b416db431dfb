"""Judges the demo's numbers in sentences made from these numbers alone."""

import numpy as np

from drp_jax.train import evaluate

_CLEARLY = 0.9  # a loss below this part of another is clearly lower  [ours]


def duration(seconds: float) -> str:
  """Writes 245 as '4 min 05 s'."""
  minutes, rest = divmod(round(seconds), 60)
  return f'{minutes} min {rest:02} s' if minutes else f'{rest} s'


def mae(mae: float, zero_flow: float, mean_patch: float) -> str:
  """Judges the held-out loss of Eq. 5 against constant predictions."""
  best = min(zero_flow, mean_patch)
  word = 'clearly better' if mae < _CLEARLY * best else 'not clearly better'
  return (
    f'Hidden patches of held-out clips: the loss (Eq. 5) is {mae:.3g}. Saying'
    f' that nothing moves gives {zero_flow:.3g}, and the mean patch of these'
    f' very clips {mean_patch:.3g}. The model is {word} than both'
    f' ({mae / best - 1:+.0%} against the better one; clearly means'
    f' {_CLEARLY - 1:.0%} or more).'
  )


def open_loop(predicted: float, copied: float) -> str:
  """Judges open-loop frames against copying the last frame that was seen."""
  word = 'beats' if predicted < copied else 'does not beat'
  return (
    f'Frames after the {evaluate.CONTEXT_STEPS} that the model saw: its mean'
    f' squared error is {predicted:.3g} (pixels in 0..1). Copying the last'
    f' seen frame gives {copied:.3g}. Prediction {word} copying'
    f' ({predicted / copied - 1:+.0%}). Predictions follow the true later'
    ' motion through the aggregated action, which copying does not know.'
  )


def returns(
  first: tuple[float, float], last: tuple[float, float], random: np.ndarray
) -> str:
  """Judges the agent against acting at random.

  Args:
    first: mean and standard deviation of the first evaluation's returns.
    last: of the last one's.
    random: [m], returns of random episodes.
  """
  mean, std = random.mean(), random.std()
  word = 'above' if last[0] > mean + std else 'not above'
  return (
    f"The agent's return is {_pm(*last)} in its last evaluation, after"
    f' {_pm(*first)} in its first; acting at random gives {_pm(mean, std)}. The'
    f' agent is {word} random (above means by more than one standard deviation'
    " of random's). The demo is minutes long; see docs/learning.md"
    ' for a real learning curve.'
  )


def _pm(mean: float, std: float) -> str:
  return f'{mean:.1f} ± {std:.1f}'
