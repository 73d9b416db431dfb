"""Grounded SAM, with tiny models of random weights in real files."""

import pathlib
import shutil

import numpy as np
import pytest

from drp_jax.data import schema

pytest.importorskip('torch')
transformers = pytest.importorskip('transformers')

from drp_jax.preprocess import grounded_sam  # noqa: E402

_WORDS = (
  '[PAD] [UNK] [CLS] [SEP] [MASK] . ? person hand arm robot gripper a the of '
  'left right red blue'
).split()


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """Folders of Grounding DINO and of SAM, as the hub has them."""
  import torch

  torch.set_num_threads(1)
  torch.manual_seed(0)
  detector = tmp_path_factory.mktemp('detector')
  segmenter = tmp_path_factory.mktemp('segmenter')
  _save_detector(detector)
  _save_segmenter(segmenter)
  return {'detector': str(detector), 'segmenter': str(segmenter)}


def _save_detector(folder):
  config = transformers.GroundingDinoConfig(
    backbone_config=transformers.SwinConfig(
      image_size=192,
      embed_dim=16,
      depths=[1, 1, 1, 1],
      num_heads=[1, 1, 2, 2],
      window_size=4,
      out_indices=[2, 3, 4],
    ),
    text_config={
      'model_type': 'bert',
      'vocab_size': len(_WORDS),
      'hidden_size': 32,
      'num_hidden_layers': 1,
      'num_attention_heads': 2,
      'intermediate_size': 32,
    },
    d_model=32,
    encoder_layers=1,
    decoder_layers=2,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=32,
    decoder_ffn_dim=32,
    num_queries=9,
    max_text_len=32,
    fusion_dropout=0.0,
  )
  transformers.GroundingDinoForObjectDetection(config).save_pretrained(folder)
  transformers.GroundingDinoImageProcessorPil(
    size={'shortest_edge': 192, 'longest_edge': 192}
  ).save_pretrained(folder)
  (folder / 'vocab.txt').write_text('\n'.join(_WORDS), encoding='utf-8')
  transformers.BertTokenizer(str(folder / 'vocab.txt')).save_pretrained(folder)


def _save_segmenter(folder):
  config = transformers.SamConfig(
    vision_config=transformers.SamVisionConfig(
      hidden_size=32,
      output_channels=16,
      num_hidden_layers=1,
      num_attention_heads=2,
      image_size=64,
      patch_size=8,
      window_size=4,
      global_attn_indexes=[0],
      mlp_dim=32,
      num_pos_feats=8,
    ).to_dict(),
    prompt_encoder_config=transformers.SamPromptEncoderConfig(
      hidden_size=16, image_size=64, patch_size=8
    ).to_dict(),
    mask_decoder_config=transformers.SamMaskDecoderConfig(
      hidden_size=16,
      mlp_dim=32,
      num_hidden_layers=1,
      num_attention_heads=2,
      iou_head_hidden_dim=16,
    ).to_dict(),
  )
  transformers.SamModel(config).save_pretrained(folder)
  transformers.SamImageProcessorPil(
    size={'longest_edge': 64},
    pad_size={'height': 64, 'width': 64},
    mask_size={'longest_edge': 16},
  ).save_pretrained(folder)


def _right_half_moves(start, end):
  del end
  flow = np.zeros((*start.image.shape[:3], 2), np.float32)
  flow[:, :, 60:] = [3, 0]
  return flow


def _make(folders, **changes):
  settings = dict(
    prompt='person. hand.', threshold=0.0, device='cpu', flow=_right_half_moves
  )
  return grounded_sam.make_mask(**{**folders, **settings, **changes})


def test_the_mask_is_the_union_over_all_boxes(folders, square_clip):
  """From the files, through both models, at the image's size."""
  frame = square_clip.frames[0]
  find = grounded_sam._detector(
    pathlib.Path(folders['detector']), 'person. hand.', 0.0, 'cpu'
  )
  cut_out = grounded_sam._segmenter(pathlib.Path(folders['segmenter']), 'cpu')
  boxes = find(frame)
  assert boxes.shape == (9, 4)  # all queries, as nothing is below threshold 0
  each = [cut_out(frame, boxes[i : i + 1]) for i in range(9)]
  expected = np.any(each, axis=0)
  assert 0 < each[0].mean() < expected.mean()
  mask = _make(folders)(square_clip.footage[:2])
  assert mask.shape == (64, 64) and mask.dtype == bool
  np.testing.assert_array_equal(mask, expected)


def test_only_the_first_frame_is_looked_at(folders, square_clip):
  mask = _make(folders)
  footage = square_clip.footage
  first = mask(footage[[3, 4]])
  np.testing.assert_array_equal(mask(footage[[3, 20, 1]]), first)
  assert not np.array_equal(mask(footage[[20, 3]]), first)


def test_nothing_found_gives_what_moves_fastest(folders, square_clip):
  mask = _make(folders, threshold=1.0)(square_clip.footage[:2])
  np.testing.assert_array_equal(np.nonzero(mask.all(0))[0], range(60, 64))
  assert mask.sum() == 4 * 64


def test_nothing_found_and_nothing_moves_gives_the_whole_frame(
  folders, square_clip
):
  rest = _make(
    folders,
    threshold=1.0,
    flow=lambda start, _: np.zeros((*start.image.shape[:3], 2), np.float32),
  )
  assert rest(square_clip.footage[:2]).all()


def test_other_sizes(folders):
  rng = np.random.default_rng(0)
  frames = rng.integers(0, 256, (2, 48, 80, 3), np.uint8)
  assert _make(folders)(schema.Footage(frames)).shape == (48, 80)


@pytest.mark.parametrize(
  ('key', 'files'),
  [
    ('detector', '*processor_config.json'),
    ('segmenter', '*processor_config.json'),
    ('detector', '[tv]o[kc]*'),  # tokenizer.json, tokenizer_config, vocab.txt
  ],
)
def test_missing_files_are_explained(folders, tmp_path, key, files):
  shutil.copytree(folders[key], tmp_path / 'part')
  removed = list((tmp_path / 'part').glob(files))
  for path in removed:
    path.unlink()
  assert removed
  message = rf'sam\.{key}=.*processor_config\.json.*hub.*Apache-2\.0'
  for path in ('', str(tmp_path / 'part')):
    with pytest.raises(ValueError, match=message):
      _make(folders, **{key: path})


@pytest.mark.parametrize('prompt', ['', 'person', 'Person.'])
def test_prompts_have_a_form(folders, prompt):
  with pytest.raises(ValueError, match=rf"sam\.prompt='{prompt}' .* full stop"):
    _make(folders, prompt=prompt)
