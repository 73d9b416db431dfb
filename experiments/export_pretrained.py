r"""Exports a pre-training without the state that only training needs.

  python -m experiments.export_pretrained --workdir=runs/pretrain --out=mine

The new folder holds weights, config, versions and hardware. It is a third as
large, and works with --config.init_from and `drp_jax.train.pretrained.load`.
"""

from absl import flags

from drp_jax.train import pretrained
from experiments import launch


def main() -> None:
  folder = pretrained.export(_WORKDIR.value, _OUT.value)
  size = sum(path.stat().st_size for path in folder.rglob('*'))
  print(f'{folder}: {size / 1e6:.1f} MB')


if __name__ == '__main__':
  _WORKDIR = flags.DEFINE_string('workdir', None, 'Workdir of a pre-training.')
  _OUT = flags.DEFINE_string('out', None, 'New folder to write to.')
  flags.mark_flags_as_required(['workdir', 'out'])
  launch.run(main)
