"""Pre-trains from shards of atomic actions; see configs/pretrain.py."""

from absl import flags
from ml_collections import config_flags

from configs import base
from experiments import launch

_CONFIG = config_flags.DEFINE_config_file(
  'config', 'configs/pretrain.py', 'Settings and preset.'
)
_WORKDIR = flags.DEFINE_string(
  'workdir', None, 'Where the run writes; an unfinished run goes on there.'
)


def main() -> None:
  from drp_jax.train import pretrain  # after `launch` may have begun anew

  config = _CONFIG.value
  pretrain.pretrain(config, _WORKDIR.value, base.defaults(config))
  print(f'Pre-training is complete in {_WORKDIR.value}.')


if __name__ == '__main__':
  flags.mark_flag_as_required('workdir')
  launch.run(main, several_processes=True)
