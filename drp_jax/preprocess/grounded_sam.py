"""Grounded SAM (Ren et al., 2024): the paper's foreground mask, from a text.

Grounding DINO finds boxes around the things that a text names, and SAM segments
their content. Both are classes of transformers with processors that need no
torchvision, and are read from the user's folders.
"""

import pathlib
from typing import Any

import numpy as np
import torch
import transformers

from drp_jax import weights as weights_lib
from drp_jax.data import schema
from drp_jax.preprocess import flow as flow_lib
from drp_jax.preprocess import segment

MODEL_FILE = 'model.safetensors'
_FILES = (
  ('config.json',),
  (MODEL_FILE,),
  # Files of the hub have the first name; transformers 5 writes the second.
  ('preprocessor_config.json', 'processor_config.json'),
)
_TOKENIZER_FILES = (('tokenizer.json', 'vocab.txt'),)
DETECTOR = weights_lib.Source(
  key='config.extract.grounded_sam.detector',
  files='Grounding DINO in the form of transformers',
  origin='IDEA-Research/grounding-dino-tiny or -base of the Hugging Face hub',
  license='Apache-2.0',
)
SEGMENTER = weights_lib.Source(
  key='config.extract.grounded_sam.segmenter',
  files='SAM in the form of transformers',
  origin='facebook/sam-vit-base, -large or -huge of the Hugging Face hub',
  license='Apache-2.0',
)


def make_mask(
  detector: str,
  segmenter: str,
  prompt: str,
  threshold: float,
  device: str,
  flow: flow_lib.FlowFn,
) -> segment.MaskFn:
  """Makes the back-end, which masks what `prompt` names in the first frame.

  The mask is the union over all boxes. If almost nothing is found, the mask is
  the fastest pixels (A10).

  Args:
    detector: folder of Grounding DINO, see `DETECTOR`.
    segmenter: folder of SAM, see `SEGMENTER`.
    prompt: things to find, lower case, each followed by a full stop.
    threshold: score that a box has to exceed, in [0, 1].
    device: torch device.
    flow: a flow back-end, used if nothing is found.

  Raises:
    ValueError: for a missing or damaged file, or a prompt of another form.
  """
  if not prompt.endswith('.') or prompt != prompt.lower():
    raise ValueError(
      f'config.extract.grounded_sam.prompt={prompt!r} must be in lower case, '
      "with a full stop after each thing: 'person. hand.'."
    )
  transformers.utils.logging.disable_progress_bar()  # there is one per file
  files = _FILES + _TOKENIZER_FILES
  folder = weights_lib.find_folder(detector, files, DETECTOR)
  with weights_lib.reading(folder, DETECTOR):
    find_boxes = _detector(folder, prompt, threshold, device)
  folder = weights_lib.find_folder(segmenter, _FILES, SEGMENTER)
  with weights_lib.reading(folder, SEGMENTER):
    cut_out = _segmenter(folder, device)

  @torch.inference_mode()
  def mask(footage: schema.Footage) -> np.ndarray:
    frame = footage.image[0]
    boxes = find_boxes(frame)
    found = cut_out(frame, boxes) if len(boxes) else np.zeros(frame.shape[:2])
    return segment.found_or_fastest(found.astype(bool), footage, flow)

  return mask


def _detector(folder: pathlib.Path, prompt: str, threshold: float, device: str):
  """Makes a function from a frame [H, W, 3] to boxes [n, 4] on the CPU."""
  processor: Any = transformers.GroundingDinoProcessor(
    transformers.GroundingDinoImageProcessorPil.from_pretrained(
      folder, local_files_only=True
    ),
    transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True),
  )
  model: Any = transformers.GroundingDinoForObjectDetection.from_pretrained(
    folder, local_files_only=True, use_safetensors=True
  )
  model = model.eval().to(device)

  def boxes(frame: np.ndarray) -> torch.Tensor:
    inputs = processor(images=frame, text=prompt, return_tensors='pt')
    inputs = inputs.to(device)
    (result,) = processor.post_process_grounded_object_detection(
      model(**inputs),
      inputs['input_ids'],
      threshold=threshold,
      text_threshold=threshold,  # of labels, which are not used
      target_sizes=[frame.shape[:2]],
    )
    return result['boxes'].cpu()  # [n, 4], (left, top, right, bottom), pixels

  return boxes


def _segmenter(folder: pathlib.Path, device: str):
  """Makes a function from a frame [H, W, 3] and boxes [n, 4] to a mask."""
  processor: Any = transformers.SamProcessor(
    transformers.SamImageProcessorPil.from_pretrained(
      folder, local_files_only=True
    )
  )
  model: Any = transformers.SamModel.from_pretrained(
    folder, local_files_only=True, use_safetensors=True
  )
  model = model.eval().to(device)

  def cut_out(frame: np.ndarray, boxes: torch.Tensor) -> np.ndarray:
    inputs = processor(
      images=frame, input_boxes=[boxes.tolist()], return_tensors='pt'
    )
    outputs = model(
      pixel_values=inputs['pixel_values'].to(device),
      input_boxes=inputs['input_boxes'].float().to(device),
      multimask_output=False,
    )
    (masks,) = processor.post_process_masks(
      outputs.pred_masks.cpu(),
      inputs['original_sizes'],
      inputs['reshaped_input_sizes'],
    )  # [n, 1, H, W] bool
    return masks.any(0)[0].numpy()

  return cut_out
