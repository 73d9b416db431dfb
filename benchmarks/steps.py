"""The training steps that benchmarks run, compile or trace."""

import dataclasses
from typing import Any

import jax
import ml_collections
import numpy as np

from configs import finetune_dmcr, finetune_metaworld
from configs import pretrain as pretrain_config
from drp_jax import types
from drp_jax.data import schema
from drp_jax.systems import learner, pretraining, registry

STAGES = ('pretrain', 'dmcr', 'metaworld')


@dataclasses.dataclass(frozen=True)
class Step:
  """A step to compile or trace.

  Attributes:
    config: configs/base.py.
    stage: one of STAGES.
    action_size: A.
    state: shapes of the state.
    example: a global batch.
    steps: number of such steps in a run.
  """

  config: ml_collections.ConfigDict
  stage: str
  action_size: int
  state: Any
  example: Any
  steps: int

  @property
  def batch_size(self) -> int:
    """Clips or segments in the global batch."""
    return self.example.image.shape[0]

  def learner(
    self, axis_name: str | None = None
  ) -> pretraining.Pretraining | learner.Learner:
    """Builds what has the step's `update`, from the config as it is now.

    Args:
      axis_name: device axis, or None on a single device.
    """
    return _learner(self.config, self.stage, self.action_size, axis_name)

  def init(self) -> Any:
    """Makes the random state that a run from scratch begins with."""
    return _init(self.learner())


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
  # Of walker; of the robot arm.
  action_size = {'pretrain': 1, 'dmcr': 6, 'metaworld': 4}[stage]
  own, c = _learner(config, stage, action_size, None), config.finetune
  if stage == 'pretrain':
    shape = config.data.batch_size, config.data.clip_length
    count = config.pretrain.num_steps
  else:
    shape = config.replay.batch_size, config.replay.segment_length
    count = (c.num_steps - c.prefill) // c.train_every + c.initial_updates
  return Step(
    config,
    stage,
    action_size,
    state=jax.eval_shape(lambda: _init(own)),
    example=own.example(shape),
    steps=count,
  )


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
  if isinstance(batch, types.ReplayBatch):
    action, reward = batch.action, batch.reward
    changes['action'] = rng.uniform(-1, 1, action.shape).astype(action.dtype)
    changes['reward'] = rng.standard_normal(reward.shape, np.float32)
  return batch.replace(**changes)


def _learner(config, stage, action_size, axis_name):
  built = registry.build(config, action_size, axis_name)
  if stage != 'pretrain':
    return built.finetuning
  if built.pretraining is None:
    raise ValueError(f'config.agent={config.agent!r} has no pre-training.')
  return built.pretraining


def _init(own):
  if isinstance(own, pretraining.Pretraining):
    return own.init(flow_scale=1.0)
  return own.init()
