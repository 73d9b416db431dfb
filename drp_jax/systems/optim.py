"""Adam in groups of parameter sets, made from a config (Table 5; D3, D16)."""

from collections.abc import Hashable, Mapping
from typing import Any

import ml_collections
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
  transforms: dict[Hashable, optax.GradientTransformation] = {**groups}
  return optax.multi_transform(
    transforms, lambda params: {key: members[key] for key in params}
  )


def frozen_at_first(learning_rate: float, updates: int) -> optax.Schedule:
  """Learning rate 0 for some updates, then constant (`no_pretrain`, IPV)."""

  def schedule(count: Any) -> Any:
    return learning_rate * (count >= updates)

  return schedule


def pretraining(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Makes one Adam for everything (Table 5)."""
  return adam(config.optim.lr, **_settings(config))


def world_model(
  config: ml_collections.ConfigDict, members: Mapping[str, str]
) -> optax.GradientTransformation:
  """Makes the optimizer of a world model in fine-tuning.

  Args:
    config: configs/base.py.
    members: parameter set to its group. 'slow' and 'encoder' stand still at
      first where the config says so, and 'slow' then learns slowly; 'model'
      learns from the beginning; 'frozen' never learns.
  """
  c, settings = config.optim, _settings(config)

  def frozen(rate):
    return adam(frozen_at_first(rate, c.encoder_frozen_updates), **settings)

  groups = {
    'slow': frozen(c.lr * c.slow_lr_scale),
    'encoder': frozen(c.lr),
    'model': adam(c.lr, **settings),
  }
  if 'frozen' in members.values():
    groups['frozen'] = optax.set_to_zero()
  return grouped(groups, members)


def behavior(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Makes the optimizer of actor and critic."""
  c, settings = config.optim, _settings(config)
  return grouped(
    {
      'actor': adam(c.actor_lr, **settings),
      'critic': adam(c.critic_lr, **settings),
    },
    {'actor': 'actor', 'critic': 'critic'},
  )


def _settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
  c = config.optim
  return dict(eps=c.eps, grad_clip=c.grad_clip, weight_decay=c.weight_decay)
