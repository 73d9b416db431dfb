"""Checkpoints: the state as arrays, everything else as JSON, by orbax.

Nothing in them is code: orbax reads arrays and JSON. The JSON holds a CRC-32 of
every array and one of itself, so a bit that flipped on the disk is found when
it is read. Checkpoints that were written before there was the second one are
read without it.
"""

import hashlib
import json
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from drp_jax import extras
from drp_jax.runs import parallel

with extras.brings('train', __name__):
  import orbax.checkpoint as ocp

_FOLDER = 'checkpoints'
_KEEP = 2
# In the JSON. The last two come together: a flipped bit that renames one leaves
# the other, which tells the JSON from an old one that had neither.
_CHECKSUMS = 'crc32'  # of the arrays
_OWN_CHECKSUM = 'crc32_of_json'  # of all the rest
_FORMAT = 'checkpoint_format'
_NEWEST_FORMAT = 2
_NAMED = 3  # arrays that an error names


class Checkpoints:
  """The checkpoints of one workdir. A step is there whole, or not at all."""

  def __init__(self, workdir: str | pathlib.Path):
    self._folder = (pathlib.Path(workdir) / _FOLDER).absolute()
    self._folder.mkdir(parents=True, exist_ok=True)
    own = jax.process_index()
    self._manager = ocp.CheckpointManager(
      self._folder,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=_KEEP,
        # The training step donates its state, so a background writer would
        # read buffers that are already written over.
        enable_async_checkpointing=False,
        # Each process by itself: the first writes what all have, all read.
        create=False,
        read_only=own != 0,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
          primary_host=own, active_processes={own}
        ),
      ),
    )

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def save(
    self, step: int, state: Any, meta: dict[str, Any], extra: Any = None
  ) -> None:
    """Writes a checkpoint.

    Of several processes, all call this; the first writes, the others wait.

    Args:
      step: number of the checkpoint, new.
      state: pytree of arrays, all finite.
      meta: JSON values: positions of iterators, lists of files.
      extra: another pytree of arrays, for `restore_extra`.

    Raises:
      RuntimeError: if it cannot be written, as on a full disk; the checkpoints
        before it stay.
    """
    if jax.process_index():
      parallel.wait_for_all(f'checkpoint {step}')
      return
    # As NumPy: orbax would cut what several devices hold to pieces.
    items = jax.device_get(
      {'state': state, **({} if extra is None else {'extra': extra})}
    )
    meta = _sealed(
      {**meta, _CHECKSUMS: {k: _checksums(v) for k, v in items.items()}}
    )
    arrays = {name: ocp.args.StandardSave(tree) for name, tree in items.items()}
    try:
      self._manager.save(
        step,
        args=ocp.args.Composite(**arrays, meta=ocp.args.JsonSave(meta)),
      )
    except Exception as error:  # those of tensorstore are of many kinds
      others = [s for s in self._manager.all_steps() if s != step]
      rest = (
        f'Checkpoint {max(others)} is whole: once there is space, the same'
        ' command resumes from there.'
        if others
        else 'There is none before it: once there is space, the same command'
        ' begins anew.'
      )
      raise RuntimeError(
        f'Checkpoint {step} cannot be written to {str(self._folder)!r}:'
        f' {_brief(error)}. {rest}'
      ) from error
    parallel.wait_for_all(f'checkpoint {step}')

  def restore(self, template: Any) -> tuple[Any, dict[str, Any]]:
    """Reads the newest checkpoint.

    Args:
      template: pytree of arrays or ShapeDtypeStructs, as saved.

    Returns:
      The state and the meta data.

    Raises:
      ValueError: if it is of another model, damaged, or not finite; names the
        arrays.
    """
    step, what = self.latest_step(), self._what()
    meta = _read_meta(self._folder / str(step), what)
    state = _read(
      self._folder / str(step) / 'state',
      template,
      meta.pop(_CHECKSUMS, {}).get('state', {}),
      what,
      whole=True,
    )
    return state, meta

  def restore_extra(self, template: Any) -> Any:
    """Reads `extra` of the newest checkpoint, as `restore`."""
    path, what = self._folder / str(self.latest_step()), self._what()
    checksums = _read_meta(path, what)[_CHECKSUMS]['extra']
    return _read(path / 'extra', template, checksums, what)

  def close(self) -> None:
    """Waits for what is being written."""
    self._manager.close()

  def _what(self) -> str:
    return f'Checkpoint {self.latest_step()} in {str(self._folder)!r}'


def latest_step(workdir: str | pathlib.Path) -> int | None:
  """Step of the newest complete checkpoint in a workdir; None without one.

  Writes nothing, where `Checkpoints` makes its folder.
  """
  folder = pathlib.Path(workdir) / _FOLDER
  if not folder.is_dir():
    return None
  return max(ocp.utils.checkpoint_steps(folder.absolute()), default=None)


def digest(workdir: str | pathlib.Path) -> dict[str, Any]:
  """Tells the models of newest checkpoints apart.

  Args:
    workdir: of a run; `latest_step` is not None.

  Returns:
    The step and a SHA-256 of the checksums of parameters and collections, which
    the optimizer's state has no part in: `pretrained.export` leaves it out.

  Raises:
    ValueError: if the checkpoint is damaged.
  """
  step = latest_step(workdir)
  path = (pathlib.Path(workdir) / _FOLDER / str(step)).absolute()
  meta = _read_meta(path, f'The checkpoint of {str(workdir)!r}')
  arrays = {
    name: checksum
    for name, checksum in meta.get(_CHECKSUMS, {}).get('state', {}).items()
    if name.startswith(('params/', 'collections/'))
  }
  text = json.dumps(arrays, sort_keys=True)
  return {'step': step, 'sha256': hashlib.sha256(text.encode()).hexdigest()}


def load_part(
  workdir: str | pathlib.Path, template: Any, key: str = 'config.init_from'
) -> Any:
  """Reads some subtrees of the newest checkpoint's state.

  Args:
    workdir: of another run.
    template: pytree of arrays, a part of the tree that was saved.
    key: what named the workdir, for errors.

  Returns:
    A pytree like `template`.

  Raises:
    ValueError: if there is no checkpoint, or it lacks a part of `template` or
      holds it in another shape, damaged, or not finite; names the parts.
  """
  step = latest_step(workdir)
  if step is None:
    raise ValueError(f'{key}={str(workdir)!r} holds no checkpoint.')
  path = (pathlib.Path(workdir) / _FOLDER / str(step)).absolute()
  what = f'The checkpoint of {key}={str(workdir)!r}'
  checksums = _read_meta(path, what).get(_CHECKSUMS, {}).get('state', {})
  return _read(path / 'state', template, checksums, what)


def _sealed(meta: dict[str, Any]) -> dict[str, Any]:
  """Adds format and checksum to the JSON of a checkpoint."""
  meta = {**meta, _FORMAT: _NEWEST_FORMAT}
  return {**meta, _OWN_CHECKSUM: _json_crc32(meta)}


def _read_meta(path: pathlib.Path, what: str) -> dict[str, Any]:
  """Reads and checks the JSON of a checkpoint, without format and checksum.

  Args:
    path: of the checkpoint.
    what: the beginning of an error.
  """
  try:
    meta = ocp.JsonCheckpointHandler().restore(path / 'meta') or {}
  except Exception as error:
    raise _damaged(what, _brief(error)) from error
  if not isinstance(meta, dict):
    raise _damaged(what, f'its JSON is a {type(meta).__name__}')
  if _FORMAT in meta or _OWN_CHECKSUM in meta:
    found = meta.pop(_OWN_CHECKSUM, None)
    if found != _json_crc32(meta):
      raise _damaged(what, 'its JSON is not what was written')
    if meta.pop(_FORMAT) != _NEWEST_FORMAT:
      raise ValueError(f'{what} was written by a newer version of this code.')
  return meta


def _read(
  path: pathlib.Path,
  template: Any,
  checksums: Mapping[str, int],
  what: str,
  whole: bool = False,
) -> Any:
  """Reads and checks the arrays that `template` names.

  Args:
    path: of an item of a checkpoint.
    template: a part of the tree that was saved.
    checksums: name -> CRC-32; those that are missing are not compared.
    what: the beginning of an error.
    whole: whether there may be no other arrays.
  """
  abstract = _abstract(template)
  # Not by ocp.Checkpointer, which warns that it did not write the item itself.
  handler = ocp.PyTreeCheckpointHandler()
  try:
    metadata = handler.metadata(path).tree
  except Exception as error:
    raise _damaged(what, _brief(error)) from error
  saved = {n: tuple(x.shape) for n, x in _named(metadata).items()}
  wanted = {n: tuple(x.shape) for n, x in _named(abstract).items()}
  wrong = [
    f'{name}: {saved.get(name, "missing")} in the file, {shape} wanted'
    for name, shape in wanted.items()
    if saved.get(name) != shape
  ]
  if whole:
    others = sorted(saved.keys() - wanted.keys())
    wrong += [f'{name}: {saved[name]} in the file alone' for name in others]
  if wrong:
    raise ValueError(
      f'{what} does not fit this model (another preset, or another'
      f' config.agent?): {_some(wrong)}.'
    )
  try:
    tree = handler.restore(
      path,
      args=ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
      ),
    )
  except Exception as error:
    raise _damaged(what, _brief(error)) from error
  arrays = {name: np.asarray(x) for name, x in _named(tree).items()}
  flipped = [
    name
    for name, array in arrays.items()
    if name in checksums and _crc32(array) != checksums[name]
  ]
  if flipped:
    raise _damaged(what, f'not what was written: {_some(flipped)}')
  wrong = [
    name
    for name, array in arrays.items()
    if jax.numpy.issubdtype(array.dtype, np.floating)
    and not np.isfinite(array).all()
  ]
  if wrong:
    raise ValueError(
      f'{what} holds numbers that are not finite: {_some(wrong)}.'
    )
  return tree


def _damaged(what: str, how: str) -> ValueError:
  return ValueError(
    f'{what} is damaged: {how}. If the folder of another step lies beside it,'
    ' delete this one, and the run goes on from that.'
  )


def _checksums(tree: Any) -> dict[str, int]:
  return {name: _crc32(np.asarray(x)) for name, x in _named(tree).items()}


def _crc32(array: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _json_crc32(value: Any) -> int:
  return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _brief(error: Exception) -> str:
  """The first line of an error that may have a page of them."""
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0].strip()[:300]


def _some(names: list[str]) -> str:
  rest = len(names) - _NAMED
  return '; '.join(names[:_NAMED]) + (f' and {rest} more' if rest > 0 else '')


def _abstract(tree: Any) -> Any:
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree
  )


def _named(tree: Any) -> dict[str, Any]:
  """Leaves by name, 'params/dae/norm/scale'."""
  return {_name(path): x for path, x in jax.tree.leaves_with_path(tree)}


def _name(key_path: Any) -> str:
  return '/'.join(
    str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key))))
    for key in key_path
  )
