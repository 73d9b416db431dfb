r"""Does pre-training help? On two cores: DRP, DRP w/o pre, IPV, Global Flow.

  python -m experiments.run_preprocess --config=configs/preprocess.py:embedded \
      --config.embedded.tasks="('walker_walk','hopper_hop','finger_spin')" \
      --config.path=runs/embedded_videos --config.data.shards_dir=runs/embedded
  python -m experiments.study --config=configs/studies/nano.py \
      --config.shards_dir=runs/embedded --workdir=runs/studies

The videos are real ones of a package and show bodies other than the cheetah.
Settings are those of the nano run that was seen to learn (docs/learning.md),
the same for all four systems; what is pre-trained does not learn more slowly
than the rest here, so that DRP w/o pre, which has to learn it all, is not held
back.
In DMC Remastered neither DRP nor DRP w/o pre learned anything in as many
steps, so that the study is of plain DMC.
A run takes about half an hour of one core.
"""

import ml_collections

from configs.studies import base


def get_config() -> ml_collections.ConfigDict:
  """Returns the locked config of the study."""
  config = base.get_config()
  config.name = 'nano'
  config.title = 'Four systems at nano size'
  config.systems = ('drp', 'without_pretraining', 'ipv', 'global_flow')
  config.tasks = ('dmc/cheetah_run',)
  config.seeds = (0, 1, 2, 3)
  config.presets = ('nano',)
  config.pretrain = (
    'pretrain.num_steps=1500',  # gradient steps
    'optim.lr=0.001',
    'loss.kl_z=0.1',
  )
  config.finetune = (
    'env.action_repeat=4',
    'env.episode_length=250',  # agent steps
    'loss.free_nats=0.0',
    'loss.kl_z=0.1',
    'loss.kl_s=0.1',
    'optim.slow_lr_scale=1.0',
    'optim.lr=0.001',
    'optim.actor_lr=0.0001',
    'optim.critic_lr=0.0005',
    'behavior.entropy_scale=0.01',
    'behavior.discount=0.98',
    'behavior.slow_critic_every=25',
    'intrinsic.scale=0.01',
    'replay.batch_size=4',
    'finetune.train_every=2',  # agent steps
    'finetune.prefill=1000',  # agent steps
    'finetune.num_steps=7000',  # agent steps
    'finetune.eval_every=1000',  # agent steps
    'finetune.eval_episodes=5',
  )
  return config
