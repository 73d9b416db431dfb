"""Perception back-ends of extraction, while preprocessing and while acting.

This is part of configs/base.py and configs/preprocess.py. A section is read if
its back-end is chosen. Weights are always explicit local paths. The error for a
missing file says where to get it (third_party/README.md has the list).
"""

import ml_collections

# Prompts of Grounded SAM: lower case, a full stop after each thing. [A10]
PROMPTS = {
  'people': 'person. hand. arm.',
  'robot': 'robot.',
  'robot_arm': 'robot arm. gripper.',
  'people_and_robots': 'person. hand. arm. robot.',
}


def get_config(scene: str = 'people') -> ml_collections.ConfigDict:
  """Returns the settings for the content of videos, one of `PROMPTS`."""
  if scene not in PROMPTS:
    raise ValueError(f'scene is one of {tuple(PROMPTS)}, not {scene!r}.')
  config = ml_collections.ConfigDict()
  config.flow = 'dis'  # or farneback, sea_raft, sim            [A1, A16]
  config.mask = 'motion_colour'  # or grounded_sam, onnx, sim   [A16]
  config.tracker = 'farneback'  # or cotracker3, tapir, sim     [A15]
  config.device = 'cpu'  # or cuda; for learned models          [ours]
  config.torch_threads = 1  # for torch and onnxruntime         [ours]

  config.sea_raft = sea_raft = ml_collections.ConfigDict()
  sea_raft.size = 'M'  # or S, L                                [SEA-RAFT]
  sea_raft.weights = ''  # .pth, .safetensors or .ckpt
  sea_raft.frame_side = 256  # pixels, at least 128             [A1]
  sea_raft.batch_size = 8  # pairs of frames                    [ours]

  config.grounded_sam = grounded_sam = ml_collections.ConfigDict()
  grounded_sam.detector = ''  # folder of Grounding DINO
  grounded_sam.segmenter = ''  # folder of SAM
  grounded_sam.prompt = PROMPTS[scene]  #                       [A10]
  grounded_sam.threshold = 0.3  # score of a box                [Grounded SAM]

  config.onnx = onnx = ml_collections.ConfigDict()
  onnx.model = ''  # .onnx
  onnx.side = 1024  # pixels of its input                       [ISNet]
  onnx.mean = (128.0, 128.0, 128.0)  # of R, G, B in 0..255     [ISNet]
  onnx.scale = (256.0, 256.0, 256.0)  # divides the difference  [ISNet]
  onnx.threshold = 0.5  #                                       [ours]

  config.cotracker3 = cotracker3 = ml_collections.ConfigDict()
  cotracker3.checkout = ''  # folder; CC-BY-NC: not for commercial use
  cotracker3.weights = ''  # scaled_offline.pth

  config.tapir = tapir = ml_collections.ConfigDict()
  tapir.checkout = ''  # folder
  tapir.weights = ''  # causal_bootstapir_checkpoint.pt
  tapir.batch_size = 8  # frames                                [ours]
  return config
