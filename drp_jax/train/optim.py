"""Optimizers: Adam in groups of parameter sets (D3, D16), and LaProp."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

_SMALLEST_NORM = 1e-3  # of a parameter, in adaptive clipping  [DreamerV3]


def adam(
  learning_rate: optax.ScalarOrSchedule,
  *,
  eps: float,
  grad_clip: float,
  weight_decay: float,
) -> optax.GradientTransformation:
  """Adam with coupled L2, added after clipping by global norm  [IPV].

  Args:
    learning_rate: a number or a schedule over updates.
    eps: Adam's epsilon.
    grad_clip: largest global norm of the group's gradient.
    weight_decay: L2 coefficient on every parameter, biases included.

  Returns:
    The optimizer of one group.
  """
  return optax.chain(
    optax.clip_by_global_norm(grad_clip),
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_adam(b1=0.9, b2=0.999, eps=eps),
    optax.scale_by_learning_rate(learning_rate),
  )


def grouped(
  groups: Mapping[str, optax.GradientTransformation],
  members: Mapping[str, str],
) -> optax.GradientTransformation:
  """One optimizer per group of parameter sets, each clipped by itself.

  Args:
    groups: group name to optimizer.
    members: top key of the parameter tree to group name; all of them.

  Returns:
    An optimizer of trees whose top keys are in `members`.
  """
  return optax.multi_transform(
    dict(groups), lambda params: {key: members[key] for key in params}
  )


def frozen_at_first(learning_rate: float, updates: int) -> optax.Schedule:
  """Learning rate 0 for some updates, then constant (`no_pretrain`, IPV)."""
  return lambda count: learning_rate * (count >= updates)


def laprop(
  learning_rate: optax.ScalarOrSchedule, *, clip: float
) -> optax.GradientTransformation:
  """LaProp with adaptive gradient clipping, array by array  [DreamerV3].

  Clip, divide by the root of the mean square, and only then average: the
  reverse of Adam's order. Both averages are corrected for their start.

  Args:
    learning_rate: a number or a schedule over updates.
    clip: largest norm of a gradient, in norms of its parameter.

  Returns:
    The optimizer.
  """
  return optax.chain(
    adaptive_clip(clip),
    optax.scale_by_rms(
      decay=0.999, eps=1e-20, eps_in_sqrt=False, bias_correction=True
    ),
    optax.ema(decay=0.9, debias=True),
    optax.scale_by_learning_rate(learning_rate),
  )


def adaptive_clip(clip: float) -> optax.GradientTransformation:
  """Shrinks each array's gradient to `clip` norms of the whole array.

  `optax.adaptive_grad_clip` has a norm for each output unit instead.
  """

  def shrink(gradient, param):
    norm = jnp.linalg.norm(gradient.ravel())
    largest = clip * jnp.linalg.norm(param.ravel()).clip(min=_SMALLEST_NORM)
    return gradient / jnp.maximum(1.0, norm / largest)

  return optax.stateless(
    lambda gradients, params: jax.tree.map(shrink, gradients, params)
  )


def warmed_up(learning_rate: float, updates: int) -> optax.Schedule:
  """Rises from 0 in equal steps, then is constant."""
  return optax.linear_schedule(0.0, learning_rate, updates)
