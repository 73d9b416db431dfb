r"""Converts checkpoints of the official PreLAR code to our parameter trees.

  python -m drp_jax.convert.prelar --checkpoint=variables.pt --out=runs/prelar

The new folder is like the workdir of a pre-training, for `config.init_from` of
`config.agent='prelar'`. The plain (not contextualized) world model with
normally distributed latent actions is supported, which PreLAR's README trains.
The conversion is strict: every array of the file is used, and none is missing.
The original is at github.com/zhanglixuan0720/PreLAR;
tests/parity/compare_prelar.py runs it beside ours.
"""

import dataclasses
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from drp_jax import types, weights
from drp_jax.convert import checkpoints, contextwm
from drp_jax.models import (
  heads,
  image_decoder,
  image_encoder,
  rssm,
  transition_encoder,
)
from drp_jax.systems.prelar import latent_actions, networks

SOURCE = weights.Source(
  key='--checkpoint',
  files=(
    'variables.pt, or a folder with'
    ' {rssm,va_encoder,encoder,decoder}_variables.pt'
  ),
  origin='pre-training with github.com/zhanglixuan0720/PreLAR',
  license='MIT',
)

_PARTS = {**contextwm.PARTS, 'va_encoder_variables.pt': 'wm.va_encoder.'}
# Names in ContextWM, from which PreLAR's code is derived -> names here.
_RENAMED = (
  (r'^wm\.encoder\.', 'wm.encoder._cnn_net.'),
  (r'^wm\.va_encoder\.tower\.', 'wm.va_encoder.va_encoder._cnn_net.'),
  (r'^(wm\.heads\.decoder\.)(res\d)', r'\1_cnn_nn.\2'),
  (r'^(wm\.heads\.decoder\.convin)', r'\1.0'),
  (r'(rssm\.)img_in', r'\1_img_in.0'),
  (r'(rssm\.)obs_out', r'\1_obs_out.0'),
  (r'(rssm\.)obs_dist', r'\1_obs_out.obs_out_head'),
  (r'(rssm\.)img_out_0', r'\1_ensemble_out_layers.0.img_out_0'),
  (r'(rssm\.)img_dist_0', r'\1_ensemble_out_layers.0.img_out_head_0'),
)


def read(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of a checkpoint by their names in `variables.pt`.

  Args:
    path: `variables.pt`, or the folder with the four files of its parts.

  Raises:
    ValueError: if there is no such file, or it holds something else.
  """
  return checkpoints.read(path, SOURCE, _PARTS)


def convert(arrays: contextwm.Arrays) -> dict[str, Any]:
  """Converts the arrays that the official pre-training saves.

  Args:
    arrays: from `read`.

  Returns:
    {'params', 'batch_stats'} of `image_encoder`, `image_decoder`,
    `latent_dynamics` and `inverse_dynamics`. Fine-tuning does not load the
    last.

  Raises:
    ValueError: names the arrays that are missing, unknown or of another shape.
  """
  sizes = _sizes(arrays)
  rules = pretraining_rules(sizes)
  found = contextwm.apply_rules(rules, arrays, SOURCE)
  expected = _expected(found['params'], sizes)
  checkpoints.check_shapes(found, expected, SOURCE)
  return found


def pretraining_rules(sizes: contextwm.Sizes) -> list[contextwm.Rule]:
  """Returns the rules for `variables.pt` of pre-training."""
  tower = contextwm.tower_rules(
    'wm.va_encoder.tower.', 'inverse_dynamics', sizes
  )
  own = 'params', 'inverse_dynamics', 'encoder'
  return [
    *world_model_rules(sizes),
    *(
      dataclasses.replace(_renamed(rule), path=_below_tower(rule.path))
      for rule in tower
    ),
    contextwm.Rule(
      'wm.va_encoder.action_in.0.weight',
      (*own, 'dense', 'kernel'),
      lambda x: contextwm.channels_last(x.T, contextwm.SIDE),
    ),
    contextwm.Rule(
      'wm.va_encoder.action_in.0.bias', (*own, 'dense', 'bias'), np.array
    ),
    *contextwm.dense_rules(
      'wm.va_encoder.action_in.2', ('inverse_dynamics', 'encoder', 'out')
    ),
  ]


def world_model_rules(sizes: contextwm.Sizes) -> list[contextwm.Rule]:
  """Returns the rules for encoder, decoder and dynamics, in both stages."""
  return [_renamed(rule) for rule in contextwm.world_model_rules(sizes)]


def _renamed(rule: contextwm.Rule) -> contextwm.Rule:
  source = rule.source
  for pattern, name in _RENAMED:
    source = re.sub(pattern, name, source)
  return dataclasses.replace(rule, source=source)


def _below_tower(path: tuple[str, ...]) -> tuple[str, ...]:
  return (*path[:2], 'encoder', 'tower', *path[2:]) if path else path


def _sizes(arrays: contextwm.Arrays) -> contextwm.Sizes:
  stack = re.compile(r'wm\.encoder\._cnn_net\.res0\.stack\.(\d+)\.')
  layers = [1 + int(match[1]) for match in map(stack.match, arrays) if match]
  nothing = np.zeros(0)  # then `apply_rules` names what is missing
  return contextwm.Sizes(
    num_layers=max(layers, default=1),
    deter=arrays.get('wm.rssm._cell._norm.weight', nothing).shape[0] // 3,
    stoch=arrays.get('wm.rssm._obs_out.obs_out_head.bias', nothing).shape[0],
    has_context=False,
  )


def _expected(params: dict[str, Any], sizes: contextwm.Sizes) -> dict[str, Any]:
  """Returns the variables of our modules, of which only the widths are read."""
  depth = params['image_encoder']['conv_in']['kernel'].shape[-1]
  Z, hidden = params['latent_dynamics']['action_in']['kernel'].shape
  own = params['inverse_dynamics']['encoder']
  S = contextwm.IMAGE_SIZE

  def tower(depth):
    return image_encoder.ImageEncoder(depth, sizes.num_layers)

  head = heads.ScalarHead(1, 1)  # not part of pre-training, like the policy
  model = networks.LatentActionModel(
    image_encoder=tower(depth),
    image_decoder=image_decoder.ImageDecoder(
      depth, sizes.num_layers, num_heads=1, image_size=S, mask_ratio=0.0
    ),
    inverse_dynamics=latent_actions.InverseDynamics(
      transition_encoder.TransitionEncoder(
        tower(own['tower']['conv_in']['kernel'].shape[-1]),
        own['dense']['bias'].size,
        2 * Z,
      )
    ),
    latent_dynamics=rssm.RSSM(
      deter_size=sizes.deter,
      hidden=hidden,
      groups=1,
      classes=sizes.stoch,
      action_size=Z,
      embed_size=4 * depth * contextwm.SIDE**2,
    ),
    action_encoder=latent_actions.ActionEncoder(1, Z),
    reward=head,
    aux_reward=head,
    continuation=None,
    actor=heads.PolicyHead(1, 1, 1),
    critic=head,
    dtype=jnp.float32,
  )
  batch = types.VideoBatch(
    image=jnp.zeros((1, 2, S, S, 3), jnp.uint8),
    motion=None,
    is_first=jnp.ones((1, 2), bool),
  )
  return jax.eval_shape(
    lambda key: model.init(key, batch, method=model.init_pretrain),
    jax.random.key(0),
  )


def main() -> None:
  checkpoints.main(__doc__, SOURCE, lambda path: convert(read(path)))


if __name__ == '__main__':
  main()
