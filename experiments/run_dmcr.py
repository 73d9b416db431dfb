"""Fine-tunes on the control suite; see configs/finetune_dmcr.py."""

from experiments import finetune_work

if __name__ == '__main__':
  finetune_work.run('configs/finetune_dmcr.py')
