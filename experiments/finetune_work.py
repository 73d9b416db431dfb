"""Shared by the commands that fine-tune: environment, extractor and flags.

Processes that only run an environment import this file as well. JAX and the
extractors of motion are therefore imported inside functions.
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
  """Opens the environment of `open_suite` with its time limit."""
  return limited(config, functools.partial(open_suite, draw=draw))


def limited(
  config: ml_collections.ConfigDict, open_env: OpenEnv
) -> gymnasium.Env:
  """Opens an environment whose episodes end after `config.env.episode_length`.

  Episodes are truncated then, not terminated.
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
  """Opens `config.env.num_envs` environments, each in its own process.

  Args:
    config: configs/base.py.
    open_env: opens an environment by the config, in its process; `limited` ends
      its episodes in time.
  """
  from drp_jax.systems import registry

  if open_env is open_suite:
    gl.select_backend()  # once, not in every process
  sees_motion = registry.build(config, 1, None).system.sees_motion
  names = config.extract.flow, config.extract.mask, config.extract.tracker
  return driver.Driver(
    functools.partial(limited, config, open_env),
    config.env.num_envs,
    scenes='sim' in names and sees_motion,
    max_seconds=config.env.max_seconds,
  )


def make_extractor(config: ml_collections.ConfigDict, seed: int) -> Any:
  """Makes a streaming extractor with the back-ends of `config.extract`.

  Args:
    config: configs/base.py.
    seed: seed of the choice of points.

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
  """Runs or resumes fine-tuning in `workdir`.

  Args:
    config: configs/base.py.
    workdir: folder of the run.
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
  """Runs a command: parses its flags, then calls `finetune(config, workdir)`.

  Args:
    config_file: the default of --config, such as 'configs/finetune_dmcr.py'.
    finetune: function of config and workdir.
  """
  config = config_flags.DEFINE_config_file(
    'config', config_file, 'Config file and preset, FILE:PRESET.'
  )
  workdir = flags.DEFINE_string(
    'workdir', None, 'Folder of the run; an unfinished run there resumes.'
  )
  flags.mark_flag_as_required('workdir')

  def main():
    finetune(config.value, workdir.value)
    print(f'Fine-tuning is complete in {workdir.value}.')

  launch.run(main)
