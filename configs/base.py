"""All settings of the project, with their sources; locked.

Run files call `get_config(preset)` and change values. An unknown key raises
AttributeError, a value of another type TypeError. Presets change sizes, never
the algorithm; N44 says what two exceptions `nano` makes.

Sources: [Table n] of the paper; [IPV] its lineage; [PreLAR], [DisWM] and
[DreamerV3] their official code; [A1..E13] our choice if the paper leaves a
question open (docs/choices.md); [ours] anything else.
"""

import ml_collections
from ml_collections import config_dict

from configs import extract

PRESETS = ('paper', 'small', 'nano', 'debug')


def get_config(preset: str = 'paper') -> ml_collections.ConfigDict:
  """Returns the locked config of a preset.

  Args:
    preset: 'paper' (Table 5 and IPV's sizes), 'small' (one modest GPU, about a
      tenth of the parameters), 'nano' (two CPU cores) or 'debug' (tests).

  Raises:
    ValueError: for another name.
  """
  if preset not in PRESETS:
    raise ValueError(f'preset is one of {PRESETS}, not {preset!r}.')
  config = _paper()
  if preset == 'small':
    _small(config)
  elif preset == 'nano':
    _nano(config)
  elif preset == 'debug':
    _nano(config)
    _debug(config)
  config.preset = preset
  return config.lock()


def defaults(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Returns the preset of `config`; 'paper' if its name is unknown."""
  return get_config(config.preset if config.preset in PRESETS else 'paper')


def _paper() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  config.preset = 'paper'
  # Names the system: drp, ipv, apv, prelar, diswm, dreamerv2 or dreamerv3. Only
  # this key chooses networks, losses and optimizer groups. Keys of parts that a
  # system lacks are not read (drp_jax/systems/registry.py).
  config.agent = 'drp'
  config.compute_dtype = 'float32'  # or bfloat16; parameters are float32
  # Less memory and more time: layers of the image networks, blocks of the DAE
  # and steps of imagination are recomputed in the backward pass. Numbers stay
  # the same.                                                   [ours]
  config.remat = False
  config.seed = 0
  config.task = 'walker_run'  # of env.suite
  config.init_from = ''  # workdir of a pre-training; '' is from scratch
  # Parameter sets that are not loaded and stay random: ('latent_dynamics',) in
  # the row "w/o dyn." of Table 1, ('dae', 'mae_decoder') after IPV's
  # pre-training.
  config.init_without = ()  #                                   [E5, E7]
  # Arrays in the loaded parameter sets that start at zero instead: IPV's rows
  # for actions, 'latent_dynamics/action_in/kernel', do not fit a_agg.
  config.init_zero = ()  #                                      [E7]

  # The input that drives z in drp; global_flow is the ablation of Fig. 5b.
  config.motion = 'atomic_actions'  # or global_flow            [E4]

  config.dae = dae = ml_collections.ConfigDict()
  dae.num_keypoints = 16  # K                                   [Table 5]
  dae.patch_size = 16  # P, pixels                              [Table 5]
  dae.mask_ratio = 0.5  # rho                                   [Table 5]
  dae.num_blocks = 6  # L                                       [Table 5]
  dae.width = 256  # d                                          [B3]
  dae.num_heads = 1  #                                          [B2]
  dae.mlp_ratio = 4  #                                          [B3]
  dae.decoder_width = 128  #                                    [B13]
  dae.decoder_blocks = 2  #                                     [B13]
  dae.intra = True  # attention within a frame; false in Fig. 6 [E1]
  dae.inter = True  # attention over time; false in Fig. 6      [E2]
  dae.coordinate = True  # embed coordinates; false in Fig. 12  [E3]
  dae.temporal = True  # embed time; false in Fig. 12           [E3]

  config.image = image = ml_collections.ConfigDict()
  image.depth = 48  # channels of the first stage               [IPV]
  image.num_layers = 2  # residual layers per stage             [IPV]
  image.num_heads = 4  # of the decoder's cross-attention        [IPV]
  image.context_mask_ratio = 0.75  #                            [IPV]
  # Tokens attend to their own place before training; true at nano. [N44]
  image.local_start = False
  image.context_erasing = False  # true in Meta-World           [IPV]
  # Tasks that never use it, as in IPV's results on them.       [IPV]
  image.no_erasing_in = ('drawer-open',)

  config.rssm = rssm = ml_collections.ConfigDict()
  rssm.deter_size = 1024  #                                     [IPV]
  rssm.hidden = 1024  #                                         [IPV]
  rssm.groups = 32  #                                           [IPV]
  rssm.classes = 32  #                                          [IPV]

  config.adapter = adapter = ml_collections.ConfigDict()
  adapter.width = 1024  #                                       [D6]
  adapter.num_blocks = 2  #                                     [D6]
  adapter.kind = 'residual'  # or mlp, of Fig. 13               [D6]
  adapter.concat_embed = False  # true on DMCR                  [D7]

  # For prelar, which also reads rssm, image and heads, like IPV.
  config.prelar = prelar = ml_collections.ConfigDict()
  prelar.latent_size = 64  # width of latent actions            [PreLAR]
  # sign has no gradient, as in the released code (T1); logistic has one.
  prelar.rank = 'sign'  # or logistic                           [PreLAR]
  prelar.rank_temperature = 1.0  # nats, of logistic            [ours]

  # For diswm, which also reads heads.width.
  config.diswm = diswm = ml_collections.ConfigDict()
  diswm.depth = 32  # channels of the first convolution         [DisWM]
  diswm.latent_size = 20  # of the VAE's code of an image       [DisWM]
  diswm.stoch_size = 50  # normal latents of a state            [DisWM]
  diswm.width = 200  # deterministic state and hidden layers    [DisWM]
  diswm.beta = 0.015  # weight of the codes' KL                 [DisWM]
  diswm.reward_scale = 2.0  #                                   [DisWM]
  diswm.free_nats = 1.0  # in both stages; not loss.free_nats   [DisWM]
  diswm.distill_scale = 0.1  # eta at the start                 [DisWM]
  diswm.distill_steps = 50_000  # agent steps in which eta falls [DisWM]
  # intended; cross_domain, which waits for as long before eta falls; or
  # released, which keeps eta constant, as in the released code (T2).
  diswm.schedule = 'intended'  #                                [DisWM]

  config.heads = heads = ml_collections.ConfigDict()
  heads.width = 400  #                                          [IPV]
  heads.depth = 4  #                                            [IPV]

  config.loss = loss = ml_collections.ConfigDict()
  loss.mae = 1.0  # L_MAE, only in DRP                          [D2]
  loss.dyn = 1.0  # L_dyn, only in DRP                          [D2]
  loss.image = 1.0  # -ln p(o | s, c)                           [Eq. 9]
  loss.kl_z = 1.0  # beta_z                                     [Table 5]
  loss.kl_s = 1.0  # beta_s                                     [Table 5]
  loss.reward = 1.0  # beta_r of Eq. 9                          [D9]
  loss.aux_reward = 1.0  # beta_r of Table 5                    [D9]
  loss.latent_action = 1.0  # KL to its prior, in prelar        [PreLAR]
  loss.consistency = 1.0  # in prelar, see prelar.rank          [PreLAR]
  loss.continuation = 1.0  # see behavior.continuation          [DreamerV2]
  loss.kl_balance = 0.8  #                                      [IPV]
  loss.free_nats = 0.0  # for both KLs; 1 in DMCR               [IPV, D2]

  config.optim = optim = ml_collections.ConfigDict()
  optim.lr = 3e-4  #                                            [Table 5]
  optim.slow_lr_scale = 0.1  # of DRP's DAE and z in fine-tuning [D3]
  # First updates with learning rate 0 for pre-trained parts except the decoder;
  # 100 in Meta-World.
  optim.encoder_frozen_updates = 0  # updates                   [IPV, D3]
  optim.actor_lr = 8e-5  #                                      [Table 5]
  optim.critic_lr = 8e-5  #                                     [Table 5]
  optim.eps = 1e-5  #                                           [IPV]
  optim.grad_clip = 100.0  # global norm, per group             [IPV]
  optim.weight_decay = 1e-6  # coupled L2                       [IPV]
  # Consecutive updates that are not finite, after which a run ends.
  optim.max_bad_steps = 10  #                                   [ours]

  config.behavior = behavior = ml_collections.ConfigDict()
  behavior.horizon = 15  # H                                    [Table 5]
  behavior.discount = 0.99  # gamma                             [Table 5]
  behavior.lam = 0.95  # lambda                                 [Table 5]
  behavior.entropy_scale = 1e-4  # eta                          [Table 5]
  behavior.slow_critic_every = 100  # updates                   [IPV]
  # A head predicts gamma, or 0 if the environment terminates, for returns and
  # weights, and segments run across the ends of episodes. For all systems
  # except dreamerv3, whose head is always on. Off in the paper's suites, which
  # do not terminate.
  # [DreamerV2, N41]
  behavior.continuation = False

  # For dreamerv3, which also reads behavior.horizon and behavior.lam.
  config.dreamerv3 = dreamerv3 = ml_collections.ConfigDict()
  dreamerv3.size = 'size12m'  # or size1m, 25m, 50m, 100m ...   [DreamerV3]
  dreamerv3.lr = 4e-5  # of all parameters                      [DreamerV3]
  dreamerv3.warmup = 1_000  # updates until lr is reached       [DreamerV3]
  dreamerv3.adaptive_clip = 0.3  # times the parameter's norm   [DreamerV3]
  dreamerv3.discount = 1.0 - 1.0 / 333.0  # gamma               [DreamerV3]
  dreamerv3.entropy_scale = 3e-4  # eta                         [DreamerV3]
  dreamerv3.dyn_scale = 1.0  #                                  [DreamerV3]
  dreamerv3.rep_scale = 0.1  #                                  [DreamerV3]
  dreamerv3.replay_value_scale = 0.3  #                         [DreamerV3]
  dreamerv3.free_nats = 1.0  # per step                         [DreamerV3]
  dreamerv3.slow_scale = 1.0  # of values to the slow critic's  [DreamerV3]
  dreamerv3.slow_rate = 0.02  # of the slow critic, every update [DreamerV3]
  dreamerv3.return_rate = 0.01  # of the range of returns       [DreamerV3]
  dreamerv3.return_limit = 1.0  # smallest divisor of advantages [DreamerV3]

  config.intrinsic = intrinsic = ml_collections.ConfigDict()
  intrinsic.scale = 0.1  # 1.0 in Meta-World                    [Table 5]
  intrinsic.window = 5  # steps                                 [IPV]
  intrinsic.queue_size = 4096  #                                [IPV]
  intrinsic.projection = 128  #                                 [IPV]
  intrinsic.neighbours = 16  #                                  [IPV]
  intrinsic.momentum = 0.99  #                                  [IPV]

  config.data = data = ml_collections.ConfigDict()
  data.shards_dir = ''  # folder that run_preprocess wrote
  data.batch_size = 16  # clips, over all devices               [Table 5]
  data.clip_length = 25  # T, frames                            [Table 5]

  config.extract = extract.get_config('robot')

  config.pretrain = pretrain = ml_collections.ConfigDict()
  pretrain.num_steps = 600_000  # gradient steps                [Table 5]
  pretrain.log_every = 500  # steps
  pretrain.eval_every = 10_000  # steps; on held-out clips
  pretrain.eval_batches = 8
  pretrain.checkpoint_every = 5_000  # steps

  config.env = env = ml_collections.ConfigDict()
  env.num_envs = 1  # each in its own process                   [IPV]
  env.suite = 'dmcr'
  env.action_repeat = 2  #                                      [Sec. 10.2.1]
  # Names in drp_jax/envs/looks.py; None: all seven, for hopper not the camera.
  env.factors = config_dict.placeholder(tuple)  #               [D13]
  # Maximum number of agent steps, after which an episode is truncated.
  env.episode_length = 500  #                                   [D14]
  # Time limit of opening an environment, of a reset and of a step, in seconds.
  # An environment that takes longer is treated like one that died.
  env.max_seconds = 300.0  #                                    [ours]
  env.shadow_size = 2048  # pixels of MuJoCo's shadow map       [MuJoCo]
  env.texture_size = 256  # pixels of sky and floor textures    [ours]
  env.texture_folder = ''  # DMC Remastered's; '' is our set    [N5]
  env.v2_button = False  # button-press-topdown-wall as in v2   [ours]

  config.replay = replay = ml_collections.ConfigDict()
  replay.capacity = 1_000_000  # agent steps                    [Table 5]
  replay.batch_size = 16  # 50 in Meta-World                    [Table 5]
  replay.segment_length = 50  # T                               [Table 5]
  replay.prioritize_ends = False  # true in Meta-World          [IPV]
  # int8 takes 28 % less disk and loses 3 to 20 % of the RMS of robots' flow.
  replay.flow_dtype = 'float16'  #                              [ours]

  config.finetune = finetune = ml_collections.ConfigDict()
  finetune.flow_scale = 1.0  # px/frame, if nothing is loaded   [A3]
  finetune.num_steps = 511_000  # agent steps                   [D14]
  finetune.prefill = 1_000  # agent steps, random               [Table 5]
  finetune.initial_updates = 100  #                             [IPV]
  finetune.train_every = 5  # agent steps                       [Table 5, D14]
  finetune.log_every = 100  # updates
  finetune.eval_every = 10_000  # agent steps                   [IPV]
  finetune.eval_episodes = 10  #                                [Table 5]
  finetune.checkpoint_every = 10_000  # agent steps
  return config


def _small(config: ml_collections.ConfigDict) -> None:
  config.dae.width = 128
  config.dae.decoder_width = 64
  config.image.depth = 24
  config.rssm.deter_size = 256
  config.rssm.hidden = 256
  config.rssm.groups = 16
  config.rssm.classes = 16
  config.adapter.width = 256
  config.heads.width = 256
  config.dreamerv3.size = 'size1m'


def _nano(config: ml_collections.ConfigDict) -> None:
  config.dae.num_keypoints = 8
  config.dae.num_blocks = 2
  config.dae.width = 64
  config.dae.decoder_width = 32
  config.image.depth = 8
  config.image.num_layers = 1
  config.image.num_heads = 1  # heads have at least 16 channels, as in 'paper'
  # With few channels the decoder must see all tokens of the context to copy it.
  config.image.context_mask_ratio = 0.0  #                      [N44]
  config.image.local_start = True  #                            [N44]
  config.rssm.deter_size = 128
  config.rssm.hidden = 128
  config.rssm.groups = 8
  config.rssm.classes = 8
  config.adapter.width = 128
  config.heads.width = 128
  config.heads.depth = 2
  config.dreamerv3.size = 'size1m'
  config.intrinsic.queue_size = 1024
  config.intrinsic.projection = 32
  config.data.batch_size = 8
  config.replay.batch_size = 6
  config.replay.segment_length = 16
  config.env.shadow_size = 512
  config.env.texture_size = 128
  config.pretrain.num_steps = 20_000
  config.pretrain.log_every = 50
  config.pretrain.eval_every = 500
  config.pretrain.eval_batches = 2
  config.pretrain.checkpoint_every = 500
  config.finetune.num_steps = 30_000
  config.finetune.eval_every = 2_500
  config.finetune.eval_episodes = 4
  config.finetune.checkpoint_every = 2_500


def _debug(config: ml_collections.ConfigDict) -> None:
  config.dae.num_keypoints = 4
  config.dae.num_blocks = 1
  config.dae.width = 16
  config.dae.decoder_width = 16
  config.dae.decoder_blocks = 1
  config.image.depth = 4
  config.rssm.deter_size = 16
  config.rssm.hidden = 16
  config.rssm.groups = 4
  config.rssm.classes = 4
  config.adapter.width = 16
  config.adapter.num_blocks = 1
  config.prelar.latent_size = 8
  config.diswm.depth = 4
  config.diswm.stoch_size = 4
  config.diswm.width = 16
  config.heads.width = 16
  config.heads.depth = 1
  config.dreamerv3.size = 'debug'
  config.behavior.horizon = 4
  config.intrinsic.queue_size = 64
  config.intrinsic.projection = 8
  config.intrinsic.neighbours = 4
  config.data.batch_size = 4
  config.replay.batch_size = 4
  config.replay.segment_length = 8
  config.pretrain.num_steps = 4
  config.pretrain.log_every = 1
  config.pretrain.eval_every = 2
  config.pretrain.eval_batches = 1
  config.pretrain.checkpoint_every = 2
  config.env.episode_length = 20
  config.finetune.num_steps = 60
  config.finetune.prefill = 20
  config.finetune.initial_updates = 1
  config.finetune.train_every = 10
  config.finetune.log_every = 1
  config.finetune.eval_every = 30
  config.finetune.eval_episodes = 1
  config.finetune.checkpoint_every = 20
