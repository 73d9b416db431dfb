"""Pre-trains from shards of atomic actions; see configs/pretrain.py."""

from absl import flags
from ml_collections import config_flags

from configs import base
from experiments import launch

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/pretrain.py', 'Config file and preset, FILE:PRESET.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Folder of the run; an unfinished run there resumes.'
)


def main() -> None:
  from drp_jax.train import pretrain  # after `launch` may have re-executed

  config = _CONFIG.value
  pretrain.pretrain(config, _WORKDIR.value, base.defaults(config))
  print(f'Pre-training is complete in {_WORKDIR.value}.')


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  launch.run(main, several_processes=True)
