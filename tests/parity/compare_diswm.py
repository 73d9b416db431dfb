"""Runs the official DisWM code beside drp_jax, on the same numbers.

  make parity SYSTEM=diswm CHECKOUT=DIR

DIR is a checkout of github.com/qiwang067/DisWM. It runs as it is, on the CPU,
in the environment of the tests, with ruamel.yaml from
third_party/requirements.txt. Stand-ins replace wandb and its wrappers of
environments. Random weights of small networks go from their arrays into ours.
Images, actions and all random numbers are the same for both. The widths of its
convolutions are written in its code. They are made eight times narrower, and
the encoder and the decoder are compared at full width, too. Forward passes and
formulas are compared in float32. Losses, gradients and steps of optimizers are
compared in float64. The script prints a table, and exits with 1 if an array
differs by more than 1e-4 of its largest value.

Some things that the code does are not what its text says, or not what ours
does. Around them all else is compared:

  * Lambda-returns come out last step first, so they meet the weights, entropies
    and values of other steps. Here they are turned round.
  * The actor is given the return of a state together with the entropy in it;
    ours, the return of the next state, which is what an action can change. Here
    both the next.
  * The policy's truncated normals are plain ones in all but name: what is
    called is a normal's `rsample` and entropy. Here ours is plain too.
  * The first action of a segment is read, ours is not. Here it is zero.
  * Its weight decay is 0. Here ours too.

The teacher is not frozen there: distillation has a gradient for it, and the
optimizer moves it. Here that gradient is left out.

With --golden=tests/golden, what was fed and what the original made of it is
written down for tests/golden_diswm_test.py.
"""

import argparse
import contextlib
import io
import pathlib
import sys
import tempfile
import types
from typing import Any
from unittest import mock

import numpy as np
import torch

from tests.parity import arguments, contextwm_ours, tables, theirs
from tests.parity import diswm_ours as ours
from tests.parity.theirs import to_numpy
from third_party import contextwm_imports

_PREFILL = 2_500  # agent steps, of theirs
_WIDTHS = 32, 64, 256  # of their convolutions
_ACTOR, _CRITIC = '_task_behavior.actor.', '_task_behavior.value.'
_SLOW, _TEACHER = '_task_behavior._slow_value.', '_wm.encoder_distillation.'
_CONSTANT = 0.5 * float(np.log(2.0 * np.pi))  # of -ln p of a normal number
_IMAGE_CONSTANT = 64 * 64 * 3 * _CONSTANT
_ABOUT = {
  'original': 'github.com/qiwang067/DisWM',
  'made_by': 'python -m tests.parity.compare_diswm --golden=tests/golden',
  'fed': (
    'Random weights, images, actions, rewards, codes and features; normal noise'
    ' for samples of codes (Tensor.normal_), states and actions'
    ' (torch.distributions.normal). Convolutions are an eighth as wide as the'
    ' original has them. It computed losses and gradients, and steps of'
    ' optimizers, in float64, all else in float32; what was changed on the way'
    ' stands in tests/parity/compare_diswm.py.'
  ),
}

Arrays = dict[str, np.ndarray]


def main() -> None:
  checkout, sizes, golden = arguments.parse(__doc__, 'beta_vae.py', ours.GOLDEN)
  sys.path.insert(0, str(checkout))
  contextwm_imports.stand_in('wandb')
  sys.modules['wrappers'] = types.ModuleType('wrappers')  # of environments
  torch.set_num_threads(1)

  with contextlib.redirect_stdout(io.StringIO()):
    case = Original(checkout, 8, sizes).case()
    full = Original(checkout, 1, sizes)
  found, expected = ours.rows(case, sizes), case['rows']
  assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
  wide = full.networks()
  wide_found = ours.networks(full.weights, full.inputs, sizes)
  for row in ('VAE encoder', 'VAE decoder'):
    found[f'{row}, full width'] = wide_found[row]
    expected = {**expected, f'{row}, full width': wide[row]}
  table = [
    (
      row,
      contextwm_ours.differences(arrays, ours.as_ours(expected[row], sizes)),
    )
    for row, arrays in found.items()
  ]
  worst = tables.report(sizes, table)
  if golden:
    path = golden / 'about_diswm.json'
    tables.write(path, checkout, {'diswm': case}, worst, _ABOUT)
  sys.exit(worst > tables.TOLERANCE)


class Original:
  """The official agents of both stages, with the same random weights.

  Attributes:
    agent: of fine-tuning.
    pretrained: world model of pre-training, whose encoder is the teacher.
    weights: of the agent, without the slow critic.
    slow_critic: its arrays, under the names of the critic's.
    inputs: what is fed to networks and losses; fine-tuning adds to it.
    numbers: what is fed to formulas.
  """

  def __init__(self, checkout: pathlib.Path, narrower: int, sizes: ours.Sizes):
    """Builds both.

    Args:
      checkout: of the original; on `sys.path`.
      narrower: what widths of convolutions are divided by.
      sizes: of all else.
    """
    import beta_vae  # of the checkout
    import dreamer
    import pretrain_model

    self.sizes = sizes
    with (
      tempfile.TemporaryDirectory() as folder,
      mock.patch.object(beta_vae, 'nn', _narrow_layers(narrower)),
    ):
      traindir = pathlib.Path(folder)
      (traindir / f'episode-{_PREFILL + 1}.npz').touch()
      config = _config(checkout, traindir, sizes)
      self.pretrained = pretrain_model.WorldModel(0, config)
      self.agent = dreamer.Dreamer(config, None, None)
    self.agent.requires_grad_(False)
    for module in (*self.pretrained.modules(), *self.agent.modules()):
      if isinstance(module, beta_vae.View):
        module.size = tuple(_narrower(n, narrower) for n in module.size)
    _randomize(self.agent, sizes)
    theirs = self.agent.state_dict()
    self.pretrained.load_state_dict(
      {name: theirs[_tuned(name)] for name in self.pretrained.state_dict()}
    )
    self.weights = {
      name: to_numpy(x)
      for name, x in theirs.items()
      if name.startswith(('_wm.', _ACTOR, _CRITIC))
    }
    self.slow_critic = {
      name.replace(_SLOW, _CRITIC): to_numpy(x)
      for name, x in theirs.items()
      if name.startswith(_SLOW)
    }
    self.inputs, self.numbers = _inputs(sizes), _numbers(sizes)

  def case(self) -> dict[str, Any]:
    """What is fed, and what the original makes of it."""
    rows = {
      **self.networks(),
      **self.act(),
      **self.pretrain(),
      **self.finetune(),
      **self.distill_weights(),
      **self.behavior(),
      **self.formulas(),
    }
    rows |= self.optimizer_steps(rows)  # the last, since it moves weights
    return {
      'weights': self.weights,
      'slow_critic': self.slow_critic,
      'inputs': self.inputs,
      'numbers': self.numbers,
      'rows': rows,
    }

  def networks(self) -> ours.Rows:
    """Forward passes, module by module."""
    wm, learner, x = self.agent._wm, self.agent._task_behavior, self._tensors()
    lead = self.sizes.sequences, self.sizes.steps
    with torch.no_grad():
      with _fed(codes=[x['code_normal']]):
        mean, log_var, sample = wm.encoder(wm.preprocess(self._data()))
      with _fed(normal=self._state_samples()):
        post, prior = wm.dynamics.observe(x['code'], x['action'])
      start = {name: value[:, 0] for name, value in post.items()}
      with _fed(normal=x['state_normal'][:, 1:].unbind(1)):
        ahead = wm.dynamics.imagine(x['action'][:, 1:], start)
      image = wm.heads['image'](x['feat']).mean
      policy = learner.actor(x['feat'])
      rows = {
        'VAE encoder': {
          'mean': mean.unflatten(0, lead),
          'log-variance': log_var.unflatten(0, lead),
          'sample': sample,
        },
        'VAE decoder': {'image': image[ours.PIXELS]},
        'RSSM, observe': {
          'deter': post['deter'],
          'stoch': post['stoch'],
          'post mean': post['mean'],
          'post std': post['std'],
          'prior mean': prior['mean'],
          'prior std': prior['std'],
        },
        'RSSM, imagine': {
          name: ahead[name] for name in ('deter', 'stoch', 'mean', 'std')
        },
        'heads': {
          'reward': wm.heads['reward'](x['feat']).mean[..., 0],
          'value': learner.value(x['feat']).mean[..., 0],
          'policy mean': policy.mean,
          'policy std': policy.stddev,
        },
      }
    return _to_numpy(rows)

  def act(self) -> ours.Rows:
    """Some steps of acting, one environment being reset on the way."""
    x, data, state, actions = self._tensors(), self._data(), None, []
    for t in range(self.sizes.steps):
      obs = {name: data[name][:, t] for name in ('image', 'reward')}
      with (
        torch.no_grad(),
        _fed(codes=[x['code_normal'][:, t]], normal=self._state_samples([t])),
      ):
        out, state = self.agent(
          obs, self.inputs['reset'][:, t], state, training=False
        )
      actions.append(out['action'].clone())  # a reset writes into it
    return _to_numpy(
      {
        'acting': {
          'actions': torch.stack(actions, 1),
          'last deter': state[0]['deter'],
          'last stoch': state[0]['stoch'],
        }
      }
    )

  def pretrain(self) -> ours.Rows:
    """The loss of pre-training and its gradients."""
    wm = self.pretrained
    with (
      theirs.double(wm),
      _caught(wm, '_model_opt') as found,
      _fed(codes=[self._tensors()['code_normal']]),
    ):
      _, _, metrics = wm._train(self._data())
      gradients = theirs.gradients_of(wm)
    wm.zero_grad(set_to_none=True)
    return _to_numpy(
      {
        'pre-training: loss terms': {
          'image': metrics['image_loss'] - _IMAGE_CONSTANT,
          'kl': metrics['kl'],
          'kl of codes': metrics['beta_vae_kl_loss'],
          'total': found[0] - _IMAGE_CONSTANT,
        },
        'pre-training: gradients': {
          _tuned(name): x for name, x in gradients.items()
        },
      }
    )

  def finetune(self) -> ours.Rows:
    """The world model's loss of fine-tuning and its gradients."""
    c = self.agent._config
    with theirs.double(self.agent):
      self._post, loss, metrics = self._train_model(ours.AGENT_STEP)
      gradients = theirs.gradients_of(self.agent)
    self.agent.zero_grad(set_to_none=True)
    for name in [x for x in gradients if x.startswith(_TEACHER)]:
      assert gradients.pop(name).any()  # it is not frozen
    post = _to_numpy({'post': self._post})['post']
    for name, value in post.items():
      self.inputs[f'start_{name}'] = value.reshape(-1, value.shape[-1])
    code, reward = metrics['beta_vae_kl_loss'], c.reward_scale * _CONSTANT
    image = metrics['image_loss'] - c.beta_vae_beta * code - _IMAGE_CONSTANT
    return _to_numpy(
      {
        'fine-tuning: posterior states': post,
        'fine-tuning: loss terms': {
          'image': image,
          'reward': (metrics['reward_loss'] - reward) / c.reward_scale,
          'kl': metrics['kl'],
          'kl of codes': code,
          'distillation': metrics['distillation_kl_loss'],
          'total': loss - _IMAGE_CONSTANT - reward,
        },
        'fine-tuning: gradients': gradients,
      }
    )

  def distill_weights(self) -> ours.Rows:
    """The weight of distillation after numbers of agent steps.

    From the loss, less the loss without it. Intended: the world model is told
    how many there were. Released: it knows those at its making.
    """
    wm, found = self.agent._wm, {}
    with theirs.double(self.agent), torch.no_grad():
      _, without, _ = self._train_model(0, cross_domain=True)

      def weight(*args):
        _, loss, metrics = self._train_model(*args)
        return (loss - without) / metrics['distillation_kl_loss']

      for name, crosses in (('intended', False), ('cross_domain', True)):
        found[name] = [weight(step, crosses) for step in ours.AGENT_STEPS]
      found['released'] = []
      for step in ours.AGENT_STEPS:
        self.agent._step = step
        found['released'].append(weight(wm._step))
    return _to_numpy({'weight of distillation': found})

  def _train_model(self, step, cross_domain=False):
    """One step of the world model but for its optimizer.

    Args:
      step: agent steps, as the model is told.
      cross_domain: their setting.

    Returns:
      Posterior states, the loss, metrics. Parameters have their gradients.
    """
    wm, x = self.agent._wm, self._tensors()
    wm._config.cross_domain = cross_domain
    with (
      mock.patch.object(wm, '_step', step),
      _caught(wm, '_model_opt') as losses,
      _fed(
        codes=[x['code_normal'], x['teacher_normal']],
        normal=self._state_samples(),
      ),
    ):
      post, _, metrics = wm._train(self._data())
    return post, losses[0], metrics

  def behavior(self) -> ours.Rows:
    """Losses and gradients of actor and critic on an imagined rollout."""
    import tools  # of the checkout

    learner, x, targets = self.agent._task_behavior, self._tensors(), []
    their_return, their_loss = tools.lambda_return, learner._compute_actor_loss

    def lambda_return(*args, **kwargs):
      found = their_return(*args, **kwargs)  # of each state [H, 1], reversed
      targets[:] = [torch.stack([y.flip(0) for y in found], 1)]
      return targets[0].unbind(1)

    def actor_loss(feat, state, action, target, entropy, own, weights):
      del entropy, own  # the first is computed anew, the second has no weight
      later = [y[1:] for y in target]
      return their_loss(
        feat[:-1], state, action[:-1], later, None, None, weights[:-1]
      )

    normal = []  # of an action, then of the state it leads to
    for name in ('imagined_action', 'imagined_state'):
      own = x[name].transpose(0, 1).flatten(1, 2)
      normal.append([*own, torch.zeros_like(own[0])])  # the last has no use
    learner._updates = 1  # so that the slow critic stays
    with (
      theirs.double(self.agent),
      mock.patch.object(tools, 'lambda_return', lambda_return),
      mock.patch.object(learner, '_compute_actor_loss', actor_loss),
      mock.patch.object(
        self.agent._wm, '_train', lambda _: (self._post, {}, {})
      ),
      mock.patch.object(learner, '_train', _Kept(learner._train)),
      _caught(learner, '_actor_opt') as actor,
      _caught(learner, '_value_opt') as critic,
      _fed(normal=[y for pair in zip(*normal, strict=True) for y in pair]),
    ):
      self.agent._train(None)
      feat, _, _, weights, _ = learner._train.results[0]
      with torch.no_grad():
        constant = _CONSTANT * weights[:-1].mean()
        seen = feat[:-1]
        entropy = learner.actor(seen).entropy().mean()
        value = learner.value(seen).mean.mean()
        reward = self.agent._wm.heads['reward'](seen).mean.mean()
      gradients = theirs.gradients_of(self.agent)
    self.agent.zero_grad(set_to_none=True)
    return _to_numpy(
      {
        'actor and critic: losses': {
          'loss/actor': actor[0],
          'loss/critic': critic[0] - constant,
          'behavior/entropy': entropy,
          'behavior/return': targets[0].mean(),
          'behavior/reward': reward,
          'behavior/value': value,
        },
        'actor and critic: gradients': gradients,
      }
    )

  def optimizer_steps(self, rows: ours.Rows) -> ours.Rows:
    """How parameters move under the gradients in `rows`, group by group."""
    learner = self.agent._task_behavior
    theirs = {_tuned(k): x for k, x in self.pretrained.named_parameters()}
    tuned = dict(self.agent.named_parameters())
    model, both = 'fine-tuning: gradients', 'actor and critic: gradients'
    behavior = {}
    for prefix, optimizer in (
      (_ACTOR, learner._actor_opt),
      (_CRITIC, learner._value_opt),
    ):
      own = {k: x for k, x in rows[both].items() if k.startswith(prefix)}
      behavior |= _moves(tuned, own, optimizer)
    return {
      'optimizer of pre-training': _moves(
        theirs, rows['pre-training: gradients'], self.pretrained._model_opt
      ),
      'optimizers of the world model': _moves(
        tuned, rows[model], self.agent._wm._model_opt
      ),
      'optimizers of actor and critic': behavior,
    }

  def formulas(self) -> ours.Rows:
    """KLs of states and codes, distillation, returns, on given numbers."""
    import tools  # of the checkout

    wm, rows = self.agent._wm, {'KL of states': {}}
    x = {name: torch.from_numpy(y) for name, y in self.numbers.items()}

    def learned(*names):
      return [x[name].clone().requires_grad_() for name in names]

    for free in (0.0, 100.0):
      post, prior = learned('post', 'prior')
      states = [{'mean': y[..., 0], 'std': y[..., 1]} for y in (post, prior)]
      loss, _ = wm.dynamics.kl_loss(*states, False, 0.8, free, 1.0)
      loss.backward()
      rows['KL of states'][f'free {free:g}'] = {
        'loss': loss,
        'by post': post.grad,
        'by prior': prior.grad,
      }
    mean, log_var = learned('mean', 'log_var')
    loss, _, _ = wm.kl_divergence(mean.flatten(0, 1), log_var.flatten(0, 1))
    loss.backward()
    rows['KL of codes'] = {
      'loss': loss[0],
      'by mean': mean.grad,
      'by log-variance': log_var.grad,
    }
    (student,) = learned('student_code')
    loss = wm.kl_loss_distillation(student, x['teacher_code'])
    loss.backward()
    rows['distillation'] = {'loss': loss, 'by student': student.grad}
    reward, value = (
      x[f'some_{name}s'][..., None] for name in ('reward', 'value')
    )
    found = tools.lambda_return(
      reward, value[:-1], 0.99 * torch.ones_like(reward), value[-1], 0.95, 0
    )
    rows['lambda-returns'] = {'returns': torch.cat(found, 1).flip(0)}
    return _to_numpy(rows)

  def _tensors(self) -> dict[str, torch.Tensor]:
    return theirs.tensors(self.inputs)

  def _data(self) -> Arrays:
    """A batch as their replay hands it out."""
    return {name: self.inputs[name] for name in ('image', 'action', 'reward')}

  def _state_samples(self, steps=None) -> list[torch.Tensor]:
    """For the prior, whose samples have no use, then for the posterior."""
    steps = range(self.sizes.steps) if steps is None else steps
    normal = self._tensors()['state_normal']
    return [y for t in steps for y in (0.0 * normal[:, t], normal[:, t])]


def _tuned(name: str) -> str:
  """Name of an array of pre-training -> where it is in fine-tuning."""
  if name.startswith('encoder.'):
    return name.replace('encoder.', _TEACHER, 1)
  return f'_wm.{name}'


class _Kept:
  """A function whose results are kept."""

  def __init__(self, function):
    self._function, self.results = function, []

  def __call__(self, *args):
    self.results.append(self._function(*args))
    return self.results[-1]


@contextlib.contextmanager
def _caught(owner, name):
  """Replaces an optimizer by one that goes backward only; yields its losses."""
  losses = []

  def step(loss, params):
    del params
    losses.append(loss.detach())
    if torch.is_grad_enabled():
      loss.backward()
    return {}

  with mock.patch.object(owner, name, step):
    yield losses


@contextlib.contextmanager
def _fed(codes=(), normal=()):
  """Makes torch hand out given numbers; all have to be taken.

  Args:
    codes: what `Tensor.normal_` writes.
    normal: noise of samples of normal distributions.
  """
  left = list(codes)

  def fed_normal(tensor):
    return tensor.copy_(left.pop(0).reshape(tensor.shape))

  with (
    mock.patch.object(torch.Tensor, 'normal_', fed_normal),
    theirs.fed(normal=normal),
  ):
    yield
  assert not left, len(left)


def _moves(parameters, gradients, optimizer) -> Arrays:
  """Parameters after some updates less those before."""
  for parameter in parameters.values():
    parameter.data = parameter.data.double()  # moves are small
  own = {name: parameters[name].requires_grad_() for name in gradients}
  start = {name: x.detach().clone() for name, x in own.items()}
  for factor in contextwm_ours.GRADIENT_FACTORS:
    loss = sum(
      factor * (torch.from_numpy(gradients[name]) * x).sum()
      for name, x in own.items()
    )
    optimizer(loss, own.values())
  return {name: to_numpy(x - start[name]) for name, x in own.items()}


def _to_numpy(tree):
  """Tensors, numbers and lists of numbers to float32 arrays."""
  if isinstance(tree, dict):
    return {name: _to_numpy(x) for name, x in tree.items()}
  if isinstance(tree, torch.Tensor):
    return to_numpy(tree)
  return np.asarray(tree, np.float32)


def _narrow_layers(factor: int) -> types.SimpleNamespace:
  """`torch.nn` with layers that divide the widths of convolutions."""

  def narrow(kind):
    class Narrow(kind):
      def __init__(self, size, out, *args):
        super().__init__(_narrower(size, factor), _narrower(out, factor), *args)

    return Narrow

  names = 'Linear', 'Conv2d', 'ConvTranspose2d'
  layers = {name: narrow(getattr(torch.nn, name)) for name in names}
  return types.SimpleNamespace(**{**vars(torch.nn), **layers})


def _narrower(width: int, factor: int) -> int:
  return width // factor if width in _WIDTHS else width


def _config(checkout: pathlib.Path, traindir: pathlib.Path, sizes: ours.Sizes):
  """Their settings of fine-tuning on DMC, in sizes of ours."""
  import tools  # of the checkout

  small = ours.small_config(sizes=sizes)
  blocks = contextwm_imports.read_settings(checkout / 'configs.yaml')
  settings = {**blocks['defaults'], **blocks['dmc2gym']}
  found = {name: tools.args_type(x)(x) for name, x in settings.items()}
  found |= {
    'beta_vae': True,
    'distillation': True,
    'pretrain_action_num': sizes.actions,
    'num_actions': sizes.actions,
    'dyn_hidden': small.diswm.width,
    'dyn_deter': small.diswm.width,
    'dyn_stoch': small.diswm.stoch_size,
    'units': small.heads.width,
    # Returns of as many states as ours; the last one's value is used only.
    'imag_horizon': small.behavior.horizon + 1,
    'act': torch.nn.ELU,
    'device': 'cpu',
    'traindir': traindir,
  }
  return argparse.Namespace(**found)


def _randomize(agent: torch.nn.Module, sizes: ours.Sizes) -> None:
  """Other numbers everywhere, which float16 holds: they make small files."""
  rng = sizes.random(3)
  for name, x in agent.named_parameters():
    noise = torch.from_numpy(rng.normal(size=x.shape)).float()
    if name.endswith('_norm.weight'):
      noise = 0.7 + 0.2 * noise.abs()
    elif name.endswith('bias'):
      noise *= 0.1
    else:
      noise *= np.sqrt(2.0 / x[0].numel())
    x.copy_(noise.half())


def _inputs(sizes: ours.Sizes) -> Arrays:
  """Images, actions, rewards, features, and all noise."""
  config, rng = ours.small_config(sizes=sizes), sizes.random(2)
  B, T, c = sizes.sequences, sizes.steps, config.diswm
  lead = B, T
  S, Z, A = c.stoch_size, c.latent_size, sizes.actions
  H = config.behavior.horizon

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  coarse = rng.uniform(0, 256, (*lead, 16, 16, 3))
  inputs = {
    'image': coarse.repeat(4, 2).repeat(4, 3).astype(np.uint8),
    'action': rng.uniform(-1, 1, (*lead, A)).astype(np.float32),
    'reward': normal(*lead),
    'is_first': np.zeros(lead, bool),
    'reset': np.zeros(lead, bool),
    'code': normal(*lead, Z),
    'feat': normal(*lead, S + c.width),
    'code_normal': normal(*lead, Z),
    'teacher_normal': normal(*lead, Z),
    'state_normal': normal(*lead, S, 1),
    'imagined_action': normal(B, H, T, A),
    'imagined_state': normal(B, H, T, S, 1),
  }
  inputs['is_first'][:, 0] = inputs['reset'][:, 0] = True
  inputs['reset'][1, 3] = True
  inputs['action'][:, 0] = 0.0
  return inputs


def _numbers(sizes: ours.Sizes) -> Arrays:
  """What is fed to formulas."""
  rng, (H, N) = sizes.random(4), (6, 5)

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  def states():
    std = rng.uniform(0.1, 2.1, (2, 3, 5)).astype(np.float32)
    return np.stack([normal(2, 3, 5), std], -1)

  return {
    'post': states(),
    'prior': states(),
    'mean': normal(2, 3, 7),
    'log_var': normal(2, 3, 7),
    'teacher_code': 2.0 * normal(2, 3, 7),
    'student_code': 2.0 * normal(2, 3, 7),
    'some_rewards': normal(H, N),
    'some_values': normal(H + 1, N),
  }


if __name__ == '__main__':
  main()
