"""Workdirs of pre-trainings with random parameters."""

import jax
import random_inputs

from configs import pretrain
from drp_jax.runs import checkpoint, workdir
from drp_jax.systems import registry


def write(folder, agent, clip_length, motion='atomic_actions'):
  """Fills a workdir at the debug size, and returns its path."""
  config = pretrain.get_config('debug').unlock()
  config.agent, config.motion = agent, motion
  config.data.clip_length = clip_length
  pretraining = registry.build(config, 1, None).pretraining
  workdir.compare(folder, config, 'pretrain', None, {}).record(folder)
  saved = checkpoint.Checkpoints(folder)
  state = jax.eval_shape(lambda: pretraining.init(1.0))
  variables = {'params': state.params, 'collections': state.collections}
  saved.save(1, random_inputs.fill(variables), {})
  saved.close()
  return str(folder)
