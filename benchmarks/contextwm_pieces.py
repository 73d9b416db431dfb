"""Builds what speed_vs_contextwm.py times, with the official code."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import steps
from third_party import contextwm_agents


def make(
  stage: str, preset: str, checkout: str, batch_size: int | None
) -> dict[str, Callable[[], Any]]:
  """Returns functions that compute a piece each."""
  step = steps.make_step(stage, 'float32', preset, 'ipv', batch_size)
  pretrained, tuned = contextwm_agents.make_agents(
    pathlib.Path(checkout), step.config, step.action_size
  )
  agent = pretrained if stage == 'pretrain' else tuned
  agent.init_optimizers()
  B, T = step.example.is_first.shape
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (B, T, 3, 64, 64))
  is_first = torch.zeros(B, T)
  is_first[:, 0] = 1.0
  data = {
    'image': torch.from_numpy(image).float(),
    'action': torch.zeros(B, T, step.action_size),
    'reward': torch.zeros(B, T),
    'is_first': is_first,
    'is_last': torch.zeros(B, T),
    'is_terminal': torch.zeros(B, T),
  }
  pieces = {'step': lambda: agent.train(data)}
  if stage == 'pretrain':
    return pieces | _their_networks(agent.wm, data)
  return pieces | _their_halves(agent, data)


def _their_networks(wm, data):
  ready = wm.preprocess(data)
  with torch.no_grad():
    found = wm.encoder(ready)
    post, _ = wm.rssm.observe(
      found['embed'], ready['is_first'][..., None], ready['is_first']
    )
    feat = wm.rssm.get_feat(post)
  embed, feat = (
    torch.randn(x.shape, requires_grad=True) for x in (found['embed'], feat)
  )
  maps = {
    side: torch.randn(x.shape, requires_grad=True)
    for side, x in found['shortcut'].items()
  }

  def gradient(loss):
    def run():
      wm.train()
      wm.zero_grad(set_to_none=True)
      loss().backward()

    return run

  def encoders():
    out = wm.encoder(ready)
    kept = [out['shortcut'][side] for side in (8, 16)]
    return sum(x.square().mean() for x in (out['embed'], *kept))

  def decoder():
    decoded = wm.heads['decoder'](feat, maps)['image']
    return -decoded.log_prob(ready['image']).mean()

  def rssm():
    post, prior = wm.rssm.observe(
      embed, ready['is_first'][..., None], ready['is_first']
    )
    kl, _ = wm.rssm.kl_loss(post, prior, **wm.config.kl)
    return kl + wm.rssm.get_feat(post).square().mean()

  return {
    'encoders': gradient(encoders),
    'decoder': gradient(decoder),
    'RSSM': gradient(rssm),
  }


def _their_halves(agent, data):
  wm = agent.wm

  def world_model():
    wm.train()
    wm.train_iter(data)

  wm.train()
  _, outputs, _ = wm.train_iter(data)
  start = {name: x.detach() for name, x in outputs['post'].items()}

  def behavior():
    wm.eval()
    agent._task_behavior.train(
      wm,
      start,
      data['is_terminal'],
      lambda seq: wm.heads['reward'](seq['feat']).mode,
    )

  return {'world model': world_model, 'behavior': behavior}
