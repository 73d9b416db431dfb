"""What drp_jax's DisWM computes on weights, inputs and noise of the official.

`compare_diswm.py` and tests/golden_diswm_test.py hand in arrays under the
official names and in its layout. Results come back as rows of a table, {row:
{name: array}}; what is in the tree of our parameters has more levels.
"""

import dataclasses
import functools
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from configs import finetune_dmcr
from drp_jax import losses, types
from drp_jax.convert import contextwm as rules
from drp_jax.ops import distributions, images, returns
from drp_jax.systems import optim, registry
from drp_jax.systems.diswm import diswm
from tests.parity import arguments, contextwm_ours
from tests.parity.contextwm_ours import GRADIENT_FACTORS, PIXELS, Arrays, Rows

# At which the weight of distillation is looked at, and of which one loss.
AGENT_STEPS = 0, 12_500, 47_000, 50_000, 62_500, 97_000, 300_000
AGENT_STEP = 20_000
_CONVS = 5
_DEPTHS = {  # hidden layers of heads: their list of layers, ours
  '_wm.heads.reward._mean_layers.': ('reward', 2),
  '_task_behavior.value._mean_layers.': ('critic', 3),
}
_ACTOR = '_task_behavior.actor.'
_ACTOR_DEPTH = 4


@dataclasses.dataclass(frozen=True)
class Sizes(arguments.Sizes):
  """Sizes of DisWM.

  Attributes:
    steps: as in `arguments.Sizes`.
    deter: width of the RSSM.
    stoch: numbers in a state.
    width: of the heads' hidden layers.
  """

  steps: int = arguments.number(5, least=4)
  deter: int = arguments.number(16)
  stoch: int = arguments.number(4)
  width: int = arguments.number(16)


GOLDEN = Sizes()


def small_config(
  depth: int = 4, sizes: Sizes = GOLDEN
) -> ml_collections.ConfigDict:
  """The debug preset with a teacher, and the original's optimizers.

  Args:
    depth: channels of the first convolution, 32 in the original.
    sizes: of all else.
  """
  config = finetune_dmcr.get_config('debug')
  config.agent, config.init_from = 'diswm', 'somewhere'
  config.diswm.depth = depth
  config.diswm.width, config.diswm.stoch_size = sizes.deter, sizes.stoch
  config.heads.width, config.behavior.horizon = sizes.width, sizes.horizon
  config.optim.weight_decay = 0.0
  return config


def depth(arrays: Arrays) -> int:
  """Channels of the first convolution."""
  return arrays['_wm.encoder.encoder.0.bias'].shape[0]


def _rules(config: ml_collections.ConfigDict) -> list[rules.Rule]:
  """Rules for the whole agent of fine-tuning."""
  found = [
    *_encoder_rules('_wm.encoder_distillation.', 'teacher'),
    *_encoder_rules('_wm.encoder.', 'image_encoder'),
    *_decoder_rules('_wm.heads.image.', 'image_decoder'),
    *_rssm_rules('_wm.dynamics.', 'action_dynamics', config.diswm),
    *rules.dense_rules(f'{_ACTOR}_dist_layer', ('actor', 'mlp', 'out')),
  ]
  for i in range(_ACTOR_DEPTH):
    path = 'actor', 'mlp', f'dense{i}'
    found += rules.dense_rules(f'{_ACTOR}_pre_layers.{2 * i}', path)
  for prefix, (name, count) in _DEPTHS.items():
    for i in range(count):
      path = name, 'mlp', f'dense{i}'
      found += rules.dense_rules(f'{prefix}{2 * i}', path)
    found += rules.dense_rules(f'{prefix}{2 * count}', (name, 'mlp', 'out'))
  return found


def _encoder_rules(source, name):
  found = rules.dense_rules(f'{source}dis_encoder.0', (name, 'out'))
  for i in range(_CONVS):
    found += _conv_rules(
      f'{source}encoder.{2 * i}', (name, f'conv{i}'), rules.conv
    )
  return found


def _decoder_rules(source, name):
  found = rules.dense_rules(f'{source}feat_to_decoder.0', (name, 'latent'))
  found += rules.dense_rules(f'{source}decoder.0', (name, 'dense'))
  for i in range(_CONVS):
    found += _conv_rules(
      f'{source}decoder.{2 * i + 3}', (name, f'conv{i}'), rules.conv_up
    )
  return found


def _conv_rules(source, path, convert):
  own = 'params', *path
  return [
    rules.Rule(f'{source}.weight', (*own, 'kernel'), convert),
    rules.Rule(f'{source}.bias', (*own, 'bias'), np.array),
  ]


def _rssm_rules(source, name, sizes):
  """As of ContextWM's, but all means come before all deviations."""
  own, S, D = ('params', name), sizes.stoch_size, sizes.width

  def paired(x):  # [2 S, ...] -> the same, mean and deviation in turn
    return x.reshape(2, S, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape).T

  norm = (*own, 'gru', 'norm')
  found = [
    rules.Rule(f'{source}_cell._norm.weight', (*norm, 'scale'), np.array),
    rules.Rule(f'{source}_cell._norm.bias', (*norm, 'bias'), np.array),
    *rules.dense_rules(f'{source}_cell._layer', (name, 'gru', 'dense')),
    *rules.dense_rules(f'{source}_img_out_layers.0', (name, 'prior_hidden')),
  ]
  for theirs, first, second, size in (
    ('_inp_layers.0', 'stoch_in', 'action_in', S),
    ('_obs_out_layers.0', 'post_deter', 'post_embed', D),
  ):
    found += [
      rules.Rule(
        f'{source}{theirs}.weight',
        (*own, first, 'kernel'),
        lambda x, size=size: x[:, :size].T,
      ),
      rules.Rule(
        f'{source}{theirs}.weight',
        (*own, second, 'kernel'),
        lambda x, size=size: x[:, size:].T,
      ),
      rules.Rule(f'{source}{theirs}.bias', (*own, second, 'bias'), np.array),
    ]
  for theirs, ours in (('ims', 'prior_out'), ('obs', 'post_out')):
    for kind, leaf in (('weight', 'kernel'), ('bias', 'bias')):
      found.append(
        rules.Rule(
          f'{source}_{theirs}_stat_layer.{kind}', (*own, ours, leaf), paired
        )
      )
  return found


def convert(arrays: Arrays, sizes: Sizes = GOLDEN) -> dict[str, Any]:
  """Puts their arrays, or some of them, where ours are in the tree."""
  known = [
    rule for rule in _rules(small_config(sizes=sizes)) if rule.source in arrays
  ]
  return rules.apply_rules(known, arrays)['params']


def as_ours(row: dict[str, Any], sizes: Sizes = GOLDEN) -> dict[str, Any]:
  """A row of the original; arrays of parameters go where ours are."""
  if not next(iter(row)).startswith(('_wm.', '_task_behavior.')):
    return row
  return convert(row, sizes)


def small_system(depth: int, sizes: Sizes = GOLDEN) -> diswm.DisWM:
  """The system of `small_config`."""
  return registry.build(small_config(depth, sizes), sizes.actions, None).system


def networks(weights: Arrays, inputs: Arrays, sizes: Sizes = GOLDEN) -> Rows:
  """Forward passes, module by module."""
  system, params = small_system(depth(weights), sizes), convert(weights, sizes)

  @jax.jit
  def run(params, x):
    def apply(method):
      return system.model.apply({'params': params}, method=method)

    B, T = x['action'].shape[:2]
    image = images.to_float(x['image'])
    mean, std = apply(lambda m: m.image_encoder(image))
    with contextwm_ours.fed(('normal', x['code_normal'])):
      sample = apply(lambda m: m._code(mean, std, contextwm_ours.keys(B)))

    def dynamics(m):
      post, prior = m.action_dynamics.observe(
        x['code'], x['action'], x['is_first'], x['state_normal']
      )
      start = jax.tree.map(lambda y: y[:, 0], post)
      ahead = m.action_dynamics.imagine(
        start, x['action'][:, 1:], x['state_normal'][:, 1:]
      )
      return post, prior, ahead

    post, prior, ahead = apply(dynamics)
    policy_mean, policy_std = apply(lambda m: m.actor(x['feat']))
    return {
      'VAE encoder': {
        'mean': mean,
        'log-variance': 2.0 * jnp.log(std),
        'sample': sample,
      },
      'VAE decoder': {
        'image': apply(lambda m: m.image_decoder(x['feat']))[PIXELS]
      },
      'RSSM, observe': {
        'deter': post.deter,
        'stoch': post.stoch[..., 0],
        'post mean': post.logits[..., 0],
        'post std': post.logits[..., 1],
        'prior mean': prior.logits[..., 0],
        'prior std': prior.logits[..., 1],
      },
      'RSSM, imagine': {
        'deter': ahead.deter,
        'stoch': ahead.stoch[..., 0],
        'mean': ahead.logits[..., 0],
        'std': ahead.logits[..., 1],
      },
      'heads': {
        'reward': apply(lambda m: m.reward(x['feat'])),
        'value': apply(lambda m: m.critic(x['feat'])),
        'policy mean': policy_mean,
        'policy std': policy_std,
      },
    }

  return run(params, dict(inputs))


def act(weights: Arrays, inputs: Arrays, sizes: Sizes = GOLDEN) -> Rows:
  """Some steps of acting, one environment being reset on the way."""
  system, params = small_system(depth(weights), sizes), convert(weights, sizes)
  B, T = inputs['reset'].shape

  @jax.jit
  def step(carry, obs, code_normal, state_normal):
    with contextwm_ours.fed(('normal', code_normal), ('normal', state_normal)):
      return system.policy_step(
        {'params': params}, carry, obs, contextwm_ours.keys(B), explore=False
      )

  carry, actions = system.initial_carry(B, 0), []
  for t in range(T):
    obs = types.Observation(inputs['image'][:, t], None, inputs['reset'][:, t])
    noise = inputs['code_normal'][:, t], inputs['state_normal'][:, t]
    carry, action = step(carry, obs, *noise)
    actions.append(action)
  return {
    'acting': {
      'actions': jnp.stack(actions, 1),
      'last deter': carry.s.deter,
      'last stoch': carry.s.stoch[..., 0],
    }
  }


def pretrain(weights: Arrays, inputs: Arrays, sizes: Sizes = GOLDEN) -> Rows:
  """The loss of pre-training and its gradients."""
  system = small_system(depth(weights), sizes)
  names = 'teacher', 'image_decoder', 'action_dynamics'
  params = {name: convert(weights, sizes)[name] for name in names}
  batch = types.VideoBatch(inputs['image'], None, inputs['is_first'])

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params, batch, x):
    with contextwm_ours.fed(('normal', x['code_normal'])):
      return system.pretrain_loss(
        params, {}, batch, contextwm_ours.keys(batch.image.shape[0])
      )

  (_, (_, metrics)), gradients = jax.jit(loss)(params, batch, dict(inputs))
  return {
    'pre-training: loss terms': {
      'image': metrics['loss/image_z'],
      'kl': metrics['kl/z'],
      'kl of codes': metrics['loss/code'],
      'total': metrics['loss/total'],
    },
    'pre-training: gradients': gradients,
  }


def finetune(weights: Arrays, inputs: Arrays, sizes: Sizes = GOLDEN) -> Rows:
  """The world model's loss of fine-tuning and its gradients."""
  system, params = small_system(depth(weights), sizes), convert(weights, sizes)
  params = {k: v for k, v in params.items() if k not in contextwm_ours.LEARNER}
  teacher = params.pop('teacher')
  batch = types.ReplayBatch(
    image=inputs['image'],
    motion=None,
    action=inputs['action'],
    reward=inputs['reward'],
    is_first=inputs['is_first'],
    is_last=np.zeros(inputs['is_first'].shape, bool),
    is_terminal=np.zeros(inputs['is_first'].shape, bool),
  )

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params, teacher, batch, x, updates):
    names = 'code_normal', 'state_normal', 'teacher_normal'
    with contextwm_ours.fed(*[('normal', x[name]) for name in names]):
      return system.world_model_loss(
        {**params, 'teacher': teacher},
        {'progress': {'updates': updates}},
        batch,
        contextwm_ours.keys(batch.image.shape[0]),
        None,
      )

  updates = jnp.int32(AGENT_STEP // _train_every())
  (_, out), gradients = jax.jit(loss)(
    params, teacher, batch, dict(inputs), updates
  )
  metrics = out.metrics
  return {
    'fine-tuning: posterior states': {
      'deter': out.s.deter,
      'stoch': out.s.stoch[..., 0],
      'mean': out.s.logits[..., 0],
      'std': out.s.logits[..., 1],
    },
    'fine-tuning: loss terms': {
      'image': metrics['loss/image'],
      'reward': metrics['loss/reward'],
      'kl': metrics['kl/s'],
      'kl of codes': metrics['loss/code'],
      'distillation': metrics['loss/distill'],
      'total': metrics['loss/total'],
    },
    'fine-tuning: gradients': gradients,
  }


def _train_every() -> int:
  return small_config().finetune.train_every


def distill_weights() -> Rows:
  """The weight of distillation after numbers of agent steps."""
  updates, found = np.array(AGENT_STEPS) // _train_every(), {}
  for schedule in ('intended', 'cross_domain', 'released'):
    config = small_config()
    config.diswm.schedule = schedule
    settings = registry.build(config, GOLDEN.actions, None).system.settings
    found[schedule] = diswm.distill_weight(settings, updates)
  return {'weight of distillation': found}


def behavior(
  weights: Arrays,
  slow_critic: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """Losses and gradients of actor and critic on an imagined rollout.

  Of a policy of plain normals, which the original's is, see compare_diswm.py.
  """
  system, params = small_system(depth(weights), sizes), convert(weights, sizes)
  learner = {name: params.pop(name) for name in contextwm_ours.LEARNER}
  slow = convert(slow_critic, sizes)['critic']
  logits = np.stack([inputs['start_mean'], inputs['start_std']], -1)
  start = types.RSSMState(
    inputs['start_deter'], inputs['start_stoch'][..., None], logits
  )
  B = inputs['imagined_action'].shape[0]

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(learner, slow, params, start, x):
    with contextwm_ours.fed(
      ('uniform', x['imagined_action']), ('normal', x['imagined_state'])
    ):
      return system.behavior_loss(
        learner,
        slow,
        params,
        {},
        start,
        np.zeros(start.deter.shape[0], bool),
        contextwm_ours.keys(B),
      )

  with (
    mock.patch.object(
      distributions,
      'truncated_normal_sample',
      lambda mean, std, normal: mean + std * normal,
    ),
    mock.patch.object(
      distributions,
      'truncated_normal_entropy',
      lambda _, std: distributions.normal_entropy(std),
    ),
  ):
    (_, metrics), gradients = jax.jit(loss)(
      learner, slow, params, start, dict(inputs)
    )
  return {
    'actor and critic: losses': {
      name: metrics[name]
      for name in (
        'loss/actor',
        'loss/critic',
        'behavior/entropy',
        'behavior/return',
        'behavior/reward',
        'behavior/value',
      )
    },
    'actor and critic: gradients': gradients,
  }


def optimizer_steps(
  weights: Arrays, theirs: Rows, sizes: Sizes = GOLDEN
) -> Rows:
  """Moves of parameters under the original's gradients, in three steps.

  Args:
    weights: of the agent.
    theirs: rows of the original, of which the gradients are read. They are
      multiplied by GRADIENT_FACTORS in turn.
    sizes: of the comparison.
  """
  config = small_config(depth(weights), sizes)
  return {
    row: _moves(tx, convert(weights, sizes), convert(theirs[gradients], sizes))
    for row, tx, gradients in (
      (
        'optimizer of pre-training',
        optim.pretraining(config),
        'pre-training: gradients',
      ),
      (
        'optimizers of the world model',
        registry.build(config, 2, None).finetuning.model_tx,
        'fine-tuning: gradients',
      ),
      (
        'optimizers of actor and critic',
        registry.build(config, 2, None).finetuning.behavior_tx,
        'actor and critic: gradients',
      ),
    )
  }


def _moves(tx, everything, gradients):
  params = {name: everything[name] for name in gradients}

  @jax.jit
  def step(params, state, gradients, factor):
    scaled = jax.tree.map(lambda g: factor * g, gradients)
    return tx.update(scaled, state, params)

  state, total = tx.init(params), jax.tree.map(np.zeros_like, params)
  for factor in GRADIENT_FACTORS:
    moves, state = step(params, state, gradients, factor)
    params = optax.apply_updates(params, moves)
    total = jax.tree.map(np.add, total, moves)
  return total


@jax.jit
def formulas(x: Arrays) -> Rows:
  """KLs of states and codes, distillation, returns, on given numbers."""
  kl = {}
  for free in (0.0, 100.0):
    loss = functools.partial(
      losses.kl_loss, balance=0.8, free=free, kl=diswm._normals_kl
    )
    value, gradients = jax.value_and_grad(
      lambda y, loss=loss: loss(y[0], y[1])[0]
    )((x['post'], x['prior']))
    kl[f'free {free:g}'] = {
      'loss': value,
      'by post': gradients[0],
      'by prior': gradients[1],
    }
  code, by_code = jax.value_and_grad(
    lambda mean, log_var: diswm._code_kl(
      diswm.networks.Codes(mean, jnp.exp(0.5 * log_var))
    ),
    (0, 1),
  )(x['mean'], x['log_var'])
  distill, by_student = jax.value_and_grad(diswm.distill_loss, 1)(
    x['teacher_code'], x['student_code']
  )
  value = x['some_values']
  return {
    'KL of states': kl,
    'KL of codes': {
      'loss': code,
      'by mean': by_code[0],
      'by log-variance': by_code[1],
    },
    'distillation': {'loss': distill, 'by student': by_student},
    'lambda-returns': {
      'returns': returns.lambda_return(
        x['some_rewards'], value[:-1], value[-1], 0.99, 0.95
      )
    },
  }


def rows(case: dict[str, Any], sizes: Sizes) -> Rows:
  """All rows of a case, as the original filled them in.

  Forward passes and formulas are in float32. Losses, gradients and steps of
  optimizers are in float64.

  Args:
    case: `weights`, `slow_critic`, `inputs` and `numbers` (of formulas); of the
      original `rows` only the gradients are read, which optimizers are given.
    sizes: of the comparison.
  """
  weights, inputs = case['weights'], case['inputs']
  found = {
    **networks(weights, inputs, sizes),
    **act(weights, inputs, sizes),
    **formulas(case['numbers']),
  }
  with contextwm_ours.double():
    exact = contextwm_ours.as_double(case)
    weights, inputs = exact['weights'], exact['inputs']
    return {
      **found,
      **pretrain(weights, inputs, sizes),
      **finetune(weights, inputs, sizes),
      **distill_weights(),
      **behavior(weights, exact['slow_critic'], inputs, sizes),
      **optimizer_steps(weights, exact['rows'], sizes),
    }
