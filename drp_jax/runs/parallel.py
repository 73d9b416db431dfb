"""The one place that knows about devices.

`jax.pmap` in its oldest, plainest form: the state and the key go in and come
out without a device axis, the batch has one in front. A step knows only the
name of that axis, so replacing this file replaces pmap.

Several processes (`experiments/launch.py`) run the same program, each with its
part of the batch on its own devices; averages are over the devices of all.
"""

import pathlib
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

AXIS = 'batch'
_PATIENCE = 3600  # seconds that processes wait for each other


def pmap_step(step: Callable, devices: Sequence[Any] | None = None) -> Callable:
  """Runs a per-device `step(state, batch, key)` on all processes' devices.

  Args:
    step: returns (state, metrics), averaged over the device axis `AXIS`.
    devices: to run on, or only to compile for; None for all that there are.

  Returns:
    A function of the state, a batch from `shard`, and a key. The old state is
    donated: do not use it again.
  """
  pmapped = jax.pmap(
    step,
    axis_name=AXIS,
    devices=devices,
    in_axes=(None, 0, None),
    out_axes=(None, None),
    donate_argnums=(0,),
  )
  return pmapped if jax.process_count() == 1 else _compiled_together(pmapped)


def _compiled_together(pmapped: Any) -> Callable:
  """The same function, whose first call waits till all have compiled.

  A collective gives up on a process that comes half a minute later, on CPUs.
  """
  waited = False

  def step(state, batch, key):
    nonlocal waited
    if not waited:
      # The call below finds it. NumPy, since `lower` ends what is donated.
      pmapped.lower(jax.device_get(state), batch, key).compile()
      wait_for_all('compiled')
      waited = True
    return pmapped(state, batch, key)

  return step


def compile_ahead(
  step: Any, state: Any, batch: Any, key: Any
) -> tuple[Callable, Callable[[], bool]]:
  """Compiles a step in a thread, while the caller does something else.

  For one process: what pmap does before and after, for several, is left out.

  Args:
    step: from `pmap_step`.
    state: from `replicate`, read only for shapes.
    batch: of the shapes that `shard` gives.
    key: typed key.

  Returns:
    A function like `step`, whose first call waits for the compiler, and one
    that tells whether it is compiled. The first takes arguments of these shapes
    and types only.
  """
  lowered = jax.tree.map(jax.typeof, (state, batch, key))
  thread = futures.ThreadPoolExecutor(1, 'compile')
  compiled = thread.submit(lambda: step.lower(*lowered).compile())
  return lambda *args: compiled.result()(*args), compiled.done


def shard(batch: Any, devices: int | None = None) -> Any:
  """Splits a batch over local devices: leaves [B, ...] -> [devices, b, ...].

  Args:
    batch: this process's part of the global batch.
    devices: how many; None for all of this process.

  Raises:
    ValueError: if the number of devices does not divide B.
  """
  devices = devices or jax.local_device_count()

  def split(x):
    B = x.shape[0]
    if B % devices:
      few = (
        'has fewer examples than' if B < devices else 'does not divide among'
      )
      raise ValueError(
        f'A batch of {B} {few} {devices} devices (of each of'
        f' {jax.process_count()} processes): change config.data.batch_size or'
        ' config.replay.batch_size, which all devices share.'
      )
    return np.reshape(x, (devices, B // devices, *x.shape[1:]))

  return jax.tree.map(split, batch)


def replicate(state: Any, devices: Sequence[Any] | None = None) -> Any:
  """Copies a state to all local devices, as a step returns it.

  Args:
    state: pytree of arrays.
    devices: those of `pmap_step` if it was given some.
  """
  mesh = jax.sharding.Mesh(np.array(devices or jax.local_devices()), (AXIS,))
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  return jax.device_put(state, everywhere)


def device_examples(batch_size: int, axis_name: str | None) -> jax.Array | int:
  """Index, in the global batch, of this device's first example."""
  if axis_name is None:
    return 0
  return jax.lax.axis_index(axis_name) * batch_size


def mean(tree: Any, axis_name: str | None) -> Any:
  """Averages over devices."""
  return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def own_folder(workdir: str | pathlib.Path) -> pathlib.Path:
  """Where this process writes what others write too: logs, lock, records.

  The workdir for the first process, `process_<i>` in it for others, which have
  no part in checkpoints but reading them.
  """
  folder, index = pathlib.Path(workdir), jax.process_index()
  return folder / f'process_{index}' if index else folder


def wait_for_all(what: str) -> None:
  """Returns when all processes are here.

  Args:
    what: the same in all of them, and another at each call.
  """
  if jax.process_count() > 1:
    from orbax.checkpoint import multihost  # one process does without

    # Named processes make it a call to the coordinator, which is patient; a
    # collective is not.
    everyone = set(range(jax.process_count()))
    multihost.sync_global_processes(what, timeout=_PATIENCE, processes=everyone)


def check_agreement(what: str, number: int) -> None:
  """Compares a number between processes.

  Args:
    what: the number is, and what to do.
    number: of this process.

  Raises:
    ValueError: if they differ.
  """
  if jax.process_count() > 1:
    wait_for_all(what)
    numbers = multihost_utils.process_allgather(np.int32(number))
    if (numbers != number).any():
      raise ValueError(f'{what}: {numbers.tolist()} in the processes.')


def on_one_device(tree: Any) -> Any:
  """The copy on the first local device of arrays that all devices hold.

  For acting and evaluation, which run on one device. Shares buffers with
  `tree`, so it ends when `tree` is donated to the next step.
  """
  return jax.tree.map(lambda x: x.addressable_data(0), tree)
