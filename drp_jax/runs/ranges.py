"""The smallest and the largest possible value of every number of every config.

A setting that is a number needs a row: its key, the smallest and the largest
value, both of them possible. A tuple of numbers has one row for all of them.
Rows of what one system alone reads are in its own files (`systems/`), all
others here. `limits.py` checks the rows; `tests/runs/limits_test.py` fails for
a number of a config without a row, and for a row without a number.

An upper end is a size far beyond what has ever been trained, so that a typing
error is a message and not a machine without memory. Counts that cost time
alone have none.
"""

import math

from drp_jax.data import schema

INF = math.inf
CONTEXT_STEPS = 5  # frames seen before open-loop prediction       [E9]

_SEED = (0, 2**31 - 2)  # JAX cuts seeds to 32 bits; a run takes the next, too
COUNT = (1, INF)
WIDTH = (1, 2**13)  # the paper's widest layer has 1024
BLOCKS = (1, 256)
_BATCH = (1, 2**13)  # examples of 25 frames at 28 KB
CHANCE = (0, 1)
RATE = (0, 1)
WEIGHT = (0, 1e9)
POSITIVE = (1e-20, 1e30)  # what float32 can divide by
_FRAMES = (2, 10**5)  # of a video: 1.2 GB
_PROCESSES = (1, 1024)
# What evaluation predicts after its context, up to one tracking window.
_CLIP_LENGTH = (CONTEXT_STEPS + 1, schema.WINDOW + 1)

# configs/extract.py, as part of others.
_EXTRACT = {
  'extract.torch_threads': (1, 1024),
  'extract.sea_raft.frame_side': (128, 4096),  # pixels
  'extract.sea_raft.batch_size': (1, 1024),
  'extract.grounded_sam.threshold': CHANCE,
  'extract.onnx.side': (1, 8192),  # pixels
  'extract.onnx.mean': (-1e9, 1e9),
  'extract.onnx.scale': POSITIVE,
  'extract.onnx.threshold': CHANCE,
  'extract.tapir.batch_size': (1, 1024),
}

# configs/base.py and every run file made of it.
BASE = {
  'seed': _SEED,
  'image.depth': (2, 1024),  # the last stage has half of it
  'image.num_layers': (1, 64),
  'image.num_heads': WIDTH,
  # At least one of the 8 x 8 tokens of a context frame is kept.
  'image.context_mask_ratio': (0, 1 - 1 / 64),
  'rssm.deter_size': WIDTH,
  'rssm.hidden': WIDTH,
  'rssm.groups': (1, 512),
  'rssm.classes': (2, 512),
  'adapter.width': WIDTH,
  'adapter.num_blocks': BLOCKS,
  'heads.width': WIDTH,
  'heads.depth': (1, 64),
  'loss.mae': WEIGHT,
  'loss.dyn': WEIGHT,
  'loss.image': WEIGHT,
  'loss.kl_z': WEIGHT,
  'loss.kl_s': WEIGHT,
  'loss.reward': WEIGHT,
  'loss.aux_reward': WEIGHT,
  'loss.latent_action': WEIGHT,
  'loss.consistency': WEIGHT,
  'loss.continuation': WEIGHT,
  'loss.kl_balance': CHANCE,
  'loss.free_nats': WEIGHT,
  'optim.lr': RATE,
  'optim.slow_lr_scale': RATE,
  'optim.encoder_frozen_updates': (0, INF),
  'optim.actor_lr': RATE,
  'optim.critic_lr': RATE,
  'optim.eps': (1e-20, 1),
  'optim.grad_clip': POSITIVE,
  'optim.weight_decay': (0, 1),
  'optim.max_bad_steps': COUNT,
  'behavior.horizon': (1, 1024),  # steps imagined from every state
  'behavior.discount': CHANCE,
  'behavior.lam': CHANCE,
  'behavior.entropy_scale': WEIGHT,
  'behavior.slow_critic_every': COUNT,
  'intrinsic.scale': WEIGHT,
  'intrinsic.window': COUNT,  # see limits.py
  'intrinsic.queue_size': (1, 2**20),
  'intrinsic.projection': WIDTH,
  'intrinsic.neighbours': COUNT,  # see limits.py
  'intrinsic.momentum': RATE,
  'data.batch_size': _BATCH,
  'data.clip_length': _CLIP_LENGTH,
  'pretrain.num_steps': COUNT,
  'pretrain.log_every': COUNT,
  'pretrain.eval_every': COUNT,
  'pretrain.eval_batches': (1, 1024),  # all of them in memory
  'pretrain.checkpoint_every': COUNT,
  'env.num_envs': _PROCESSES,
  'env.action_repeat': (1, 1000),  # control steps, DMC's longest episode
  'env.episode_length': (1, 10**5),  # steps in memory at 28 KB
  'env.max_seconds': (1e-3, 10**6),  # seconds
  'env.shadow_size': (1, 2**14),  # texels, the side that OpenGL has
  'env.texture_size': (1, 2**13),  # texels, 200 MB a texture
  'replay.capacity': COUNT,
  'replay.batch_size': _BATCH,
  'replay.segment_length': COUNT,  # see limits.py
  'finetune.flow_scale': (1e-20, 1e9),  # px/frame
  'finetune.num_steps': COUNT,
  'finetune.prefill': (0, INF),
  'finetune.initial_updates': (0, INF),
  'finetune.train_every': COUNT,
  'finetune.log_every': COUNT,
  'finetune.eval_every': COUNT,
  'finetune.eval_episodes': COUNT,
  'finetune.checkpoint_every': COUNT,
  **_EXTRACT,
}

# configs/preprocess.py.
PREPROCESS = {
  'seed': _SEED,
  'data.clip_length': _CLIP_LENGTH,  # otherwise no pre-training takes the clips
  'data.clip_stride': COUNT,
  'data.validation_fraction': (0, 0.99),
  'data.fps': (0, 1000),
  'data.max_frames': _FRAMES,
  'data.max_seconds': (1, 86_400),
  'data.num_shards': (1, 10**5),
  'data.num_workers': _PROCESSES,
  'embedded.clips_per_task': (1, 10**6),
  'embedded.clips_per_arm': (1, 10**6),
  'embedded.clips_per_push': (0, 10**6),
  'embedded.frames': _FRAMES,
  'sim.clips_per_task': (1, 10**6),
  'sim.frames': _FRAMES,
  'pushes.clips_per_class': (1, 10**6),
  **_EXTRACT,
}

# configs/studies/base.py. What its runs set is checked as configs/base.py.
STUDY = {'seeds': _SEED}

# configs/demo.py, beside the settings of its stages.
DEMO = {'random_episodes': COUNT}
