"""Runs the official PreLAR code beside drp_jax, on the same numbers.

  make parity SYSTEM=prelar CHECKOUT=DIR

DIR is a checkout of github.com/zhanglixuan0720/PreLAR, a descendant of
ContextWM's code; all that compare_contextwm.py says holds here too. Compared is
the system of its README: normally distributed latent actions in pre-training,
a deterministic action encoder in fine-tuning, plain residual networks.

With --golden=tests/golden, what was fed and what the original made of it is
written for tests/golden_prelar_test.py. Only then are the original's large
arrays rounded to 14 bits, which makes small files.
"""

import contextlib
import io
import pathlib
import sys
from typing import Any

import numpy as np
import torch

from drp_jax.convert import contextwm as rules
from tests.parity import arguments, tables, theirs
from tests.parity import compare_contextwm as contextwm
from tests.parity import contextwm_ours as ours
from third_party import contextwm_agents, contextwm_imports

_ABOUT = {
  'original': 'github.com/zhanglixuan0720/PreLAR',
  'made_by': 'python -m tests.parity.compare_prelar --golden=tests/golden',
  'fed': (
    'Random weights, images, actions, rewards and features; Gumbel noise for'
    ' samples of states (torch.multinomial), normal numbers for latent actions'
    ' (torch.distributions.normal), uniform numbers for actions'
    ' (Tensor.uniform_), the order of sequences (torch.randperm). The original'
    ' computed losses and gradients of world models, and steps of optimizers,'
    ' in float64, all else in float32.'
  ),
}


def main() -> None:
  checkout, sizes, golden = arguments.parse(
    __doc__, 'wmlib/nets/va_net', ours.GOLDEN
  )
  if sizes.deter != sizes.hidden:
    sys.exit(
      f'--deter={sizes.deter} --hidden={sizes.hidden}: the official PreLAR has'
      ' one width for both.'
    )
  contextwm_imports.prepare(checkout)
  torch.set_num_threads(1)
  with contextlib.redirect_stdout(io.StringIO()):  # they say a lot
    original = Original(checkout, sizes, rounded=golden is not None)
    cases = {'prelar': contextwm.compared(original)}
  worst = tables.report(sizes, contextwm.differences(sizes, cases))
  if golden:
    path = golden / 'about_prelar.json'
    tables.write(path, checkout, cases, worst, _ABOUT)
  sys.exit(worst > tables.TOLERANCE)


class Original(contextwm.Original):
  """Agents of PreLAR, of pre-training and of fine-tuning.

  Attributes: those of `contextwm.Original`; `weights` also hold what only the
  agent of pre-training has.
  """

  def __init__(self, checkout: pathlib.Path, sizes: ours.Sizes, rounded: bool):
    """Builds both.

    Args:
      checkout: of the original; on `sys.path`.
      sizes: of networks and batches.
      rounded: whether large arrays are rounded, for small golden files.
    """
    from wmlib import agents, utils  # of the checkout

    self._rounded = _rounded if rounded else lambda rows: rows
    self.agent, self.sizes = 'prelar', sizes
    self.config = ours.small_config('prelar', sizes)
    c, space = self.config, contextwm_agents.space
    spaces = {'image': space(64, 64, 3), 'reward': space()}
    spaces |= {f'is_{name}': space() for name in ('first', 'last', 'terminal')}
    actions = {'action': space(sizes.actions)}
    feat = c.rssm.deter_size + c.rssm.groups * c.rssm.classes

    def make(kind, file, block, **changes):
      settings = contextwm_imports.read_settings(
        checkout / f'configs/{file}.yaml'
      )
      settings['defaults']['decoder']['cnn_input_dim'] = feat  # else 2048
      config = utils.Config(settings['defaults']).update(settings[block])
      return kind(config.update(changes), spaces, actions, None)

    networks, heads = contextwm_agents.network_sizes(c)
    networks['rssm.embed_dim'] = 64 * c.image.depth
    for name in ('actor', 'critic', 'reward_head'):
      heads[f'{name}.input_dim'] = feat
    self.tuned = make(
      agents.PreLARFinetune,
      'prelar_finetuning',
      'metaworld',
      **networks,
      **heads,
      **{
        'action_encoder.type_': 'deter',
        'action_encoder.deter': c.prelar.latent_size,
        'action_encoder.hidden_dim': c.rssm.hidden,
      },
    )
    self.pretrained = make(
      agents.PreLARPretrain,
      'prelar_pretraining',
      'something_pretrain',
      **networks,
      **{
        'vanet.type_': 'stoch',
        'vanet.discrete': 0,
        'vanet.stoch': c.prelar.latent_size,
        'vanet.hidden_dim': c.rssm.hidden,
        'vanet.cnn_depth': c.image.depth,
        'vanet.res_layers': c.image.num_layers,
        'rank_loss': 'sign',
      },
    )
    for agent in (self.tuned, self.pretrained):
      theirs.randomize(agent, sizes)
      for value in agent.state_dict().values():
        value.copy_(value.half())  # which makes small files
    self.weights, self.slow_critic = theirs.learned_arrays(self.tuned)
    self.weights = {
      name: value
      for name, value in self.weights.items()
      if not name.startswith('wm.af_rssm.')  # a second name of wm.rssm
    }
    self.weights |= {
      name: theirs.to_numpy(value)
      for name, value in self.pretrained.state_dict().items()
      if name.startswith('wm.va_encoder.')
    }
    self.inputs = contextwm.make_inputs(c, sizes)
    # It looks at embeddings, in which channels are last here.
    matrix = self.tuned.wm.intr_bonus.random_projection_matrix.numpy()
    self.inputs['projection'] = rules.channels_last(matrix, rules.SIDE)
    self._begin()

  def networks(self) -> ours.Rows:
    """Forward passes in evaluation, module by module."""
    wm, encoder = self.tuned.wm.eval(), self.pretrained.wm.eval().va_encoder
    x, data = self._tensors(), self._data()
    image = data['image'] = data['image'] / 255.0 - 0.5
    with torch.no_grad():
      latent = encoder(image[:, :-1], image[:, 1:], sample=False)
      decoded = wm.heads['decoder'](x['feat'])['image'].mean
      embed = x['embed'].unflatten(-1, (4, 4, -1)).movedim(-1, -3).flatten(-3)
      with theirs.fed(multinomial=self._samples('z')):
        post, prior = wm.rssm.observe(embed, x['latent'], data['is_first'])
      start = {key: value[:, 0] for key, value in post.items()}
      with theirs.fed(multinomial=x['gumbel_z'][:, 1:].unbind(1)):
        ahead = wm.rssm.imagine(x['latent'][:, 1:], start)
      numpy = theirs.to_numpy
      rows = {
        'image encoder': {
          'embedding': theirs.embedding(wm.encoder(data), rules.SIDE)
        },
        'image decoder': {'image': theirs.pixels(decoded)},
        'inverse dynamics': {
          'mean': numpy(latent['mean']),
          'std': numpy(encoder.get_dist(latent).stddev),
        },
        'action encoder': {
          'latent action': numpy(wm.action_encoder(data['action'])['deter'])
        },
        'RSSM, observe': {
          'deter': numpy(post['deter']),
          'stoch': numpy(post['stoch']),
          'post logits': numpy(post['logit']),
          'prior logits': numpy(prior['logit']),
        },
        'RSSM, imagine': {
          'deter': numpy(ahead['deter']),
          'stoch': numpy(ahead['stoch']),
          'logits': numpy(ahead['logit']),
        },
      }
    return self._rounded(rows)

  def pretrain(self) -> ours.Rows:
    """The loss of pre-training and its gradients."""
    return self._rounded(super().pretrain())

  def finetune(self) -> ours.Rows:
    """The world model's loss of fine-tuning and its gradients."""
    return self._rounded(super().finetune())

  def tuned_names(self, arrays: ours.Arrays) -> ours.Arrays:
    """Both stages call their one dynamics model the same."""
    return arrays

  def more_terms(self, metrics: dict[str, Any]) -> ours.Arrays:
    """The KL of latent actions and the consistency."""
    return {
      'kl of latent actions': theirs.to_numpy(metrics['va_kl_loss']),
      'consistency': np.float32(metrics['rank_loss']),
    }

  def _begin(self) -> None:
    """Puts everything back to where it was made."""
    if not hasattr(self, '_start'):
      self._start = {
        name: value.clone()
        for agent in (self.pretrained, self.tuned)
        for name, value in agent.state_dict().items()
      }
    for agent in (self.pretrained, self.tuned):
      names = agent.state_dict()
      agent.load_state_dict({name: self._start[name] for name in names})
      agent.zero_grad(set_to_none=True)
    # Making an agent runs it once, which leaves something here.
    self.tuned.wm.intr_bonus.tf_queue_step = 0
    self.tuned.wm.intr_bonus.intr_rewnorm.reset()

  def _states(self) -> tuple[str, ...]:
    return ('s',)

  def _training(self, letters):
    """Feeds what a forward pass of training draws."""
    if letters != 'z':
      return super()._training(letters)
    x = self._tensors()
    # The last sample is of what other actions lead to; only its distribution
    # is looked at.
    return theirs.fed(
      multinomial=[*self._samples(letters), None],
      normal=[x['latent_normal']],
      order=[x['order']],
    )


def _rounded(rows: ours.Rows) -> ours.Rows:
  """Leaves what is large 14 bits, to 6e-5 of each, which makes small files."""
  half, kept = np.uint32(1 << 9), np.uint32(0xFFFFFC00)

  def one(x):
    return ((x.view(np.uint32) + half) & kept).view(np.float32)

  return {
    row: {name: one(x) for name, x in arrays.items()}
    if row.endswith('gradients') or row == 'image decoder'
    else arrays
    for row, arrays in rows.items()
  }


if __name__ == '__main__':
  main()
