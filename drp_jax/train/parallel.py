"""The one place that knows about devices.

`jax.pmap` in its oldest, plainest form: the state and the key go in and come
out without a device axis, the batch has one in front. A step knows only the
name of that axis, so replacing this file replaces pmap.
"""

import functools
from collections.abc import Callable
from concurrent import futures
from typing import Any

import jax
import numpy as np

AXIS = 'batch'


def pmap_step(step: Callable, **static: Any) -> Callable:
  """Runs a per-device `step(state, batch, key)` on all local devices.

  Args:
    step: returns (state, metrics); must average over `axis_name`.
    **static: keyword arguments of `step` that never change.

  Returns:
    A function of the state, a batch from `shard`, and a key. The old state is
    donated: do not use it again.
  """
  return jax.pmap(
    functools.partial(step, axis_name=AXIS, **static),
    axis_name=AXIS,
    in_axes=(None, 0, None),
    out_axes=(None, None),
    donate_argnums=(0,),
  )


def compile_ahead(step: Callable, state: Any, batch: Any, key: Any) -> Callable:
  """Compiles a step in a thread, while the caller does something else.

  Args:
    step: from `pmap_step`.
    state: from `replicate`, read only for shapes.
    batch: of the shapes that `shard` gives.
    key: typed key.

  Returns:
    A function like `step`, whose first call waits for the compiler. It takes
    arguments of these shapes and types only.
  """
  lowered = jax.tree.map(jax.typeof, (state, batch, key))
  thread = futures.ThreadPoolExecutor(1, 'compile')
  compiled = thread.submit(lambda: step.lower(*lowered).compile())
  return lambda *args: compiled.result()(*args)


def shard(batch: Any) -> Any:
  """Splits a batch over local devices: leaves [B, ...] -> [devices, b, ...].

  Raises:
    ValueError: if the number of devices does not divide B.
  """
  devices = jax.local_device_count()

  def split(x):
    if x.shape[0] % devices:
      raise ValueError(
        f'A batch of {x.shape[0]} does not divide among {devices} devices'
        ' (config.data.batch_size, config.replay.batch_size).'
      )
    return np.reshape(x, (devices, x.shape[0] // devices, *x.shape[1:]))

  return jax.tree.map(split, batch)


def replicate(state: Any) -> Any:
  """Copies a state to all local devices, as a step returns it."""
  mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (AXIS,))
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


def on_one_device(tree: Any) -> Any:
  """The copy on the first local device of arrays that all devices hold.

  For acting and evaluation, which run on one device. Shares buffers with
  `tree`, so it ends when `tree` is donated to the next step.
  """
  return jax.tree.map(lambda x: x.addressable_data(0), tree)
