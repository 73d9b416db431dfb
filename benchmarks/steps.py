"""The training steps that benchmarks run, compile or trace."""

import dataclasses
from typing import Any

import jax
import ml_collections
import numpy as np

from configs import finetune_dmcr, finetune_metaworld
from configs import pretrain as pretrain_config
from drp_jax.agents import system as system_lib
from drp_jax.data import schema
from drp_jax.train import (
  batches,
  build,
  finetune_step,
  optimizers,
  pretrain_step,
)

STAGES = ('pretrain', 'dmcr', 'metaworld')


@dataclasses.dataclass(frozen=True)
class Step:
  """A step to compile or trace.

  Attributes:
    config: configs/base.py.
    function: `step(state, batch, key, axis_name)` of `drp_jax.train`.
    static: its other keyword arguments, except the system.
    action_size: A.
    state: shapes of the state.
    example: a global batch.
    steps: number of such steps in a run.
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
    """Clips or segments in the global batch."""
    return self.example.image.shape[0]


def make_step(
  stage: str,
  dtype: str,
  preset: str,
  agent: str = 'drp',
  batch_size: int | None = None,
) -> Step:
  """Makes the step of a stage.

  Args:
    stage: one of STAGES.
    dtype: `config.compute_dtype`.
    preset: preset of configs/base.py.
    agent: `config.agent`.
    batch_size: number of examples; None is the config's.

  Raises:
    ValueError: for the pre-training of a system without one.
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
      pretrain_step.pretrain_step,
      dict(tx=tx),
      1,
      jax.eval_shape(lambda: pretrain_step.init_state(config, system, tx, 1.0)),
      batches.example_video_batch(
        config, (config.data.batch_size, config.data.clip_length)
      ),
      config.pretrain.num_steps,
    )
  action_size = 6 if stage == 'dmcr' else 4  # walker; robot arm
  system, c = build.system(config, action_size, None), config.finetune
  function, settings = finetune_step.update_step(config)
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


def init_state(step: Step, system: system_lib.System) -> Any:
  """Makes the random initial state of a run from scratch."""
  if step.function is pretrain_step.pretrain_step:
    return pretrain_step.init_state(
      step.config, system, step.static['tx'], flow_scale=1.0
    )
  return finetune_step.init_state(step.config, system, step.action_size)


def random_batch(step: Step, seed: int = 0) -> Any:
  """Fills a global batch with random values in realistic ranges.

  Zeros would not do, because kernels may run faster on them.
  """
  rng = np.random.default_rng(seed)
  batch, side = step.example, schema.IMAGE_SIZE
  changes = {'image': rng.integers(0, 256, batch.image.shape, np.uint8)}
  if batch.motion is not None:
    flow, points = batch.motion.flow, batch.motion.points
    time = np.arange(flow.shape[1])
    changes['motion'] = batch.motion.replace(
      flow=rng.standard_normal(flow.shape, np.float32).astype(flow.dtype),
      points=rng.uniform(0, side - 1, points.shape).astype(points.dtype),
      window_step=np.broadcast_to(
        np.maximum(time - 1, 0) % schema.WINDOW, flow.shape[:2]
      ).astype(np.int32),
    )
  if step.function is not pretrain_step.pretrain_step:
    action, reward = batch.action, batch.reward
    changes['action'] = rng.uniform(-1, 1, action.shape).astype(action.dtype)
    changes['reward'] = rng.standard_normal(reward.shape, np.float32)
  return batch.replace(**changes)
