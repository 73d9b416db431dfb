"""Updates whose loss or gradient is not finite: skipped, counted, kept.

The step itself skips (`guard`), without the host. The host learns of it one
update later, when the flag is there anyway, so the devices never wait for it.
"""

import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drp_jax import files

FOLDER = 'bad_steps'
_KEPT = 3  # records of a run, a batch and a state each              [ours]

_log = logging.getLogger(__name__)


def guard(
  new: Any, old: Any, metrics: dict[str, jax.Array]
) -> tuple[Any, dict[str, jax.Array]]:
  """Takes a step back if a loss or gradient is not finite; part of the step.

  The choice fuses with what computes `new`, so it costs next to nothing.

  Args:
    new: state after the step.
    old: state without it, its count of steps advanced all the same.
    metrics: averaged over devices. Judged are 'loss/...' and 'grad_norm/...'; a
      norm is not finite if an entry of the gradient is not, or is above 1e19.

  Returns:
    One of the states, and the metrics with 'skipped', 0 or 1.
  """
  judged = [
    value
    for name, value in metrics.items()
    if name.startswith(('loss/', 'grad_norm/'))
  ]
  ok = jnp.isfinite(jnp.stack(judged)).all()
  state = jax.tree.map(lambda n, o: jnp.where(ok, n, o), new, old)
  return state, {**metrics, 'skipped': 1.0 - ok}


class BadSteps:
  """Counts the updates that were skipped, and ends a run of nothing else.

  The first few leave a folder `bad_steps/<update>` in the workdir: batch.npz
  (leaves of the batch), state.npz (parameters, optimizer and the rest, by name)
  and about.json.

  Attributes:
    total: updates skipped since the run began.
  """

  def __init__(self, directory: pathlib.Path, limit: int, counts: list[int]):
    """Goes on counting.

    Args:
      directory: the workdir.
      limit: of updates in a row, config.optim.max_bad_steps.
      counts: from `counts` of a checkpoint; [0, 0] at first.
    """
    if limit < 1:
      raise ValueError(
        f'config.optim.max_bad_steps={limit} must be at least 1.'
      )
    self._folder = pathlib.Path(directory) / FOLDER
    self._limit = limit
    self.total, self._in_a_row = counts
    self._pending = None

  @property
  def counts(self) -> list[int]:
    """For a checkpoint; call `settle` before."""
    return [self.total, self._in_a_row]

  def add(self, number: int, batch: Any, skipped: jax.Array, state: Any):
    """Notes an update that was begun, and looks at the one before.

    Args:
      number: of the update, from 1.
      batch: pytree of NumPy arrays; held until the next call.
      skipped: [] its metric 'skipped'; not waited for.
      state: after it.

    Raises:
      RuntimeError: if too many in a row were skipped.
    """
    self.settle(state, number)
    self._pending = number, batch, skipped

  def settle(self, state: Any, newest: int) -> None:
    """Waits for the update that was noted last.

    Args:
      state: as it is now, the result of update `newest`.
      newest: number of an update.

    Raises:
      RuntimeError: as `add`.
    """
    if self._pending is None:
      return
    number, batch, skipped = self._pending
    self._pending = None
    if not float(skipped):
      self._in_a_row = 0
      return
    self.total += 1
    self._in_a_row += 1
    folder = self._folder / f'{number:09d}'
    _log.warning(
      'Update %d had a loss or gradient that is not finite, and was skipped;'
      ' %d so far, %d in a row.',
      number,
      self.total,
      self._in_a_row,
    )
    if not folder.exists() and len(list(self._folder.glob('*'))) < _KEPT:
      _record(folder, number, batch, state, newest)
    if self._in_a_row >= self._limit:
      raise RuntimeError(
        f'{self._in_a_row} updates in a row had a loss or gradient that is not'
        f' finite (config.optim.max_bad_steps={self._limit}), the last is'
        f' update {number}. None of them changed the parameters; batches and'
        f' states of the first lie in {str(self._folder)!r}. The run can go on'
        ' from its last checkpoint, perhaps with a smaller config.optim.lr.'
      )


def _record(folder, number, batch, state, newest) -> None:
  """What is needed to see why; whole or not there."""
  partial = folder.with_name(f'.{folder.name}')
  partial.mkdir(parents=True, exist_ok=True)
  for name, tree in (('batch', batch), ('state', state)):
    leaves = jax.tree.leaves_with_path(jax.device_get(tree))
    arrays = {jax.tree_util.keystr(path): np.asarray(x) for path, x in leaves}
    files.write_arrays(partial / f'{name}.npz', arrays)
  about = {'update': number, 'state_is_after_update': newest}
  files.write_json(partial / 'about.json', about)
  partial.rename(folder)
