"""Fine-tunes on the control suite; see configs/finetune_dmcr.py."""

import functools

import gymnasium
import ml_collections
from absl import flags
from ml_collections import config_flags

from drp_jax.data import schema
from drp_jax.envs import make
from drp_jax.preprocess import backends as backends_lib
from drp_jax.preprocess import stream
from drp_jax.train import finetune as finetune_lib
from experiments import launch


def make_env(
  config: ml_collections.ConfigDict, draw: bool = True
) -> gymnasium.Env:
  """Opens the environment that `config.env` names; see `make.make_env`."""
  env = make.make_env(
    config.env.suite,
    config.task,
    action_repeat=config.env.action_repeat,
    shadow_size=config.env.shadow_size,
    factors=config.env.factors,
    texture_size=config.env.texture_size,
    draw=draw,
  )
  return gymnasium.wrappers.TimeLimit(env, config.env.episode_length)


def make_extractor(
  config: ml_collections.ConfigDict, seed: int
) -> stream.StreamingExtractor:
  """Makes a streaming extractor with the back-ends of `config.extract`."""
  backends = backends_lib.make_backends(**config.extract.to_dict())
  return stream.StreamingExtractor(
    backends, config.dae.num_keypoints, schema.WINDOW, seed
  )


def finetune(config: ml_collections.ConfigDict, workdir: str) -> None:
  """Runs fine-tuning in `workdir`, going on where it was."""
  finetune_lib.finetune(
    config,
    workdir,
    functools.partial(make_env, config),
    functools.partial(make_extractor, config),
  )


def main() -> None:
  finetune(_CONFIG.value, _WORKDIR.value)
  print(f'Fine-tuning is complete in {_WORKDIR.value}.')


if __name__ == '__main__':  # flags too, since the demo imports this file
  _CONFIG = config_flags.DEFINE_config_file(
    'config', 'configs/finetune_dmcr.py', 'Settings and preset.'
  )
  _WORKDIR = flags.DEFINE_string(
    'workdir', None, 'Where the run writes; an unfinished run goes on there.'
  )
  flags.mark_flag_as_required('workdir')
  launch.run(main)
