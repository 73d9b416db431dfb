"""The smallest and the largest possible value of every number of every config.

A setting that is a number needs a row here: its key, the smallest and the
largest value, both of them possible. A tuple of numbers has one row for all of
them. `limits.py` checks the rows; `tests/train/limits_test.py` fails for a
number of a config without a row, and for a row without a number.

An upper end is a size far beyond what has ever been trained, so that a typing
error is a message and not a machine without memory. Counts that cost time
alone have none.
"""

import math

from drp_jax.data import schema

INF = math.inf
CONTEXT_STEPS = 5  # frames seen before open-loop prediction       [E9]

_SEED = (0, 2**31 - 2)  # JAX cuts seeds to 32 bits; a run takes the next, too
_COUNT = (1, INF)
_WIDTH = (1, 2**13)  # the paper's widest layer has 1024
_BLOCKS = (1, 256)
_BATCH = (1, 2**13)  # examples of 25 frames at 28 KB
_CHANCE = (0, 1)
_RATE = (0, 1)
_WEIGHT = (0, 1e9)
_POSITIVE = (1e-20, 1e30)  # what float32 can divide by
_FRAMES = (2, 10**5)  # of a video: 1.2 GB
_PROCESSES = (1, 1024)
# What evaluation predicts after its context, up to one tracking window.
_CLIP_LENGTH = (CONTEXT_STEPS + 1, schema.WINDOW + 1)

# configs/extract.py, as part of others.
_EXTRACT = {
  'extract.torch_threads': (1, 1024),
  'extract.sea_raft.frame_side': (128, 4096),  # pixels
  'extract.sea_raft.batch_size': (1, 1024),
  'extract.grounded_sam.threshold': _CHANCE,
  'extract.onnx.side': (1, 8192),  # pixels
  'extract.onnx.mean': (-1e9, 1e9),
  'extract.onnx.scale': _POSITIVE,
  'extract.onnx.threshold': _CHANCE,
  'extract.tapir.batch_size': (1, 1024),
}

# configs/base.py and every run file made of it.
BASE = {
  'seed': _SEED,
  'dae.num_keypoints': (1, schema.MAX_KEYPOINTS),  # what the shards hold
  'dae.patch_size': (1, schema.IMAGE_SIZE),  # the image's side
  'dae.mask_ratio': _CHANCE,
  'dae.num_blocks': _BLOCKS,
  'dae.width': (2, 2**13),
  'dae.num_heads': _WIDTH,
  'dae.mlp_ratio': (1, 64),
  'dae.decoder_width': (2, 2**13),
  'dae.decoder_blocks': _BLOCKS,
  'image.depth': (2, 1024),  # the last stage has half of it
  'image.num_layers': (1, 64),
  'image.num_heads': _WIDTH,
  # At least one of the 8 x 8 tokens of a context frame is kept.
  'image.context_mask_ratio': (0, 1 - 1 / 64),
  'rssm.deter_size': _WIDTH,
  'rssm.hidden': _WIDTH,
  'rssm.groups': (1, 512),
  'rssm.classes': (2, 512),
  'adapter.width': _WIDTH,
  'adapter.num_blocks': _BLOCKS,
  'prelar.latent_size': _WIDTH,
  'prelar.rank_temperature': (1e-6, 1e6),  # nats
  'diswm.depth': (1, 1024),
  'diswm.latent_size': _WIDTH,
  'diswm.stoch_size': _WIDTH,
  'diswm.width': _WIDTH,
  'diswm.beta': _WEIGHT,
  'diswm.reward_scale': _WEIGHT,
  'diswm.free_nats': _WEIGHT,
  'diswm.distill_scale': _WEIGHT,
  'diswm.distill_steps': _COUNT,
  'heads.width': _WIDTH,
  'heads.depth': (1, 64),
  'loss.mae': _WEIGHT,
  'loss.dyn': _WEIGHT,
  'loss.image': _WEIGHT,
  'loss.kl_z': _WEIGHT,
  'loss.kl_s': _WEIGHT,
  'loss.reward': _WEIGHT,
  'loss.aux_reward': _WEIGHT,
  'loss.latent_action': _WEIGHT,
  'loss.consistency': _WEIGHT,
  'loss.continuation': _WEIGHT,
  'loss.kl_balance': _CHANCE,
  'loss.free_nats': _WEIGHT,
  'optim.lr': _RATE,
  'optim.slow_lr_scale': _RATE,
  'optim.encoder_frozen_updates': (0, INF),
  'optim.actor_lr': _RATE,
  'optim.critic_lr': _RATE,
  'optim.eps': (1e-20, 1),
  'optim.grad_clip': _POSITIVE,
  'optim.weight_decay': (0, 1),
  'optim.max_bad_steps': _COUNT,
  'behavior.horizon': (1, 1024),  # steps imagined from every state
  'behavior.discount': _CHANCE,
  'behavior.lam': _CHANCE,
  'behavior.entropy_scale': _WEIGHT,
  'behavior.slow_critic_every': _COUNT,
  'dreamerv3.lr': _RATE,
  'dreamerv3.warmup': _COUNT,
  'dreamerv3.adaptive_clip': _POSITIVE,
  'dreamerv3.discount': _CHANCE,
  'dreamerv3.entropy_scale': _WEIGHT,
  'dreamerv3.dyn_scale': _WEIGHT,
  'dreamerv3.rep_scale': _WEIGHT,
  'dreamerv3.replay_value_scale': _WEIGHT,
  'dreamerv3.free_nats': _WEIGHT,
  'dreamerv3.slow_scale': _WEIGHT,
  'dreamerv3.slow_rate': _RATE,
  'dreamerv3.return_rate': _RATE,
  'dreamerv3.return_limit': _POSITIVE,
  'intrinsic.scale': _WEIGHT,
  'intrinsic.window': _COUNT,  # see limits.py
  'intrinsic.queue_size': (1, 2**20),
  'intrinsic.projection': _WIDTH,
  'intrinsic.neighbours': _COUNT,  # see limits.py
  'intrinsic.momentum': _RATE,
  'data.batch_size': _BATCH,
  'data.clip_length': _CLIP_LENGTH,
  'pretrain.num_steps': _COUNT,
  'pretrain.log_every': _COUNT,
  'pretrain.eval_every': _COUNT,
  'pretrain.eval_batches': (1, 1024),  # all of them in memory
  'pretrain.checkpoint_every': _COUNT,
  'env.num_envs': _PROCESSES,
  'env.action_repeat': (1, 1000),  # control steps, DMC's longest episode
  'env.episode_length': (1, 10**5),  # steps in memory at 28 KB
  'env.max_seconds': (1e-3, 10**6),  # seconds
  'env.shadow_size': (1, 2**14),  # texels, the side that OpenGL has
  'env.texture_size': (1, 2**13),  # texels, 200 MB a texture
  'replay.capacity': _COUNT,
  'replay.batch_size': _BATCH,
  'replay.segment_length': _COUNT,  # see limits.py
  'finetune.flow_scale': (1e-20, 1e9),  # px/frame
  'finetune.num_steps': _COUNT,
  'finetune.prefill': (0, INF),
  'finetune.initial_updates': (0, INF),
  'finetune.train_every': _COUNT,
  'finetune.log_every': _COUNT,
  'finetune.eval_every': _COUNT,
  'finetune.eval_episodes': _COUNT,
  'finetune.checkpoint_every': _COUNT,
  **_EXTRACT,
}

# configs/preprocess.py.
PREPROCESS = {
  'seed': _SEED,
  'data.clip_length': _CLIP_LENGTH,  # otherwise no pre-training takes the clips
  'data.clip_stride': _COUNT,
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
DEMO = {'random_episodes': _COUNT}
