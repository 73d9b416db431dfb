"""Agents of the official ContextWM code, in the sizes of our configs."""

import pathlib
import types
from typing import Any

import ml_collections
import torch

from third_party import contextwm_imports

_BLOCKS = {  # of their config files: of pre-training and of fine-tuning
  'ipv': (
    ('apv_pretraining', 'something_pretrain', 'contextualized'),
    ('apv_finetuning', 'dmc_remastered', 'contextualized'),
  ),
  'apv': (
    ('apv_pretraining', 'something_pretrain', 'plainresnet'),
    ('apv_finetuning', 'metaworld', 'plainresnet'),
  ),
  'dreamerv2': (None, ('dreamerv2', 'dmc_remastered')),
}


def make_agents(
  checkout: pathlib.Path, config: ml_collections.ConfigDict, action_size: int
) -> tuple[torch.nn.Module | None, torch.nn.Module]:
  """Agents of the official code in sizes of ours, fresh.

  Args:
    checkout: of the original.
    config: configs/base.py; `agent` is ipv, apv or dreamerv2.
    action_size: of the robot.

  Returns:
    Those of pre-training, None of DreamerV2, and of fine-tuning.

  Raises:
    ValueError: if the checkout holds no wmlib.
  """
  contextwm_imports.prepare(checkout)
  from wmlib import agents, utils  # of the checkout

  spaces = {'image': space(64, 64, 3), 'reward': space()}
  spaces |= {f'is_{name}': space() for name in ('first', 'last', 'terminal')}
  actions = {'action': space(action_size)}

  def make(kind, file, *blocks, **changes):
    settings = contextwm_imports.read_settings(
      checkout / f'configs/{file}.yaml'
    )
    own = utils.Config(settings['defaults'])
    for block in blocks:
      own = own.update(settings[block])
    return kind(own.update(changes), spaces, actions, None)

  before, after = _BLOCKS[config.agent]
  networks, heads = network_sizes(config)
  if before is None:
    return None, make(agents.DreamerV2, *after, **networks, **heads)
  tuned = make(agents.APV_Finetune, *after, **networks, **heads)
  networks = {k: v for k, v in networks.items() if not k.startswith('af_')}
  return make(agents.APV_Pretrain, *before, **networks), tuned


def network_sizes(config) -> tuple[dict[str, Any], dict[str, Any]]:
  """Their settings that make networks as small as ours, and heads."""
  c, networks = config, {}
  stacked = c.agent in ('ipv', 'apv')
  for name in ('rssm', 'af_rssm') if stacked else ('rssm',):
    networks |= {
      f'{name}.hidden': c.rssm.hidden,
      f'{name}.deter': c.rssm.deter_size,
      f'{name}.stoch': c.rssm.groups,
      f'{name}.discrete': c.rssm.classes,
    }
  for name in ('encoder', 'decoder'):
    networks[f'{name}.cnn_depth'] = c.image.depth
    networks[f'{name}.res_layers'] = c.image.num_layers
  heads = {}
  for name in ('actor', 'critic', 'reward_head'):
    heads[f'{name}.units'] = c.heads.width
    heads[f'{name}.layers'] = c.heads.depth
  heads |= {
    'imag_horizon': c.behavior.horizon,
    'k': c.intrinsic.neighbours,
    'queue_size': c.intrinsic.queue_size,
    'queue_dim': c.intrinsic.projection,
  }
  if c.agent == 'ipv':
    networks['encoder_ctx.ctx_cnn_depth'] = c.image.depth
    networks['encoder_ctx.ctx_res_layers'] = c.image.num_layers
    networks['decoder_ctx.ctx_attmask'] = c.image.context_mask_ratio
  if c.agent in ('ipv', 'prelar'):
    heads['loss_scales.aux_reward'] = 1.0  # as their README says
  if c.behavior.continuation:
    heads |= {
      'pred_discount': True,
      'grad_heads': ['decoder', 'reward', 'discount'],
      'discount_head.units': c.heads.width,
      'discount_head.layers': c.heads.depth,
    }
  return networks, heads


def space(*shape: int) -> types.SimpleNamespace:
  """Returns what their agents read of a space."""
  return types.SimpleNamespace(shape=shape)
