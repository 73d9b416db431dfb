r"""Runs the official ContextWM code beside drp_jax, on the same numbers.

  make parity SYSTEM=contextwm CHECKOUT=DIR
  make parity SYSTEM=contextwm CHECKOUT=DIR \
      FLAGS='--seed=1 --sequences=3 --steps=11 --actions=5 --deter=23'

DIR is a checkout of github.com/thuml/ContextWM. Nothing in it is changed. It
runs on the CPU, in the environment of the tests. `make parity` installs the
packages of third_party/requirements.txt beside that environment, and
third_party/contextwm_imports.py stands in for the others. Random weights of
small networks go from their arrays into ours. Images, actions and all random
numbers are the same for both. Forward passes are compared in float32. Losses,
gradients and steps of optimizers are compared in float64. The script prints a
table, and exits with 1 if an array differs by more than 1e-4 of its largest
value.

With --golden=tests/golden, it also writes what was fed and what the original
made of it, for tests/golden_test.py.

Their configs for the paper's suites predict no discount. The cases whose names
end with `_continuation` switch that head on (`pred_discount`), its gradient as
in their defaults of DreamerV2.
"""

import contextlib
import io
import itertools
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import ml_collections
import numpy as np
import torch

from tests.parity import arguments, contextwm_formulas, tables, theirs
from tests.parity import contextwm_ours as ours
from third_party import contextwm_agents, contextwm_imports

_AGENTS = 'ipv', 'apv', 'dreamerv2'
_CONTINUED = tuple(agent + ours.CONTINUATION for agent in ('ipv', 'dreamerv2'))
_ABOUT = {
  'original': 'github.com/thuml/ContextWM',
  'made_by': 'python -m tests.parity.compare_contextwm --golden=tests/golden',
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
  checkout, sizes, golden = arguments.parse(__doc__, 'wmlib', ours.GOLDEN)
  contextwm_imports.prepare(checkout)
  torch.set_num_threads(1)
  with contextlib.redirect_stdout(io.StringIO()):  # they say a lot
    cases = {
      agent: compared(Original(checkout, agent, sizes)) for agent in _AGENTS
    }
    formulas = contextwm_formulas.case(Original(checkout, 'ipv', sizes))
    continued = {
      agent: compared_continuation(Original(checkout, agent, sizes))
      for agent in _CONTINUED
    }
  table = differences(sizes, {**cases, **continued})
  more = contextwm_formulas.differences(sizes, formulas)
  worst = tables.report(sizes, itertools.chain(table, more))
  if golden:
    about, cases = {**_ABOUT, 'fed': _FED}, {**cases, 'formulas': formulas}
    tables.write(golden / 'about.json', checkout, cases, worst, about)
    path = golden / f'about{ours.CONTINUATION}.json'
    tables.write(path, checkout, continued, worst, about)
  sys.exit(worst > tables.TOLERANCE)


def differences(
  sizes: ours.Sizes, cases: dict[str, Any]
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
  """Yields rows of the table: name, [(array, difference)]."""
  for agent, case in cases.items():
    found = ours.rows(agent, case, sizes)
    missing = found.keys() ^ case['rows'].keys()
    assert not missing, missing
    for row, expected in case['rows'].items():
      expected = ours.as_ours(agent, expected, sizes)
      yield f'{agent:22} {row}', list(ours.differences(found[row], expected))


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


def compared_continuation(original: 'Original') -> dict[str, Any]:
  """`compared`, of what a head of continuation takes part in."""
  rows = {**original.finetune(), **original.behavior(), **original.discounts()}
  return {
    'weights': original.weights,
    'slow_critic': original.slow_critic,
    'inputs': original.inputs,
    'rows': rows,
  }


class Original:
  """Agents of the official code, of pre-training and of fine-tuning.

  Attributes:
    weights: of the agent of fine-tuning, without the slow critic.
    slow_critic: its arrays, under the names of the critic's.
    inputs: what is fed; losses add to it.
    pretrained: agent of pre-training with the same weights; None of DreamerV2.
  """

  def __init__(self, checkout: pathlib.Path, case: str, sizes: ours.Sizes):
    self.sizes, self.config = sizes, ours.small_config(case, sizes)
    agent = self.agent = self.config.agent
    self.pretrained, self.tuned = contextwm_agents.make_agents(
      checkout, self.config, sizes.actions
    )
    theirs.randomize(self.tuned, sizes)
    self.weights, self.slow_critic = theirs.learned_arrays(self.tuned)
    self.inputs = make_inputs(self.config, sizes)
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
        rows['image encoder'] = {
          'embedding': theirs.embedding(wm.encoder(data), side)
        }
        image = decoder(x['feat'])['image'].mean
        rows['image decoder'] = {'image': theirs.pixels(image)}
      else:
        with theirs.fed(choice=[self.inputs['context_index']]):
          out = wm.encoder(data)
        rows['image encoder'] = {'embedding': theirs.embedding(out['embed'], 4)}
        maps = out['shortcut']
        rows['context maps'] = {
          '8x8': theirs.to_channels_last(maps[8]),
          '16x16': theirs.to_channels_last(maps[16]),
        }
        with theirs.fed(rand=self._token_scores()):
          image = decoder(x['feat'], maps)['image'].mean
        rows['image decoder, 1/4 of the context'] = {
          'image': theirs.pixels(image)
        }
        _set_mask(decoder, 0.0)
        image = decoder(x['feat'], maps)['image'].mean
        _set_mask(decoder, 0.75)
        rows['image decoder, whole context'] = {'image': theirs.pixels(image)}
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
    with theirs.fed(multinomial=self._samples(letter)):
      post, prior = rssm.observe(observed, data['action'], data['is_first'])
    start = {key: value[:, 0] for key, value in post.items()}
    gumbel = x[f'gumbel_{letter}'][:, 1:].unbind(1)
    with theirs.fed(multinomial=gumbel):
      ahead = rssm.imagine(data['action'][:, 1:], start)
    return {
      f'{name} RSSM, observe': {
        'deter': theirs.to_numpy(post['deter']),
        'stoch': theirs.to_numpy(post['stoch']),
        'post logits': theirs.to_numpy(post['logit']),
        'prior logits': theirs.to_numpy(prior['logit']),
      },
      f'{name} RSSM, imagine': {
        'deter': theirs.to_numpy(ahead['deter']),
        'stoch': theirs.to_numpy(ahead['stoch']),
        'logits': theirs.to_numpy(ahead['logit']),
      },
    }

  def act(self) -> ours.Rows:
    """Some steps of acting, one environment being reset on the way."""
    data, state, actions = self._data(), None, []
    self.tuned.wm.eval()
    for t in range(self.sizes.steps):
      obs = {key: value[:, t] for key, value in data.items()}
      with theirs.fed(multinomial=self._samples(self._states(), [t])):
        out, state = self.tuned.policy(obs, state, mode='eval')
      actions.append(out['action'])
    return {
      'acting': {
        'actions': theirs.to_numpy(torch.stack(actions, 1)),
        'last deter': theirs.to_numpy(state[-2]['deter']),
        'last stoch': theirs.to_numpy(state[-2]['stoch']),
      }
    }

  def pretrain(self) -> ours.Rows:
    """The loss of pre-training and its gradients."""
    wm = self.pretrained.wm.train()
    with theirs.double(self.pretrained), self._training('z'):
      loss, _, _, metrics = wm.loss(self._data())
      loss.backward()
    gradients = self.tuned_names(theirs.gradients_of(self.pretrained))
    statistics = {
      name: theirs.to_numpy(value)
      for name, value in self.pretrained.state_dict().items()
      if name.endswith(('running_mean', 'running_var'))
    }
    self._begin()
    return {
      'pre-training: loss terms': {
        'image': theirs.to_numpy(metrics['image_loss']),
        'kl': theirs.to_numpy(metrics['kl_loss']),
        'total': theirs.to_numpy(loss),
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
    with theirs.double(self.tuned), self._training(self._states()):
      loss, _, outs, metrics = wm.loss(self._data())
      loss.backward()
    post = {key: theirs.to_numpy(value) for key, value in outs['post'].items()}
    gradients = theirs.gradients_of(self.tuned)
    self._begin()
    for name, key in (('deter',) * 2, ('stoch',) * 2, ('logits', 'logit')):
      flat = post[key].reshape(-1, *post[key].shape[2:])
      self.inputs[f'start_{name}'] = flat
    names = ['image', 'kl', 'reward']
    if self.agent in ('ipv', 'prelar'):
      names.append('aux_reward')
    terms = {name: theirs.to_numpy(metrics[f'{name}_loss']) for name in names}
    if self.config.behavior.continuation:
      terms['continuation'] = theirs.to_numpy(metrics['discount_loss'])
    return {
      'fine-tuning: posterior states': {
        'deter': post['deter'],
        'stoch': post['stoch'],
        'logits': post['logit'],
      },
      'fine-tuning: loss terms': {
        'total': theirs.to_numpy(loss),
        **terms,
      },
      'fine-tuning: gradients': gradients,
    }

  def behavior(self) -> ours.Rows:
    """Losses and gradients of actor and critic on an imagined rollout."""
    learner = self.tuned._task_behavior
    with theirs.double(self.tuned):
      rollout, target, target_metrics = self._rollout()
      # A copy: their actor loss adds the entropy to its targets in place, so
      # that their critic's hold 1e-4 times the entropy too, but at the first
      # step.
      actor, _ = learner.actor_loss(rollout, target.clone())
      critic, critic_metrics = learner.critic_loss(rollout, target)
      actor.backward(retain_graph=True)
      critic.backward()
      gradients = {
        name: value
        for name, value in theirs.gradients_of(self.tuned).items()
        if name.startswith(('_task_behavior.actor.', '_task_behavior.critic.'))
      }
      entropy = learner.actor(rollout['feat'][:-1]).entropy()
    self._begin()
    found = {
      'loss/actor': theirs.to_numpy(actor),
      'loss/critic': theirs.to_numpy(critic),
      'behavior/entropy': theirs.to_numpy(entropy.mean()),
      'behavior/return': np.float32(target_metrics['critic_target']),
      'behavior/value': np.float32(critic_metrics['critic']),
    }
    if self.config.behavior.continuation:
      discount = rollout['discount'][:-1].mean()
      found['behavior/discount'] = theirs.to_numpy(discount)
    return {
      'actor and critic: losses': found,
      'actor and critic: gradients': gradients,
    }

  def discounts(self) -> ours.Rows:
    """Discounts, weights and returns of that rollout, which is fed."""
    with torch.no_grad():
      rollout, target, _ = self._rollout()
      value = self.tuned._task_behavior._target_critic(rollout['feat']).mode
    self.inputs['rollout_feat'] = theirs.to_numpy(rollout['feat'])
    self.inputs['rollout_reward'] = theirs.to_numpy(rollout['reward'][:-1])
    self.inputs['rollout_value'] = theirs.to_numpy(value)
    return {
      'continuation: a rollout': {
        'discounts': theirs.to_numpy(rollout['discount'][:-1]),
        'weights': theirs.to_numpy(rollout['weight'][:-1]),
        'returns': theirs.to_numpy(target),
      }
    }

  def _rollout(self):
    """An imagined rollout, its targets and what they log."""
    wm, learner = self.tuned.wm.eval(), self.tuned._task_behavior
    x = self._tensors()
    names = {'deter': 'deter', 'stoch': 'stoch', 'logits': 'logit'}
    start = {key: x[f'start_{name}'] for name, key in names.items()}
    lead = self.sizes.sequences, self.sizes.steps
    start = {key: value.unflatten(0, lead) for key, value in start.items()}
    gumbel = x['imagined_gumbel'].transpose(0, 1).flatten(1, 2).unbind(0)
    uniform = x['imagined_uniform'].transpose(0, 1).flatten(1, 2).unbind(0)
    horizon = self.config.behavior.horizon
    with theirs.fed(multinomial=gumbel, uniform=uniform):
      rollout = wm.imagine(learner.actor, start, x.get('is_terminal'), horizon)
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
      moved = theirs.moves(self.pretrained, renamed, count, wm.model_opt.step)
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
    rows['optimizers of the world model'] = theirs.moves(
      self.tuned, model, frozen + count, model_step
    )
    rows['optimizers of actor and critic'] = theirs.moves(
      self.tuned, behavior, count, behavior_step
    )
    self._begin()
    return rows

  def tuned_names(self, arrays: theirs.Arrays) -> theirs.Arrays:
    """Names of pre-training -> names of fine-tuning."""
    return {
      name.replace('wm.rssm.', 'wm.af_rssm.'): value
      for name, value in arrays.items()
    }

  def more_terms(self, metrics: dict[str, Any]) -> theirs.Arrays:
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
    return theirs.tensors(self.inputs)

  def _data(self) -> dict[str, torch.Tensor]:
    """A batch as their replay hands it out."""
    x, dtype = self._tensors(), torch.get_default_dtype()
    nowhere = torch.zeros(self.sizes.sequences, self.sizes.steps)
    return {
      'image': x['image'].to(dtype).movedim(-1, -3).contiguous(),
      'action': x['action'],
      'reward': x['reward'],
      'is_first': x['is_first'].to(dtype),
      'is_last': nowhere,
      'is_terminal': x.get('is_terminal', nowhere).to(dtype),
    }

  def _states(self) -> tuple[str, ...]:
    return ('s',) if self.agent == 'dreamerv2' else ('z', 's')

  def _samples(self, letters, steps=None) -> list[torch.Tensor | None]:
    """For `observe` of models one after the other: prior, posterior, ..."""
    steps = range(self.sizes.steps) if steps is None else steps
    noise = [self._tensors()[f'gumbel_{letter}'] for letter in letters]
    return [x for gumbel in noise for t in steps for x in (None, gumbel[:, t])]

  def _token_scores(self) -> list[torch.Tensor]:
    """The smallest of theirs are kept, the largest of ours."""
    x = self._tensors()
    return [-x[f'token_scores{i}'].flatten(0, 1) for i in range(2)]

  def _training(self, letters):
    """Feeds what a forward pass of training draws."""
    if self.agent != 'ipv':
      return theirs.fed(multinomial=self._samples(letters))
    x = self._tensors()
    return theirs.fed(
      multinomial=self._samples(letters),
      rand=self._token_scores(),
      dropout=[
        x[f'kept_{what}{i}']
        for i in range(2)
        for what in ('weights', 'outputs')
      ],
      choice=[self.inputs['context_index']],
    )


def make_inputs(
  config: ml_collections.ConfigDict, sizes: ours.Sizes
) -> theirs.Arrays:
  """Images, actions, and all that is drawn at random."""
  c, rng, B, T = config, sizes.random(2), sizes.sequences, sizes.steps
  latent, lead = (c.rssm.groups, c.rssm.classes), (B, T)
  feat, E = c.rssm.deter_size + latent[0] * latent[1], 64 * c.image.depth
  H, A = c.behavior.horizon, sizes.actions

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
    inputs['context_index'] = (4 + 3 * np.arange(B)) % T
    for i, side in enumerate((8, 16)):
      tokens, C = side * side, 4 * c.image.depth // 2**i
      kept = int(tokens * (1.0 - c.image.context_mask_ratio))
      inputs[f'token_scores{i}'] = uniform(*lead, tokens)
      shape = *lead, c.image.num_heads, tokens, kept
      inputs[f'kept_weights{i}'] = rng.uniform(size=shape) > 0.1
      inputs[f'kept_outputs{i}'] = rng.uniform(size=(*lead, tokens, C)) > 0.1
  return inputs


def _set_mask(decoder: torch.nn.Module, ratio: float) -> None:
  for layer in decoder.modules():
    if hasattr(layer, 'cross_attention'):
      layer.mask = ratio


if __name__ == '__main__':
  main()
