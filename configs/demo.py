r"""The whole pipeline in minutes on two CPU cores: `make demo`.

  python -m experiments.demo --workdir=runs/demo

Atomic actions are extracted from real clips of a package and from renders of
robots. A nano model is pre-trained on them and fine-tuned on a robot that it
has not seen. `:debug` does the same in the sizes of a test.
"""

import ml_collections

from configs import finetune_dmcr, preprocess, pretrain

VARIANTS = ('demo', 'debug')


def get_config(variant: str = 'demo') -> ml_collections.ConfigDict:
  """Returns the locked config of `variant`, one of `VARIANTS`.

  Empty paths become folders in the workdir (see experiments/demo.py).
  """
  if variant not in VARIANTS:
    raise ValueError(f'variant is one of {VARIANTS}, not {variant!r}.')
  preset = 'nano' if variant == 'demo' else 'debug'
  config = ml_collections.ConfigDict()
  config.preprocess = preprocess.get_config('embedded')
  config.pretrain = pretrain.get_config(preset)
  config.finetune = finetune_dmcr.get_config(preset)
  config.random_episodes = 10  # of a random policy, to compare   [ours]
  config.finetune.task = 'walker_stand'
  if variant == 'demo':
    _demo(config)
  else:
    _debug(config)
  return config.lock()


def _demo(config: ml_collections.ConfigDict) -> None:
  """Sets counts for two cores and ten minutes, and a higher learning rate."""
  embedded = config.preprocess.embedded
  embedded.clips_per_task = 2  # videos of each robot
  embedded.frames = 76  # of each video
  config.preprocess.data.validation_fraction = 0.3

  # So that a few steps show something.                         [ours]
  config.pretrain.optim.lr = 1e-3
  config.finetune.optim.lr = 1e-3

  steps = config.pretrain.pretrain
  steps.num_steps = 80  # gradient steps
  steps.log_every = 10
  steps.eval_every = 40
  steps.eval_batches = 2
  steps.checkpoint_every = 40

  # Episodes of 12 instead of 20 seconds, also for the random policy.
  config.finetune.env.episode_length = 300  # agent steps
  steps = config.finetune.finetune
  steps.num_steps = 600  # agent steps
  steps.prefill = 300  # agent steps, random: an episode
  steps.log_every = 20  # updates
  steps.initial_updates = 20
  steps.eval_every = 600  # agent steps: at the start and the end
  steps.eval_episodes = 1
  steps.checkpoint_every = 300  # agent steps


def _debug(config: ml_collections.ConfigDict) -> None:
  embedded = config.preprocess.embedded
  embedded.tasks = ('cheetah_run',)
  embedded.clips_per_task = 1
  embedded.frames = 60
  config.preprocess.data.clip_stride = 25
  config.preprocess.data.validation_fraction = 0.5
  config.preprocess.data.num_workers = 1
  config.random_episodes = 2
