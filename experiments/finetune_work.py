"""What the commands that fine-tune share: environment, extractor and flags.

Processes that only run an environment import this file as well, so it imports
JAX and what extracts motion where they are needed.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import ml_collections
from absl import flags
from ml_collections import config_flags

from configs import base
from drp_jax.envs import driver, gl, make
from experiments import launch

OpenEnv = Callable[[ml_collections.ConfigDict], gymnasium.Env]


def make_env(
  config: ml_collections.ConfigDict, draw: bool = True
) -> gymnasium.Env:
  """Opens the environment of `open_suite` as agents meet it."""
  return limited(config, functools.partial(open_suite, draw=draw))


def limited(
  config: ml_collections.ConfigDict, open_env: OpenEnv
) -> gymnasium.Env:
  """Opens an environment whose episodes end after `config.env.episode_length`.

  Then they are truncated, which is not terminal.
  """
  return gymnasium.wrappers.TimeLimit(
    open_env(config), config.env.episode_length
  )


def open_suite(
  config: ml_collections.ConfigDict, draw: bool = True
) -> gymnasium.Env:
  """Opens the environment that `config.env` names; see `make.make_env`."""
  names = [field.name for field in dataclasses.fields(make.Settings)]
  settings = make.Settings(**{name: config.env[name] for name in names})
  return make.make_env(settings, config.task, draw)


def make_envs(
  config: ml_collections.ConfigDict, open_env: OpenEnv = open_suite
) -> driver.Driver:
  """Opens `config.env.num_envs` environments in processes of their own.

  Args:
    config: configs/base.py.
    open_env: opens an environment by the config, in those processes; `limited`
      sees to the length of its episodes.
  """
  from drp_jax.train import build

  if open_env is open_suite:
    gl.select_backend()  # once, not in every process
  names = config.extract.flow, config.extract.mask, config.extract.tracker
  return driver.Driver(
    functools.partial(limited, config, open_env),
    config.env.num_envs,
    scenes='sim' in names and build.keypoints(config) is not None,
    max_seconds=config.env.max_seconds,
  )


def make_extractor(config: ml_collections.ConfigDict, seed: int) -> Any:
  """Makes a streaming extractor with the back-ends of `config.extract`.

  Args:
    config: configs/base.py.
    seed: of the choice of points.

  Returns:
    A `drp_jax.preprocess.stream.StreamingExtractor`.
  """
  from drp_jax.data import schema
  from drp_jax.preprocess import backends, stream

  return stream.StreamingExtractor(
    backends.make_backends(backends.Settings(**config.extract.to_dict())),
    config.dae.num_keypoints,
    schema.WINDOW,
    seed,
  )


def finetune(
  config: ml_collections.ConfigDict,
  workdir: str,
  open_env: OpenEnv = open_suite,
) -> Any:
  """Runs fine-tuning in `workdir`, going on where it was.

  Args:
    config: configs/base.py.
    workdir: of the run.
    open_env: opens an environment by the config.

  Returns:
    The final state; see `drp_jax.train.finetune`.
  """
  from drp_jax.train import finetune as finetune_lib

  return finetune_lib.finetune(
    config,
    workdir,
    functools.partial(make_envs, config, open_env),
    functools.partial(make_extractor, config),
    base.defaults(config),
  )


def run(
  config_file: str,
  finetune: Callable[[ml_collections.ConfigDict, str], Any] = finetune,
) -> None:
  """A whole command: its flags, then `finetune(config, workdir)`.

  Args:
    config_file: the default of --config, 'configs/finetune_dmcr.py'.
    finetune: what to do with config and workdir.
  """
  config = config_flags.DEFINE_config_file(
    'config', config_file, 'Settings and preset.'
  )
  workdir = flags.DEFINE_string(
    'workdir', None, 'Where the run writes; an unfinished run goes on there.'
  )
  flags.mark_flag_as_required('workdir')

  def main():
    finetune(config.value, workdir.value)
    print(f'Fine-tuning is complete in {workdir.value}.')

  launch.run(main)
