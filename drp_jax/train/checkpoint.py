"""Checkpoints: the state as arrays, everything else as JSON, by orbax."""

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp

_FOLDER = 'checkpoints'
_KEEP = 2


class Checkpoints:
  """The checkpoints of one workdir. A step is there whole, or not at all."""

  def __init__(self, workdir: str | pathlib.Path):
    folder = (pathlib.Path(workdir) / _FOLDER).absolute()
    self._manager = ocp.CheckpointManager(
      folder,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=_KEEP,
        # The training step donates its state, so a background writer would
        # read buffers that are already written over.
        enable_async_checkpointing=False,
      ),
    )

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint, or None."""
    return self._manager.latest_step()

  def save(self, step: int, state: Any, meta: dict[str, Any]) -> None:
    """Writes a checkpoint.

    Args:
      step: number of the checkpoint.
      state: pytree of arrays.
      meta: JSON values: positions of iterators, lists of files.
    """
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
      ),
    )

  def restore(self, template: Any) -> tuple[Any, dict[str, Any]]:
    """Reads the newest checkpoint.

    Args:
      template: pytree of arrays or ShapeDtypeStructs, as saved.

    Returns:
      The state and the meta data.
    """
    restored = self._manager.restore(
      self.latest_step(),
      args=ocp.args.Composite(
        state=ocp.args.StandardRestore(_abstract(template)),
        meta=ocp.args.JsonRestore(),
      ),
    )
    return restored['state'], restored['meta']

  def close(self) -> None:
    """Waits for what is being written."""
    self._manager.close()


def load_part(workdir: str | pathlib.Path, template: Any) -> Any:
  """Reads some subtrees of the newest checkpoint's state.

  Args:
    workdir: of another run.
    template: pytree of arrays, a part of the tree that was saved.

  Returns:
    A pytree like `template`.

  Raises:
    ValueError: if there is no checkpoint, or it lacks a part of `template` or
      holds it in another shape; names the parts.
  """
  folder = (pathlib.Path(workdir) / _FOLDER).absolute()
  steps = ocp.utils.checkpoint_steps(folder) if folder.is_dir() else []
  if not steps:
    raise ValueError(f'config.init_from={str(workdir)!r} holds no checkpoint.')
  path = folder / str(max(steps)) / 'state'
  abstract = _abstract(template)
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
    saved = {
      _name(key): tuple(leaf.shape)
      for key, leaf in jax.tree.leaves_with_path(
        reader.metadata(path).item_metadata.tree
      )
    }
    wanted = {
      _name(key): tuple(leaf.shape)
      for key, leaf in jax.tree.leaves_with_path(abstract)
    }
    wrong = [
      f'{name}: {saved.get(name, "missing")} in the file, {shape} wanted'
      for name, shape in wanted.items()
      if saved.get(name) != shape
    ]
    if wrong:
      raise ValueError(
        f'The checkpoint of config.init_from={str(workdir)!r} does'
        f' not fit this model (another preset?): {"; ".join(wrong[:3])}'
        f'{f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""}.'
      )
    return reader.restore(
      path,
      args=ocp.args.PyTreeRestore(
        item=abstract,
        restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
        partial_restore=True,
      ),
    )


def _abstract(tree: Any) -> Any:
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), tree
  )


def _name(key_path: Any) -> str:
  return '/'.join(
    str(getattr(key, 'key', getattr(key, 'name', getattr(key, 'idx', key))))
    for key in key_path
  )
