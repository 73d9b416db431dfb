"""Counts the operations of a traced step with loops unrolled."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax

from benchmarks import steps


@dataclasses.dataclass(frozen=True)
class Work:
  """Work of a traced step.

  Attributes:
    flops: operations of matrix products and convolutions, loops unrolled.
    loop_bytes: bytes that loops read and write again in every turn after the
      first (XLA counts only the first): constants and carried values, mostly
      weights and, in the backward pass, their gradients.
  """

  flops: float = 0.0
  loop_bytes: float = 0.0

  def __add__(self, other: 'Work') -> 'Work':
    return Work(self.flops + other.flops, self.loop_bytes + other.loop_bytes)

  def times(self, turns: int) -> 'Work':
    """Returns the work of several turns."""
    return Work(turns * self.flops, turns * self.loop_bytes)


def count(jaxpr: Any) -> Work:
  """Counts the work of a jaxpr and of all jaxprs that it calls."""
  total = Work()
  for eqn in _used(jaxpr):
    name, params = eqn.primitive.name, eqn.params
    if name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      shape = eqn.invars[0].aval.shape
      inner = math.prod(shape[axis] for axis in contracted)
      total += Work(2.0 * eqn.outvars[0].aval.size * inner)
    elif name == 'conv_general_dilated':
      kernel = eqn.invars[1].aval
      features = kernel.shape[params['dimension_numbers'].rhs_spec[0]]
      zeros = math.prod(params['lhs_dilation'])  # between pixels, not counted
      per_output = kernel.size / features / zeros
      total += Work(2.0 * eqn.outvars[0].aval.size * per_output)
    elif name == 'scan':
      inner, turns = params['jaxpr'].jaxpr, params['length']
      total += count(inner).times(turns)
      first, last = params['num_consts'], params['num_carry']
      once = _bytes(inner.invars[:first])
      once += 2 * _bytes(inner.invars[first : first + last])
      total += Work(0.0, (turns - 1) * once)
    elif name == 'cond' and params.get('branches_platforms') is not None:
      total += count(params['branches'][-1].jaxpr)  # not that of CPUs
    else:
      for inner in _called(params):
        total += count(inner)
  return total


def _used(jaxpr: Any) -> list[Any]:
  """Returns the equations on which outputs depend; XLA drops the others.

  A custom backward pass traces its forward pass too, whose result is not read.
  """
  needed, used = {id(v) for v in jaxpr.outvars}, []
  for eqn in reversed(jaxpr.eqns):
    if eqn.effects or needed & {id(v) for v in eqn.outvars}:
      used.append(eqn)
      needed |= {id(v) for v in eqn.invars}
  return used[::-1]


def _called(params: dict[str, Any]) -> list[Any]:
  """Lists the jaxprs that an equation calls, each once (all branches)."""
  found = []
  for value in params.values():
    for item in value if isinstance(value, (tuple, list)) else [value]:
      item = getattr(item, 'jaxpr', item)
      if hasattr(item, 'eqns'):
        found.append(item)
  return found


def _bytes(variables: Sequence[Any]) -> int:
  return sum(v.aval.size * v.aval.dtype.itemsize for v in variables)


def of_step(step: steps.Step, example: Any) -> Work:
  """Counts the work of a training step on one device.

  Args:
    step: step to count.
    example: batch of that device, or its shapes.
  """
  key = jax.eval_shape(jax.random.key, 0)
  update = step.learner().update
  return count(jax.make_jaxpr(update)(step.state, example, key).jaxpr)
