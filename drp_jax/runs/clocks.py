"""Tells when something is due in a run, and measures its speed."""

import dataclasses
import time


@dataclasses.dataclass(frozen=True)
class Every:
  """Marks the counts first, first + every, first + 2 every and so on.

  Attributes:
    every: at least 1.
    first: any count.
  """

  every: int
  first: int = 0

  def passed(self, before: int, now: int) -> int:
    """Returns how many marks lie after `before` and up to `now`."""
    earlier, later = (
      (count - self.first) // self.every for count in (before, now)
    )
    return later - earlier

  def at(self, count: int) -> bool:
    """Tells whether there is a mark at `count`."""
    return self.passed(count - 1, count) > 0


class Speed:
  """Measures counts per second between calls."""

  def __init__(self, **counts: int):
    """Begins to measure.

    Args:
      **counts: name to how much was done so far.
    """
    self._then, self._counts = time.monotonic(), counts

  def measure(self, **counts: int) -> dict[str, float]:
    """Returns metrics `time/<name>_per_second` since the call before.

    Args:
      **counts: the same names, and how much is done by now.
    """
    now = time.monotonic()
    seconds = now - self._then
    found = {
      f'time/{name}_per_second': (count - self._counts[name]) / seconds
      for name, count in counts.items()
    }
    self._then, self._counts = now, counts
    return found
