"""Runs the official ContextWM code beside drp_jax, on the same numbers.

  python -m third_party.compare_contextwm --checkout=DIR

DIR is a checkout of github.com/thuml/ContextWM. It is run as it is, on the CPU,
in the environment of drp_jax with the extra `torch` and, for its augmentation
of context frames, kornia 0.6.9; contextwm_imports.py takes care of the rest.
Random weights of small networks go from theirs into
ours; images, actions and all random numbers are the same for both. Prints a
table, and exits with 1 if anything differs by more than 1e-4 of its largest
value.

With --golden=tests/golden, what was fed and what the original made of it is
written down for tests/golden_test.py.

Their configs for the paper's suites predict no discount. The cases whose names
end with `_continuation` switch that head on (`pred_discount`), with its gradient
as in their defaults of DreamerV2.
"""

import argparse
import contextlib
import importlib.metadata
import io
import os
import json
import pathlib
import subprocess
import sys
import types
from typing import Any
from unittest import mock

import ml_collections
import numpy as np
import torch

from drp_jax.convert import contextwm
from third_party import contextwm_imports
from third_party import contextwm_ours as ours

_TOLERANCE = 1e-4
B, T = 2, 6  # sequences, steps
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
_LARGEST_MOVED = 300  # numbers of an array whose moves are kept
_ABOUT = {
  'original': 'github.com/thuml/ContextWM',
  'made_by': 'python -m third_party.compare_contextwm --golden=tests/golden',
}
_FED = (
  'Random weights, images, actions, rewards and features; Gumbel noise for'
  ' samples of states (torch.multinomial), uniform numbers for actions'
  ' (Tensor.uniform_) and for kept context tokens (torch.rand), masks of'
  ' dropout (torch.nn.functional.dropout), numbers of context frames'
  ' (numpy.random.choice). The original computed losses and gradients of world'
  ' models, and steps of optimizers, in float64, all else in float32.'
)

Arrays = dict[str, np.ndarray]


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument(
    '--checkout', required=True, type=os.path.expanduser
  )
  parser.add_argument(
    '--golden',
    type=os.path.expanduser,
    help='folder for what was fed and found',
  )
  args = parser.parse_args()
  checkout = pathlib.Path(args.checkout)
  try:
    contextwm_imports.prepare(checkout)
  except ValueError as error:
    parser.error(str(error))
  torch.set_num_threads(1)

  with contextlib.redirect_stdout(io.StringIO()):  # they say a lot
    cases = {agent: compared(Original(checkout, agent)) for agent in _BLOCKS}
    cases['formulas'] = _formulas_case(checkout)
    continued = {
      agent + ours.CONTINUATION: compared_continuation(checkout, agent)
      for agent in ('ipv', 'dreamerv2')
    }
  worst = report({**cases, **continued})
  if args.golden:
    folder, about = pathlib.Path(args.golden), {**_ABOUT, 'fed': _FED}
    write(folder / 'about.json', checkout, cases, worst, about)
    path = folder / f'about{ours.CONTINUATION}.json'
    write(path, checkout, continued, worst, about)
  sys.exit(worst > _TOLERANCE)


def report(cases: dict[str, Any]) -> float:
  """Prints a table, and returns the largest difference of all."""
  worst = 0.0
  print('what                                            largest difference')
  for agent, case in cases.items():
    for row, names in _differences(agent, case):
      name, largest = max(names, key=lambda pair: pair[1])
      worst = max(worst, largest)
      print(f'{agent:10} {row:36} {largest:.1e} {name}')
  print(f'largest {worst:.1e}, allowed {_TOLERANCE:.0e}')
  return worst


def compared(original: 'Original') -> dict[str, Any]:
  """What is fed to a system, and what the original makes of it."""
  inputs = original.inputs
  rows = {**original.networks(), **original.act()}
  pretrained = {}
  if original.pretrained is not None:
    rows |= original.pretrain()
    pretrained = rows['pre-training: gradients']
  rows |= original.finetune()
  rows |= original.behavior()
  rows |= original.optimizer_steps(
    pretrained,
    rows['fine-tuning: gradients'],
    rows['actor and critic: gradients'],
  )
  return {
    'weights': original.weights,
    'slow_critic': original.slow_critic,
    'inputs': inputs,
    'rows': rows,
  }


def compared_continuation(checkout: pathlib.Path, agent: str) -> dict[str, Any]:
  """`compared`, of what a head of continuation takes part in."""
  original = Original(checkout, agent + ours.CONTINUATION)
  rows = {**original.finetune(), **original.behavior(), **original.discounts()}
  return {
    'weights': original.weights,
    'slow_critic': original.slow_critic,
    'inputs': original.inputs,
    'rows': rows,
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
  """
  contextwm_imports.prepare(checkout)
  from wmlib import agents, utils  # of the checkout

  spaces = {'image': space(64, 64, 3), 'reward': space()}
  spaces |= {f'is_{name}': space() for name in ('first', 'last', 'terminal')}
  actions = {'action': space(action_size)}

  def make(kind, file, *blocks, **changes):
    path = checkout / f'configs/{file}.yaml'
    settings = contextwm_imports.read_settings(path)
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


class Original:
  """Agents of the official code, of pre-training and of fine-tuning.

  Attributes:
    weights: of the agent of fine-tuning, without the slow critic.
    slow_critic: its arrays, under the names of the critic's.
    inputs: what is fed; losses add to it.
    pretrained: agent of pre-training with the same weights; None of DreamerV2.
  """

  def __init__(self, checkout: pathlib.Path, case: str):
    self.config = ours.small_config(case)
    agent = self.agent = self.config.agent
    self.pretrained, self.tuned = make_agents(
      checkout, self.config, ours.ACTION_SIZE
    )
    randomise(self.tuned)
    self.weights, self.slow_critic = learnt_arrays(self.tuned)
    self.inputs = make_inputs(self.config)
    if agent != 'dreamerv2':
      matrix = self.tuned.wm.intr_bonus.random_projection_matrix
      self.inputs['projection'] = matrix.numpy()
    self._begin()

  def networks(self) -> ours.Rows:
    """Forward passes in evaluation, module by module."""
    wm, x = self.tuned.wm.eval(), self._tensors()
    data, rows = self._data(), {}
    data['image'] = data['image'] / 255.0 - 0.5
    with torch.no_grad():
      decoder = wm.heads['decoder']
      if self.agent != 'ipv':
        side = 2 if self.agent == 'dreamerv2' else 4
        rows['image encoder'] = {'embedding': embedding(wm.encoder(data), side)}
        image = decoder(x['feat'])['image'].mean
        rows['image decoder'] = {'image': pixels(image)}
      else:
        with fed(choice=[self.inputs['context_index']]):
          out = wm.encoder(data)
        rows['image encoder'] = {'embedding': embedding(out['embed'], 4)}
        maps = out['shortcut']
        rows['context maps'] = {
          '8x8': to_channels_last(maps[8]),
          '16x16': to_channels_last(maps[16]),
        }
        with fed(rand=self._token_scores()):
          image = decoder(x['feat'], maps)['image'].mean
        rows['image decoder, 1/4 of the context'] = {'image': pixels(image)}
        _set_mask(decoder, 0.0)
        image = decoder(x['feat'], maps)['image'].mean
        _set_mask(decoder, 0.75)
        rows['image decoder, whole context'] = {'image': pixels(image)}
      if self.agent != 'dreamerv2':
        rows |= self._dynamics(wm.af_rssm, 'latent', 'z', x['embed'])
        rows |= self._dynamics(wm.rssm, 'action', 's', x['observed'])
    return rows

  def _dynamics(self, rssm, name, letter, observed) -> ours.Rows:
    x, data = self._tensors(), self._data()
    E = x['embed'].shape[-1]
    if letter == 'z' or self.config.adapter.concat_embed:
      maps = observed[..., :E].unflatten(-1, (4, 4, -1)).movedim(-1, -3)
      observed = torch.cat([maps.flatten(-3), observed[..., E:]], -1)
    with fed(multinomial=self._samples(letter)):
      post, prior = rssm.observe(observed, data['action'], data['is_first'])
    start = {key: value[:, 0] for key, value in post.items()}
    gumbel = x[f'gumbel_{letter}'][:, 1:].unbind(1)
    with fed(multinomial=gumbel):
      ahead = rssm.imagine(data['action'][:, 1:], start)
    return {
      f'{name} RSSM, observe': {
        'deter': to_numpy(post['deter']),
        'stoch': to_numpy(post['stoch']),
        'post logits': to_numpy(post['logit']),
        'prior logits': to_numpy(prior['logit']),
      },
      f'{name} RSSM, imagine': {
        'deter': to_numpy(ahead['deter']),
        'stoch': to_numpy(ahead['stoch']),
        'logits': to_numpy(ahead['logit']),
      },
    }

  def act(self) -> ours.Rows:
    """Some steps of acting, one environment being reset on the way."""
    data, state, actions = self._data(), None, []
    self.tuned.wm.eval()
    for t in range(T):
      obs = {key: value[:, t] for key, value in data.items()}
      with fed(multinomial=self._samples(self._states(), [t])):
        out, state = self.tuned.policy(obs, state, mode='eval')
      actions.append(out['action'])
    return {
      'acting': {
        'actions': to_numpy(torch.stack(actions, 1)),
        'last deter': to_numpy(state[-2]['deter']),
        'last stoch': to_numpy(state[-2]['stoch']),
      }
    }

  def pretrain(self) -> ours.Rows:
    """The loss of pre-training and its gradients."""
    wm = self.pretrained.wm.train()
    with double(self.pretrained), self._training('z'):
      loss, _, _, metrics = wm.loss(self._data())
      loss.backward()
    gradients = self.tuned_names(gradients_of(self.pretrained))
    statistics = {
      name: to_numpy(value)
      for name, value in self.pretrained.state_dict().items()
      if name.endswith(('running_mean', 'running_var'))
    }
    self._begin()
    return {
      'pre-training: loss terms': {
        'image': to_numpy(metrics['image_loss']),
        'kl': to_numpy(metrics['kl_loss']),
        'total': to_numpy(loss),
        'prior entropy': np.float32(metrics['prior_ent']),
        'posterior entropy': np.float32(metrics['post_ent']),
        **self.more_terms(metrics),
      },
      'pre-training: gradients': gradients,
      'batch statistics after a step': statistics,
    }

  def finetune(self) -> ours.Rows:
    """The world model's loss of fine-tuning and its gradients."""
    wm = self.tuned.wm.train()
    with double(self.tuned), self._training(self._states()):
      loss, _, outs, metrics = wm.loss(self._data())
      loss.backward()
    post = {key: to_numpy(value) for key, value in outs['post'].items()}
    gradients = gradients_of(self.tuned)
    self._begin()
    for name, key in (('deter',) * 2, ('stoch',) * 2, ('logits', 'logit')):
      flat = post[key].reshape(B * T, *post[key].shape[2:])
      self.inputs[f'start_{name}'] = flat
    names = ['image', 'kl', 'reward']
    if self.agent in ('ipv', 'prelar'):
      names.append('aux_reward')
    terms = {name: to_numpy(metrics[f'{name}_loss']) for name in names}
    if self.config.behavior.continuation:
      terms['continuation'] = to_numpy(metrics['discount_loss'])
    return {
      'fine-tuning: posterior states': {
        'deter': post['deter'],
        'stoch': post['stoch'],
        'logits': post['logit'],
      },
      'fine-tuning: loss terms': {
        'total': to_numpy(loss),
        **terms,
      },
      'fine-tuning: gradients': gradients,
    }

  def behavior(self) -> ours.Rows:
    """Losses and gradients of actor and critic on an imagined rollout."""
    learner = self.tuned._task_behavior
    rollout, target, target_metrics = self._rollout()
    # A copy: their actor loss adds the entropy to its targets in place, so that
    # their critic's hold 1e-4 times the entropy too, but at the first step.
    actor, _ = learner.actor_loss(rollout, target.clone())
    critic, critic_metrics = learner.critic_loss(rollout, target)
    actor.backward(retain_graph=True)
    critic.backward()
    gradients = {
      name: value
      for name, value in gradients_of(self.tuned).items()
      if name.startswith(('_task_behavior.actor.', '_task_behavior.critic.'))
    }
    entropy = learner.actor(rollout['feat'][:-1]).entropy()
    self._begin()
    found = {
      'loss/actor': to_numpy(actor),
      'loss/critic': to_numpy(critic),
      'behavior/entropy': to_numpy(entropy.mean()),
      'behavior/return': np.float32(target_metrics['critic_target']),
      'behavior/value': np.float32(critic_metrics['critic']),
    }
    if self.config.behavior.continuation:
      found['behavior/discount'] = to_numpy(rollout['discount'][:-1].mean())
    return {
      'actor and critic: losses': found,
      'actor and critic: gradients': gradients,
    }

  def discounts(self) -> ours.Rows:
    """Discounts, weights and returns of that rollout, which is fed."""
    with torch.no_grad():
      rollout, target, _ = self._rollout()
      value = self.tuned._task_behavior._target_critic(rollout['feat']).mode
    self.inputs['rollout_feat'] = to_numpy(rollout['feat'])
    self.inputs['rollout_reward'] = to_numpy(rollout['reward'][:-1])
    self.inputs['rollout_value'] = to_numpy(value)
    return {
      'continuation: a rollout': {
        'discounts': to_numpy(rollout['discount'][:-1]),
        'weights': to_numpy(rollout['weight'][:-1]),
        'returns': to_numpy(target),
      }
    }

  def _rollout(self):
    """An imagined rollout, its targets and what they log."""
    wm, learner = self.tuned.wm.eval(), self.tuned._task_behavior
    x = self._tensors()
    names = {'deter': 'deter', 'stoch': 'stoch', 'logits': 'logit'}
    start = {key: x[f'start_{name}'] for name, key in names.items()}
    start = {key: value.unflatten(0, (B, T)) for key, value in start.items()}
    gumbel = x['imagined_gumbel'].transpose(0, 1).flatten(1, 2).unbind(0)
    uniform = x['imagined_uniform'].transpose(0, 1).flatten(1, 2).unbind(0)
    horizon = self.config.behavior.horizon
    with fed(multinomial=gumbel, uniform=uniform):
      rollout = wm.imagine(
        learner.actor, start, x.get('is_terminal'), horizon
      )
    rollout['reward'], _ = learner.rewnorm(
      wm.heads['reward'](rollout['feat']).mode
    )
    target, target_metrics = learner.target(rollout)
    return rollout, target, target_metrics

  def optimizer_steps(self, pretrained, model, behavior) -> ours.Rows:
    """How parameters move under given gradients, group by group."""
    rows, count = {}, len(ours.GRADIENT_FACTORS)
    if pretrained:
      wm = self.pretrained.wm
      self.pretrained.init_optimizers()
      renamed = {
        name.replace('wm.af_rssm.', 'wm.rssm.'): value
        for name, value in pretrained.items()
      }
      moved = moves(self.pretrained, renamed, count, wm.model_opt.step)
      rows['optimizer of pre-training'] = self.tuned_names(moved)
    wm, learner = self.tuned.wm, self.tuned._task_behavior
    self.tuned.init_optimizers()

    def model_step(loss):
      if self.agent != 'dreamerv2':
        wm.enc_model_opt.step(loss, external_scaler=wm.model_opt.scaler)
      wm.model_opt.step(loss)
      if getattr(wm, 'enc_model_scheduler', None) is not None:
        wm.enc_model_scheduler.step()

    def behavior_step(loss):
      learner.actor_opt.step(loss)
      learner.critic_opt.step(loss)

    frozen = self.config.optim.encoder_frozen_updates
    rows['optimizers of the world model'] = moves(
      self.tuned, model, frozen + count, model_step
    )
    rows['optimizers of actor and critic'] = moves(
      self.tuned, behavior, count, behavior_step
    )
    self._begin()
    return rows

  def tuned_names(self, arrays: Arrays) -> Arrays:
    """Names of pre-training -> names of fine-tuning."""
    return {
      name.replace('wm.rssm.', 'wm.af_rssm.'): value
      for name, value in arrays.items()
    }

  def more_terms(self, metrics: dict[str, Any]) -> Arrays:
    """Of pre-training, those that not all systems have."""
    del metrics
    return {}

  def _begin(self) -> None:
    """Puts everything back to where it was made."""
    if not hasattr(self, '_start'):
      self._start = {
        name: value.clone() for name, value in self.tuned.state_dict().items()
      }
    self.tuned.load_state_dict(self._start)
    self.tuned.zero_grad(set_to_none=True)
    if hasattr(self.tuned.wm, 'intr_bonus'):
      # Making an agent runs it once, which leaves something here.
      self.tuned.wm.intr_bonus.tf_queue_step = 0
      self.tuned.wm.intr_bonus.intr_rewnorm.reset()
    if self.pretrained is not None:
      self.pretrained.zero_grad(set_to_none=True)
      self.pretrained.load_state_dict(
        {
          name: self._start[name.replace('wm.rssm.', 'wm.af_rssm.')]
          for name in self.pretrained.state_dict()
        }
      )

  def _tensors(self) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(x) for name, x in self.inputs.items()}

  def _data(self) -> dict[str, torch.Tensor]:
    """A batch as their replay hands it out."""
    x, dtype = self._tensors(), torch.get_default_dtype()
    return {
      'image': x['image'].to(dtype).movedim(-1, -3).contiguous(),
      'action': x['action'].to(dtype),
      'reward': x['reward'].to(dtype),
      'is_first': x['is_first'].to(dtype),
      'is_last': torch.zeros(B, T),
      'is_terminal': x.get('is_terminal', torch.zeros(B, T)).to(dtype),
    }

  def _states(self) -> tuple[str, ...]:
    return ('s',) if self.agent == 'dreamerv2' else ('z', 's')

  def _samples(self, letters, steps=range(T)) -> list[torch.Tensor | None]:
    """For `observe` of models one after the other: prior, posterior, ..."""
    noise = [self._tensors()[f'gumbel_{letter}'] for letter in letters]
    return [x for gumbel in noise for t in steps for x in (None, gumbel[:, t])]

  def _token_scores(self) -> list[torch.Tensor]:
    """The smallest of theirs are kept, the largest of ours."""
    x = self._tensors()
    return [-x[f'token_scores{i}'].flatten(0, 1) for i in range(2)]

  def _training(self, letters):
    """Feeds what a forward pass of training draws."""
    if self.agent != 'ipv':
      return fed(multinomial=self._samples(letters))
    x = self._tensors()
    return fed(
      multinomial=self._samples(letters),
      rand=self._token_scores(),
      dropout=[
        x[f'kept_{what}{i}']
        for i in range(2)
        for what in ('weights', 'outputs')
      ],
      choice=[self.inputs['context_index']],
    )


@contextlib.contextmanager
def double(agent: torch.nn.Module):
  """Computes in float64, as far as the original does not insist on float32.

  In float32 its gradients of norms at the end of the decoder, sums over many
  pixels, are up to 1e-4 away from what they are here.
  """
  torch.set_default_dtype(torch.float64)
  agent.double()
  yield
  agent.float()
  torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def fed(
  multinomial=(),
  rand=(),
  uniform=(),
  dropout=(),
  bernoulli=(),
  choice=(),
  normal=(),
  order=(),
):
  """Makes the random functions of torch and NumPy hand out given numbers.

  All have to be taken.

  Args:
    multinomial: [..., groups, classes] Gumbel noise of each call, or None where
      it may draw.
    rand: what `torch.rand` returns for these shapes.
    uniform: what `Tensor.uniform_` writes.
    dropout: what is kept by each call.
    bernoulli: what `torch.bernoulli` returns.
    choice: what `numpy.random.choice` returns.
    normal: noise of samples of normal distributions.
    order: what `torch.randperm` returns.
  """
  left = dict(
    multinomial=list(multinomial),
    rand=list(rand),
    uniform=list(uniform),
    dropout=list(dropout),
    bernoulli=list(bernoulli),
    choice=list(choice),
    normal=list(normal),
    order=list(order),
  )
  original_multinomial, original_rand = torch.multinomial, torch.rand

  def fed_multinomial(probs, num_samples, replacement):
    gumbel = left['multinomial'].pop(0)
    if gumbel is None:
      return original_multinomial(probs, num_samples, replacement)
    scores = probs.log() + gumbel.reshape(probs.shape)
    return scores.argmax(-1, keepdim=True)

  def fed_rand(*shape, **kwargs):
    flat = shape[0] if isinstance(shape[0], torch.Size | tuple) else shape
    if left['rand'] and left['rand'][0].shape == torch.Size(flat):
      return left['rand'].pop(0)
    return original_rand(*shape, **kwargs)

  def fed_uniform(tensor, low, high):
    del low, high
    return tensor.copy_(left['uniform'].pop(0).reshape(tensor.shape))

  def fed_dropout(x, p, training=True, inplace=False):
    del inplace
    if not training:
      return x
    return x * left['dropout'].pop(0).reshape(x.shape) / (1.0 - p)

  def fed_bernoulli(probs):
    return left['bernoulli'].pop(0).reshape(probs.shape)

  def fed_choice(*args):
    del args
    return left['choice'].pop(0)

  def fed_normal(shape, dtype, device):
    return left['normal'].pop(0).reshape(shape).to(device, dtype)

  def fed_order(count, device=None):
    del device
    order = left['order'].pop(0)
    assert order.numel() == count
    return order

  patch = mock.patch.object
  with (
    patch(torch, 'multinomial', fed_multinomial),
    patch(torch, 'rand', fed_rand),
    patch(torch.Tensor, 'uniform_', fed_uniform),
    patch(torch.nn.functional, 'dropout', fed_dropout),
    patch(torch, 'bernoulli', fed_bernoulli),
    patch(np.random, 'choice', fed_choice),
    patch(torch.distributions.normal, '_standard_normal', fed_normal),
    patch(torch, 'randperm', fed_order),
  ):
    yield
  assert not any(left.values()), {name: len(x) for name, x in left.items()}


def _formulas_case(checkout: pathlib.Path) -> dict[str, Any]:
  """KL, returns, distributions, bonus and erasing on numbers of their own."""
  from wmlib import core  # of the checkout
  from wmlib.core import dists
  from wmlib.nets.encoder import ctx_resnet

  original = Original(checkout, 'ipv')
  config, rng = original.config, np.random.default_rng(1)
  latent = config.rssm.groups, config.rssm.classes
  H, N, M = config.behavior.horizon, 6, 64

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  uniform = rng.uniform(size=(M, ours.ACTION_SIZE)).astype(np.float32)
  uniform[:2] = [[1e-6], [1.0 - 1e-6]]
  erase = rng.uniform(size=(16, 6)).astype(np.float32)
  inputs = {
    'post_logits': 2.0 * normal(3, 4, *latent),
    'prior_logits': 2.0 * normal(3, 4, *latent),
    'imagined_reward': normal(H, N),
    'imagined_value': normal(H + 1, N),
    'mean': np.tanh(1.5 * normal(M, ours.ACTION_SIZE)),
    'std': rng.uniform(0.1, 2.1, (M, ours.ACTION_SIZE)).astype(np.float32),
    'uniform': uniform,
    'taken': rng.uniform(-1, 1, uniform.shape).astype(np.float32),
    'projection': original.inputs['projection'],
    'bonus_feat': normal(3, B, 8, original.inputs['projection'].shape[0]),
    'erased_image': np.full((16, 64, 64, 1), 0.3, np.float32),
    'erase': erase,
  }
  x = {name: torch.from_numpy(value) for name, value in inputs.items()}
  wm, rows = original.tuned.wm, {'KL with balance': {}}

  for free in (0.0, 100.0):
    post, prior = (
      x[f'{name}_logits'].clone().requires_grad_() for name in ('post', 'prior')
    )
    loss, _ = wm.rssm.kl_loss(
      {'logit': post},
      {'logit': prior},
      forward=False,
      balance=0.8,
      free=free,
      free_avg=True,
    )
    loss.backward()
    rows['KL with balance'][f'free {free:g}'] = {
      'loss': to_numpy(loss),
      'by post': to_numpy(post.grad),
      'by prior': to_numpy(prior.grad),
    }

  found = core.lambda_return(
    x['imagined_reward'],
    x['imagined_value'][:-1],
    config.behavior.discount * torch.ones(H, N),
    bootstrap=x['imagined_value'][-1],
    lambda_=config.behavior.lam,
    axis=0,
  )
  rows['lambda-returns'] = {'returns': to_numpy(found)}

  def truncated(function):
    mean, std = (x[name].clone().requires_grad_() for name in ('mean', 'std'))
    normal = dists.TruncNormalDist(mean, std, -1, 1)
    value = function(dists.Independent(normal, 1))
    value.sum().backward()
    return {
      'value': to_numpy(value),
      'by mean': to_numpy(mean.grad),
      'by std': to_numpy(std.grad),
    }

  with fed(uniform=[x['uniform']]):
    rows['truncated normal: samples'] = truncated(lambda d: d.sample())
  rows['truncated normal: log-probabilities'] = truncated(
    lambda d: d.log_prob(x['taken'])
  )
  rows['truncated normal: entropies'] = truncated(lambda d: d.entropy())

  bonus = rows['intrinsic bonus, three batches'] = {}
  for i, feat in enumerate(x['bonus_feat']):
    zeros = torch.zeros(feat.shape[:2])
    data, _, _ = wm.intr_bonus.compute_bonus({'reward': zeros}, feat)
    bonus[f'batch {i}'] = to_numpy(data['reward'])

  chance, area, wide, aspect, top, left = x['erase'].unbind(1)
  hit = chance < 0.5
  image = x['erased_image'].movedim(-1, 1)
  numbers = area, aspect, aspect, 1.0 - wide, left, top
  with fed(rand=[y[hit] for y in numbers], bernoulli=[hit.float()]):
    erased = ctx_resnet.get_augmentation('erasing', image.shape)(image)
  rows['random erasing'] = {'image': to_channels_last(erased)}
  return {'inputs': inputs, 'rows': rows}


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


def make_inputs(config) -> Arrays:
  """Images, actions, and all that is drawn at random."""
  c, rng = config, np.random.default_rng(2)
  latent, lead = (c.rssm.groups, c.rssm.classes), (B, T)
  feat, E = c.rssm.deter_size + latent[0] * latent[1], 64 * c.image.depth
  H, A = c.behavior.horizon, ours.ACTION_SIZE

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  def uniform(*shape):
    return rng.uniform(size=shape).astype(np.float32)

  def gumbel(*shape):
    return rng.gumbel(size=shape).astype(np.float32)

  coarse = rng.uniform(0, 256, (*lead, 16, 16, 3))
  inputs = {
    'image': coarse.repeat(4, 2).repeat(4, 3).astype(np.uint8),
    'action': 2.0 * uniform(*lead, A) - 1.0,
    'reward': normal(*lead),
    'is_first': np.zeros(lead, bool),
    'gumbel_z': gumbel(*lead, *latent),
    'gumbel_s': gumbel(*lead, *latent),
    'imagined_uniform': uniform(B, H, T, A),
    'imagined_gumbel': gumbel(B, H, T, *latent),
    'feat': normal(*lead, feat),
  }
  inputs['is_first'][:, 0] = inputs['is_first'][1, 3] = True
  if c.behavior.continuation:
    inputs['is_terminal'] = np.zeros(lead, bool)
    inputs['is_terminal'][0, -1] = inputs['is_terminal'][1, 2] = True
  if c.agent == 'prelar':
    Z = c.prelar.latent_size
    inputs['embed'] = np.maximum(normal(*lead, E), 0.0)
    inputs['latent'] = normal(*lead, Z)
    inputs['latent_normal'] = normal(B, T - 1, Z)
    inputs['order'] = np.roll(np.arange(B), 1)
  elif c.agent != 'dreamerv2':
    embed = inputs['embed'] = np.maximum(normal(*lead, E), 0.0)
    feats = [embed] if c.adapter.concat_embed else []
    inputs['observed'] = np.concatenate([*feats, normal(*lead, feat)], -1)
  if c.agent == 'ipv':
    inputs['context_index'] = np.array([4, 1])
    for i, side in enumerate((8, 16)):
      tokens, C = side * side, 4 * c.image.depth // 2**i
      kept = int(tokens * (1.0 - c.image.context_mask_ratio))
      inputs[f'token_scores{i}'] = uniform(*lead, tokens)
      shape = *lead, c.image.num_heads, tokens, kept
      inputs[f'kept_weights{i}'] = rng.uniform(size=shape) > 0.1
      inputs[f'kept_outputs{i}'] = rng.uniform(size=(*lead, tokens, C)) > 0.1
  return inputs


def randomise(agent: torch.nn.Module) -> None:
  """Moves all that a fresh network leaves at 0 or 1, as training would."""
  rng = np.random.default_rng(3)
  for name, value in sorted(agent.state_dict().items()):
    if name.startswith('_expl_behavior.') or not value.is_floating_point():
      continue
    noise = torch.from_numpy(np.asarray(rng.normal(size=value.shape))).float()
    if name.endswith(('running_var', 'weight')) and value.ndim == 1:
      value.copy_(0.7 + 0.2 * noise.abs())
    elif name.endswith(('bias', 'running_mean')):
      value.copy_(0.1 * noise)
    elif name.endswith('pos_emb'):
      value.copy_(0.3 * noise)
    elif name.endswith('projection_matrix'):
      value.copy_(noise / value.shape[-1])
    elif name.endswith('weight'):
      gain = 4.0 if '_dist' in name else 1.0  # states that are not all alike
      value.copy_(gain * noise / np.sqrt(value[0].numel()))


def learnt_arrays(agent: torch.nn.Module) -> tuple[Arrays, Arrays]:
  """Weights that learn and statistics; and the slow critic's."""
  slow, weights = '_task_behavior._target_critic.', {}
  skipped = '_expl_behavior.', 'wm.intr_bonus.', '_task_behavior.rewnorm.'
  for name, value in agent.state_dict().items():
    if not name.startswith(skipped):
      weights[name] = to_numpy(value)
  slow_critic = {
    name.replace(slow, '_task_behavior.critic.'): weights.pop(name)
    for name in list(weights)
    if name.startswith(slow)
  }
  return weights, slow_critic


def gradients_of(agent: torch.nn.Module) -> Arrays:
  return {
    name: to_numpy(parameter.grad)
    for name, parameter in agent.named_parameters()
    if parameter.grad is not None
  }


def moves(agent, gradients, updates, step) -> Arrays:
  """Parameters after some updates less those before."""
  parameters = dict(agent.double().named_parameters())  # moves are small
  start = {name: parameters[name].detach().clone() for name in gradients}
  for i in range(updates):
    factor = ours.GRADIENT_FACTORS[i % len(ours.GRADIENT_FACTORS)]
    for name, gradient in gradients.items():
      parameters[name].grad = torch.from_numpy(factor * gradient).double()
    step(torch.zeros(()))
  moves = {name: parameters[name] - start[name] for name in gradients}
  return {name: to_numpy(move.float()) for name, move in moves.items()}


def _set_mask(decoder: torch.nn.Module, ratio: float) -> None:
  for layer in decoder.modules():
    if hasattr(layer, 'cross_attention'):
      layer.mask = ratio


def space(*shape: int) -> types.SimpleNamespace:
  return types.SimpleNamespace(shape=shape)


def to_numpy(x: torch.Tensor) -> np.ndarray:
  found = np.array(x.detach().numpy())
  return found.astype(np.float32) if x.is_floating_point() else found


def to_channels_last(x: torch.Tensor) -> np.ndarray:
  return to_numpy(x.movedim(-3, -1))


def pixels(x: torch.Tensor) -> np.ndarray:
  return to_channels_last(x)[ours.PIXELS]


def embedding(x: torch.Tensor, side: int) -> np.ndarray:
  """Their embedding in the order of ours."""
  flat = np.moveaxis(to_numpy(x), -1, 0)
  return np.moveaxis(contextwm.channels_last(flat, side), 0, -1)


def _differences(agent, case):
  """Yields rows of the table: name, [(array, difference)]."""
  found = ours.rows(agent, case)
  assert found.keys() == case['rows'].keys(), found.keys() ^ case['rows'].keys()
  for row, expected in case['rows'].items():
    expected = ours.as_ours(agent, expected)
    yield row, list(ours.differences(found[row], expected))


def write(path, checkout, cases, worst, about) -> None:
  """Writes golden arrays, and where they are from.

  Args:
    path: of the JSON file; arrays lie beside it.
    checkout: of the original.
    cases: by system.
    worst: largest difference of all.
    about: what the original is, and how the arrays were made.
  """
  folder = path.parent
  folder.mkdir(parents=True, exist_ok=True)
  for agent, case in cases.items():
    for row, arrays in case['rows'].items():
      if row.startswith('optimizer'):  # large ones move as small ones do
        case['rows'][row] = {
          name: x for name, x in arrays.items() if x.size <= _LARGEST_MOVED
        }
    np.savez_compressed(folder / f'{agent}.npz', **ours.pack(case))
  commit = subprocess.run(
    ['git', 'rev-parse', 'HEAD'],
    cwd=checkout,
    capture_output=True,
    text=True,
    check=True,
  ).stdout.strip()
  about = {
    **about,
    'commit': commit,
    'torch': torch.__version__,
    'jax': importlib.metadata.version('jax'),
    'largest_difference': float(f'{worst:.1e}'),
  }
  path.write_text(json.dumps(about, indent=2) + '\n')


if __name__ == '__main__':
  main()
