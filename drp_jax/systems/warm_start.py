"""Loads what fine-tuning starts from."""

import dataclasses
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from drp_jax.systems import contract


@dataclasses.dataclass(frozen=True)
class Start:
  """Says where the first state comes from; see configs/base.py.

  Attributes:
    agent: name of the system, for errors.
    seed: of the random parameters.
    init_from: workdir of a pre-training; '' is from scratch.
    init_without: parameter sets that stay random all the same.
    init_zero: paths of arrays that start at zero instead.
    flow_scale: pixels per frame, where no pre-training says it.
    num_keypoints: K, None for systems that see no motion.
    action_size: A.
  """

  agent: str
  seed: int
  init_from: str
  init_without: tuple[str, ...]
  init_zero: tuple[str, ...]
  flow_scale: float
  num_keypoints: int | None
  action_size: int


def load(
  start: Start, system: contract.System, shapes: dict[str, Any]
) -> dict[str, Any]:
  """Reads what `start.init_from` has taught.

  Args:
    start: what is read and what is left out.
    system: whose variables they are.
    shapes: all of its variables.

  Returns:
    {'params', 'collections'}: the parts of them that are not random.

  Raises:
    ValueError: if what is to be loaded does not fit, or the settings name what
      is not pre-trained.
  """
  if not start.init_from:
    return {'params': {}, 'collections': {}}
  part, zeros = _part(start, system, shapes)
  loaded = {'params': {}, 'collections': {}}
  if part['params']:  # else all of it is left out (E6)
    from drp_jax.runs import checkpoint  # the update itself needs no orbax

    loaded = checkpoint.load_part(start.init_from, part)
  flat = flax.traverse_util.flatten_dict(loaded['params'], sep='/')
  loaded['params'] = flax.traverse_util.unflatten_dict(flat | zeros, sep='/')
  return loaded


def _part(start, system, shapes) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """Shapes to be loaded, and zeros by path for `start.init_zero` (E7)."""
  unknown = sorted(set(start.init_without) - set(system.pretrained))
  if unknown:
    raise ValueError(
      f'config.init_without={start.init_without} names {unknown};'
      f' config.agent={start.agent!r} pre-trains {system.pretrained}.'
    )
  names = [x for x in system.pretrained if x not in start.init_without]
  collections = {}
  if 'batch_stats' in shapes:
    statistics = shapes['batch_stats']
    collections['batch_stats'] = {
      k: v for k, v in statistics.items() if k in names
    }
  if system.sees_motion and system.motion_encoder in names:
    collections['constants'] = shapes['constants']
  params: dict[Any, Any] = flax.traverse_util.flatten_dict(
    {name: shapes['params'][name] for name in names}, sep='/'
  )
  unknown = sorted(set(start.init_zero) - params.keys())
  if unknown:
    raise ValueError(
      f'config.init_zero={start.init_zero} names {unknown}, which are not'
      ' among the arrays that would be loaded.'
    )
  zeros = {
    path: jnp.zeros(params[path].shape, params[path].dtype)
    for path in start.init_zero
  }
  params = {path: x for path, x in params.items() if path not in zeros}
  params = flax.traverse_util.unflatten_dict(params, sep='/')
  return {'params': params, 'collections': collections}, zeros
