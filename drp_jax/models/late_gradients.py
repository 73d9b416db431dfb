"""Scan over time that computes gradients of dense layers after the scan.

The plain gradient of a scan adds to the gradients of all weights at every step:
T small products, and T times the weights' size through memory. Here the
backward scan leaves the gradients of what each layer returned, and one product
of them with what the layer was given, over all steps at once, is the gradient
of its kernel: the same sum, added up in another order.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def scan(step: Callable, params: Any, carry: Any, xs: Any) -> tuple[Any, Any]:
  """Scans `step(params, carry, x) -> (carry, y)`, as `jax.lax.scan` would.

  Args:
    step: pure, applies Flax modules whose parameters stand in `params` by their
      paths. What it closes over has no gradient.
    params: dict of arrays. The gradients of `nn.Dense` layers, each called once
      in a step, are computed after the scan; those of others within it.
    carry: what the first step begins with.
    xs: leaves [T, ...].

  Returns:
    The last carry, and the ys, leaves [T, ...].
  """
  return jax.lax.scan(functools.partial(step, params), carry, xs)


def _forward(step, params, carry, xs):
  """Scans with a zero, the "tap", added to the output of each dense layer.

  The gradient of a layer's tap is that of what it returned.
  """
  flat: dict[Any, Any] = flax.traverse_util.flatten_dict(params)

  def tapped(taps, params, carry, x):
    given = {}

    def intercept(call, args, kwargs, context):
      path, before = context.module.path, set(given)
      y = call(*args, **kwargs)
      if context.method_name != '__call__' or (*path, 'kernel') not in flat:
        return y
      assert path not in before, f'{path} is called twice in a step.'
      if path in given or not isinstance(context.module, nn.Dense):
        return y  # a subclass of `nn.Dense` calls that, which is tapped
      given[path] = args[0]
      return y + taps[path] if taps else y

    with nn.intercept_methods(intercept):
      carry, y = step(params, carry, x)
    return carry, (y, given)

  first = jax.tree.map(lambda x: x[0], xs)
  _, (_, given) = jax.eval_shape(tapped, {}, params, carry, first)
  T = jax.tree.leaves(xs)[0].shape[0]
  taps = {
    path: jnp.zeros(
      (T, *x.shape[:-1], flat[*path, 'kernel'].shape[-1]), x.dtype
    )
    for path, x in given.items()
  }
  rest = {path: x for path, x in flat.items() if path[:-1] not in taps}

  def run(rest, taps, carry, xs):
    params = flax.traverse_util.unflatten_dict(flat | rest)

    def step(carry, inputs):
      x, taps = inputs
      return tapped(taps, params, carry, x)

    carry, (ys, given) = jax.lax.scan(step, carry, (xs, taps))
    return (carry, ys), given

  out, backward, given = jax.vjp(run, rest, taps, carry, xs, has_aux=True)
  return out, (params, given, backward)


def _backward(step, kept, gradient):
  """Multiplies inputs of layers by the gradients of their taps."""
  del step
  params, given, backward = kept
  grads, taps, carry, xs = backward(gradient)
  for path, x in given.items():
    x = x.reshape(-1, x.shape[-1])
    dy = taps[path].reshape(x.shape[0], -1)
    grads[*path, 'kernel'] = jnp.matmul(
      x.T, dy, preferred_element_type=jnp.promote_types(dy.dtype, jnp.float32)
    )
    grads[*path, 'bias'] = dy.sum(0, dtype=grads[*path, 'kernel'].dtype)
  flat: dict[Any, Any] = flax.traverse_util.flatten_dict(params)
  grads = {path: grads[path].astype(x.dtype) for path, x in flat.items()}
  return flax.traverse_util.unflatten_dict(grads), carry, xs


scan.defvjp(_forward, _backward)
