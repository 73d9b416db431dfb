"""Fine-tunes on Meta-World; see configs/finetune_metaworld.py."""

from experiments import finetune_work

if __name__ == '__main__':
  finetune_work.run('configs/finetune_metaworld.py')
