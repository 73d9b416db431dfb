"""Optimizers: Adam in groups of parameter sets (D3, D16)."""

from collections.abc import Mapping

import optax


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
