"""The training steps that benchmarks run, compile or trace."""

import dataclasses
from typing import Any

import jax
import ml_collections

from configs import finetune_dmcr, finetune_metaworld
from configs import pretrain as pretrain_config
from drp_jax.train import (
  batches,
  build,
  finetune,
  finetune_step,
  optimizers,
  pretrain,
)

STAGES = ('pretrain', 'dmcr', 'metaworld')


@dataclasses.dataclass(frozen=True)
class Step:
  """A step to be compiled or traced.

  Attributes:
    config: configs/base.py.
    function: `step(state, batch, key, axis_name)` of `drp_jax.train`.
    static: its other keyword arguments, but the system.
    action_size: A.
    state: shapes.
    example: a global batch.
    steps: how often a run takes it.
  """

  config: ml_collections.ConfigDict
  function: Any
  static: dict[str, Any]
  action_size: int
  state: Any
  example: Any
  steps: int

  @property
  def batch_size(self) -> int:
    return self.example.image.shape[0]


def make_step(
  stage: str,
  dtype: str,
  preset: str,
  agent: str = 'drp',
  batch_size: int | None = None,
) -> Step:
  """A step of a stage.

  Args:
    stage: one of STAGES.
    dtype: `config.compute_dtype`.
    preset: of configs/base.py.
    agent: `config.agent`.
    batch_size: of examples; None is the config's.

  Raises:
    ValueError: for the pre-training of a system that has none.
  """
  files = {
    'pretrain': pretrain_config,
    'dmcr': finetune_dmcr,
    'metaworld': finetune_metaworld,
  }
  config = files[stage].get_config(preset)
  config.compute_dtype, config.agent = dtype, agent
  if batch_size is not None:
    config.data.batch_size = config.replay.batch_size = batch_size
  if stage == 'pretrain':
    tx, system = optimizers.pretraining(config), build.system(config, 1, None)
    if not system.pretrained:
      raise ValueError(f'config.agent={agent!r} has no pre-training.')
    return Step(
      config,
      pretrain.pretrain_step,
      dict(tx=tx),
      1,
      jax.eval_shape(lambda: pretrain.init_state(config, system, tx, 1.0)),
      batches.example_video_batch(
        config, (config.data.batch_size, config.data.clip_length)
      ),
      config.pretrain.num_steps,
    )
  action_size = 6 if stage == 'dmcr' else 4  # of walker; of the robot arm
  system, c = build.system(config, action_size, None), config.finetune
  function, settings = finetune.update_step(config)
  return Step(
    config,
    function,
    settings,
    action_size,
    jax.eval_shape(
      lambda: finetune_step.init_state(config, system, action_size)
    ),
    batches.example_replay_batch(
      config,
      action_size,
      (config.replay.batch_size, config.replay.segment_length),
    ),
    (c.num_steps - c.prefill) // c.train_every + c.initial_updates,
  )
