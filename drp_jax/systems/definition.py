"""Defines what a system's file hands to the registry, and a loop gets."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from drp_jax.systems import (
  contract,
  imagination,
  intrinsic,
  learner,
  optim,
  pretraining,
  warm_start,
  world_model,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Built:
  """A system with all that a loop needs beside it.

  Attributes:
    system: acts and, in systems that pre-train, predicts.
    pretraining: first state and step of Algorithm 1; None where there is no
      pre-training.
    finetuning: first state and update of Algorithm 2.
    num_keypoints: K of the motion that the system sees, None if it sees none.
    max_entropy: of a latent state, nats; 0 where no entropy is logged.
    learns_terminations: whether it predicts where episodes terminate.
  """

  system: contract.System
  pretraining: pretraining.Pretraining | None
  finetuning: learner.Learner
  num_keypoints: int | None
  max_entropy: float
  learns_terminations: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Definition:
  """A system as the registry lists it.

  Attributes:
    build: (config, action size, device axis or None) -> the system.
    ranges: key of a number of the config -> smallest and largest value.
    choices: key of the config -> all of its values.
    check: (config, prefix of keys in errors) -> None; raises ValueError for
      values that do not fit each other.
  """

  build: Callable[[ml_collections.ConfigDict, int, str | None], Built]
  ranges: Mapping[str, tuple[float, float]] = dataclasses.field(
    default_factory=dict
  )
  choices: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )
  check: Callable[[ml_collections.ConfigDict, str], None] = lambda *_: None


def in_turn(
  config: ml_collections.ConfigDict,
  system: Any,
  action_size: int,
  members: Mapping[str, str],
  max_entropy: float | None = None,
) -> Built:
  """Adds to a system whose policy learns after its world model all the rest.

  Args:
    config: configs/base.py.
    system: with the `axis_name` of the training step.
    action_size: A.
    members: its parameter sets and their groups, see `optim.world_model`.
    max_entropy: of a latent state; None is that of `config.rssm`.
  """
  if max_entropy is None:
    max_entropy = config.rssm.groups * math.log(config.rssm.classes)
  begin = start(config, system, action_size)
  return Built(
    system=system,
    pretraining=pretraining.Pretraining(
      system=system,
      tx=optim.pretraining(config),
      seed=config.seed,
      num_keypoints=begin.num_keypoints,
      axis_name=system.axis_name,
    )
    if system.pretrained
    else None,
    finetuning=learner.InTurn(
      system=system,
      model_tx=optim.world_model(config, members),
      behavior_tx=optim.behavior(config),
      start=begin,
      axis_name=system.axis_name,
      bonus=intrinsic.Settings(**config.intrinsic.to_dict()),
      slow_critic_every=config.behavior.slow_critic_every,
    ),
    num_keypoints=begin.num_keypoints,
    max_entropy=max_entropy,
    learns_terminations=config.behavior.continuation,
  )


def in_turn_settings(
  config: ml_collections.ConfigDict, axis_name: str | None
) -> dict[str, Any]:
  """Makes the fields that all systems of `in_turn` have."""
  c = config.behavior
  return dict(
    weights=world_model.LossWeights(**config.loss.to_dict()),
    behavior=imagination.Settings(
      horizon=c.horizon,
      discount=c.discount,
      lam=c.lam,
      entropy_scale=c.entropy_scale,
      remat=config.remat,
    ),
    axis_name=axis_name,
  )


def start(
  config: ml_collections.ConfigDict, system: contract.System, action_size: int
) -> warm_start.Start:
  """Makes the settings of a system's first state in fine-tuning."""
  return warm_start.Start(
    agent=config.agent,
    seed=config.seed,
    init_from=config.init_from,
    init_without=tuple(config.init_without),
    init_zero=tuple(config.init_zero),
    flow_scale=config.finetune.flow_scale,
    num_keypoints=config.dae.num_keypoints if system.sees_motion else None,
    action_size=action_size,
  )
