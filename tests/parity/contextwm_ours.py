"""What drp_jax computes on weights, inputs and random numbers of others.

`compare_contextwm.py`, `compare_prelar.py` and the tests that read tests/golden
hand in arrays of the official code of ContextWM, or of its descendant PreLAR,
under its names and in its layout. Results come back as rows of a table, {row:
{name: array}}; what is in the tree of our parameters may have more levels.
"""

import contextlib
import dataclasses
import functools
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any
from unittest import mock

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from configs import finetune_dmcr, finetune_metaworld
from drp_jax import losses, types
from drp_jax.convert import contextwm, prelar
from drp_jax.ops import distributions, images, noise, returns
from drp_jax.systems import imagination, intrinsic, ipv, optim, parts, registry
from tests.parity import arguments

CONTINUATION = '_continuation'  # in the name of a case
LEARNER = 'actor', 'critic'
_SUITES = {
  'ipv': finetune_dmcr,
  'apv': finetune_metaworld,
  'dreamerv2': finetune_dmcr,
  'ipv_continuation': finetune_dmcr,
  'dreamerv2_continuation': finetune_dmcr,
  'prelar': finetune_metaworld,
}
_PREFIXES = {  # of arrays that hold one of our parameter sets
  'wm.heads.reward.': 'reward',
  'wm.heads.aux_reward.': 'aux_reward',
  'wm.heads.discount.': 'continuation',
  '_task_behavior.actor.': 'actor',
  '_task_behavior.critic.': 'critic',
}
# Optimizers are given gradients times these, in turn: first so little that
# weight decay shows, in the end so much that they are clipped.
GRADIENT_FACTORS = 1e-7, 1.0, 1e3
# Of decoded images, every third pixel: all phases of strides, and both edges.
PIXELS = ..., slice(None, None, 3), slice(None, None, 3), slice(None)

Arrays = Mapping[str, np.ndarray]
Rows = dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Sizes(arguments.Sizes):
  """Sizes of ContextWM's systems and of PreLAR.

  Attributes:
    deter: width of an RSSM's deterministic state.
    hidden: width of an RSSM's hidden layers.
    groups: categoricals of a state.
    classes: of each categorical.
    width: of the heads' hidden layers.
    depth: channels of the image networks' first layer. Even, since four
      attention heads divide twice as many.
    latent: numbers in a latent action of PreLAR.
  """

  deter: int = arguments.number(16)
  hidden: int = arguments.number(16)
  groups: int = arguments.number(4)
  classes: int = arguments.number(4, least=2)
  width: int = arguments.number(16)
  depth: int = arguments.number(4, least=2, multiple_of=2)
  latent: int = arguments.number(8)


GOLDEN = Sizes()


def small_config(case: str, sizes: Sizes = GOLDEN) -> ml_collections.ConfigDict:
  """A suite's config, in sizes that take seconds; their heads are four.

  Args:
    case: the system; with '_continuation' it predicts where episodes end.
    sizes: of networks and batches.
  """
  config = _SUITES[case].get_config('debug')
  agent = config.agent = case.removesuffix(CONTINUATION)
  config.behavior.continuation = case != agent
  config.rssm.deter_size, config.rssm.hidden = sizes.deter, sizes.hidden
  config.rssm.groups, config.rssm.classes = sizes.groups, sizes.classes
  config.heads.width, config.behavior.horizon = sizes.width, sizes.horizon
  config.prelar.latent_size = sizes.latent
  config.image.depth, config.image.num_heads = sizes.depth, 4
  if agent == 'dreamerv2':
    config.image.depth //= 2
    config.image.num_heads = 2  # unused, but checked against the depth
  config.image.num_layers = 1 if agent in ('ipv', 'prelar') else 2
  config.image.context_mask_ratio = 0.75  # the original's
  config.heads.depth = 2
  # Not a whole number of batches.
  config.intrinsic.queue_size = sizes.sequences * sizes.steps + 8
  return config


def pretrain_config(
  agent: str, sizes: Sizes = GOLDEN
) -> ml_collections.ConfigDict:
  """`small_config` with the losses of pre-training."""
  config = small_config(agent, sizes)
  config.loss.free_nats = 0.0
  return config


def layout(config: ml_collections.ConfigDict) -> contextwm.Sizes:
  """What the layout of their arrays depends on."""
  return contextwm.Sizes(
    num_layers=config.image.num_layers,
    deter=config.rssm.deter_size,
    stoch=config.rssm.groups * config.rssm.classes,
    has_context=config.agent == 'ipv',
  )


def rules(config: ml_collections.ConfigDict) -> list[contextwm.Rule]:
  """Rules for a whole agent of fine-tuning, the policy's outputs joined.

  That of PreLAR together with what only its pre-training has.
  """
  s, hidden_name, out_name = layout(config), 'dense', 'out.out'
  if config.agent == 'prelar':
    hidden_name, out_name = '_mlp_nn.dense_', '_out_dist._out_nn'
    found, encoder = prelar.pretraining_rules(s), 'wm.action_encoder._encoder.'
    for source, name in ((f'{encoder}0', 'dense0'), (f'{encoder}2', 'out')):
      found += contextwm.dense_rules(source, ('action_encoder', 'mlp', name))
  elif config.agent == 'dreamerv2':
    found = [
      *contextwm.dense_rules(
        'wm.heads.decoder.convin', ('image_decoder', 'dense')
      ),
      *contextwm.rssm_rules('wm.rssm.', 'action_dynamics', s, side=2),
    ]
    for source, name, convert in (
      ('wm.encoder.', 'image_encoder', contextwm.conv),
      ('wm.heads.decoder.', 'image_decoder', contextwm.conv_up),
    ):
      for i in range(4):
        own = 'params', name, f'conv{i}'
        found += [
          contextwm.Rule(f'{source}conv{i}.weight', (*own, 'kernel'), convert),
          contextwm.Rule(f'{source}conv{i}.bias', (*own, 'bias'), np.array),
        ]
  else:
    found = [
      dataclasses.replace(
        rule, source=rule.source.replace('wm.rssm.', 'wm.af_rssm.')
      )
      for rule in contextwm.world_model_rules(s)
    ]
    feat = s.stoch + s.deter
    found += contextwm.rssm_rules('wm.rssm.', 'action_dynamics', s, feat)
  for prefix, name in _PREFIXES.items():
    if name == 'aux_reward' and config.agent not in ('ipv', 'prelar'):
      continue
    if name == 'continuation' and not config.behavior.continuation:
      continue
    for i in range(config.heads.depth):
      path = name, 'mlp', f'dense{i}'
      found += contextwm.dense_rules(f'{prefix}{hidden_name}{i}', path)
    found += contextwm.dense_rules(f'{prefix}{out_name}', (name, 'mlp', 'out'))
  return found


def variables(
  config: ml_collections.ConfigDict, arrays: Arrays
) -> dict[str, Any]:
  """Converts a whole agent: {'params', 'batch_stats'}."""
  return contextwm.apply_rules(rules(config), _joined(arrays))


def some_variables(
  config: ml_collections.ConfigDict, arrays: Arrays
) -> dict[str, Any]:
  """Converts some arrays of an agent, such as the gradients of one loss."""
  arrays = _joined(arrays)
  known = [rule for rule in rules(config) if rule.source in arrays]
  return contextwm.apply_rules(known, arrays)


def _joined(arrays: Arrays) -> dict[str, np.ndarray]:
  arrays, actor = dict(arrays), '_task_behavior.actor.'
  for mean, std in (
    ('out.out', 'out.std'),
    ('_out_dist._out_nn', '_out_dist._std_nn'),
  ):
    for kind in ('weight', 'bias'):
      raw_std = arrays.pop(f'{actor}{std}.{kind}', None)
      if raw_std is not None:
        name = f'{actor}{mean}.{kind}'
        arrays[name] = np.concatenate([arrays[name], raw_std])
  return arrays


@contextlib.contextmanager
def fed(*numbers: tuple[str, jax.Array]):
  """Makes `ops.noise` hand out given numbers instead of drawing its own.

  Args:
    numbers: (kind, [B, ...]) with a kind of 'gumbel', 'uniform', 'normal',
      'keep' (of dropout) or 'index'. Of those of one kind and shape, the first
      given is the first handed out. All have to be taken.
  """
  left = list(numbers)
  kinds = {
    jax.random.gumbel: 'gumbel',
    jax.random.uniform: 'uniform',
    jax.random.normal: 'normal',
  }

  def take(kind, shape):
    for i, (its_kind, array) in enumerate(left):
      if its_kind == kind and array.shape[1:] == tuple(shape):
        return left.pop(i)[1]
    raise AssertionError(f'No {kind} {shape} among the numbers fed.')

  def draw(keys, sampler, shape):
    del keys
    return take(kinds.get(sampler, 'index'), shape)

  def keep_mask(keys, shape, rate):
    del keys, rate
    return take('keep', shape)

  with (
    mock.patch.object(noise, 'draw', draw),
    mock.patch.object(noise, 'keep_mask', keep_mask),
  ):
    yield
  assert not left, [(kind, array.shape) for kind, array in left]


@contextlib.contextmanager
def double():
  """Computes in float64, also where drp_jax asks for float32.

  For what is traced inside; its inputs have to be `as_double`.
  """
  with (
    jax.enable_x64(True),
    mock.patch.object(jnp, 'float32', jnp.float64),
    mock.patch.dict(parts.DTYPES, float32=jnp.float64),
  ):
    yield


def as_double(tree: Any) -> Any:
  """Arrays of float32 as float64, others as they are."""
  return jax.tree.map(
    lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, tree
  )


def keys(count: int) -> jax.Array:
  """Keys [count] that are not used where numbers are fed."""
  return noise.example_keys(jax.random.key(0), 0, count)


def terminal(inputs: Arrays) -> np.ndarray:
  """Where episodes terminate, [B, T] bool; nowhere in cases without."""
  return inputs.get('is_terminal', np.zeros(inputs['is_first'].shape, bool))


def training_numbers(
  config: ml_collections.ConfigDict, inputs: Arrays
) -> list[tuple[str, jax.Array]]:
  """What the forward pass of training draws, but samples of states."""
  if config.agent != 'ipv':
    return []
  stages = range(2)
  return [
    ('index', inputs['context_index']),
    *[('uniform', inputs[f'token_scores{i}']) for i in stages],
    *[('keep', inputs[f'kept_weights{i}']) for i in stages],
    *[('keep', inputs[f'kept_outputs{i}']) for i in stages],
  ]


def pretrain(
  agent: str,
  arrays: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """The loss of pre-training, its gradients, and its optimizer."""
  config = pretrain_config(agent, sizes)
  system = registry.build(config, sizes.actions, None).system
  everything = variables(config, arrays)
  names = system.pretrained
  if agent == 'prelar':
    names = (*names, 'inverse_dynamics')
  params = {name: everything['params'][name] for name in names}
  statistics = {'batch_stats': everything['batch_stats']}

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params, statistics, inputs):
    numbers = training_numbers(config, inputs)
    if agent == 'prelar':
      order = jnp.argsort(inputs['order']).astype(jnp.float32)
      numbers = [('normal', inputs['latent_normal']), ('uniform', order)]
    batch = types.VideoBatch(inputs['image'], None, inputs['is_first'])
    with fed(('gumbel', inputs['gumbel_z']), *numbers):
      return system.pretrain_loss(
        params, statistics, batch, keys(batch.image.shape[0])
      )

  (_, (collections, metrics)), gradients = jax.jit(loss)(
    params, statistics, dict(inputs)
  )
  terms = {
    'image': metrics['loss/image_z'],
    'kl': metrics['loss/kl_z'],
    'total': metrics['loss/total'],
    'prior entropy': metrics['entropy/z_prior'],
    'posterior entropy': metrics['entropy/z_post'],
  }
  if agent == 'prelar':
    terms['kl of latent actions'] = metrics['loss/latent_action']
    terms['consistency'] = metrics['loss/consistency']
  return {
    'pre-training: loss terms': terms,
    'pre-training: gradients': gradients,
    'batch statistics after a step': collections['batch_stats'],
  }


def finetune(
  agent: str,
  arrays: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """The world model's loss of fine-tuning and its gradients."""
  config = small_config(agent, sizes)
  system = registry.build(config, sizes.actions, None).system
  everything = variables(config, arrays)
  params = {
    name: tree
    for name, tree in everything['params'].items()
    if name not in (*LEARNER, 'inverse_dynamics')
  }
  collections = {k: v for k, v in everything.items() if k != 'params'}
  gumbels = ['gumbel_s']
  if system.bonus_size and agent != 'prelar':
    gumbels = ['gumbel_z', 'gumbel_s']

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params, collections, inputs):
    batch = types.ReplayBatch(
      image=inputs['image'],
      motion=None,
      action=inputs['action'],
      reward=inputs['reward'],
      is_first=inputs['is_first'],
      is_last=np.zeros(inputs['is_first'].shape, bool),
      is_terminal=terminal(inputs),
    )
    bonus_fn = None
    if system.bonus_size:
      bonus_fn = functools.partial(
        intrinsic.bonus,
        _empty_queue(config, inputs['projection']),
        settings=registry.build(config, 1, None).finetuning.bonus,
        axis_name=None,
      )
    with fed(
      *[('gumbel', inputs[name]) for name in gumbels],
      *training_numbers(config, inputs),
    ):
      return system.world_model_loss(
        params, collections, batch, keys(batch.image.shape[0]), bonus_fn
      )

  (_, out), gradients = jax.jit(loss)(params, collections, dict(inputs))
  terms = {
    'image': out.metrics['loss/image'],
    'kl': out.metrics['loss/kl_s'],
    'reward': out.metrics['loss/reward'],
    'total': out.metrics['loss/total'],
  }
  for name in ('aux_reward', 'continuation'):
    if f'loss/{name}' in out.metrics:
      terms[name] = out.metrics[f'loss/{name}']
  return {
    'fine-tuning: posterior states': {
      'deter': out.s.deter,
      'stoch': out.s.stoch,
      'logits': out.s.logits,
    },
    'fine-tuning: loss terms': terms,
    'fine-tuning: gradients': gradients,
  }


def behavior(
  agent: str,
  arrays: Arrays,
  slow_critic: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """Losses and gradients of actor and critic on an imagined rollout."""
  config = small_config(agent, sizes)
  system = registry.build(config, sizes.actions, None).system
  everything = variables(config, arrays)
  params = dict(everything['params'])
  learner = {name: params.pop(name) for name in LEARNER}
  slow = some_variables(config, slow_critic)['params']['critic']
  start = types.RSSMState(
    *[inputs[f'start_{name}'] for name in ('deter', 'stoch', 'logits')]
  )
  B = inputs['imagined_uniform'].shape[0]

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(learner, inputs, slow, params, start):
    with fed(
      ('uniform', inputs['imagined_uniform']),
      ('gumbel', inputs['imagined_gumbel']),
    ):
      return system.behavior_loss(
        learner,
        slow,
        params,
        {},
        start,
        terminal(inputs).reshape(-1),
        keys(B),
      )

  (_, metrics), gradients = jax.jit(loss)(learner, inputs, slow, params, start)
  names = [
    'loss/actor',
    'loss/critic',
    'behavior/entropy',
    'behavior/return',
    'behavior/value',
  ]
  if config.behavior.continuation:
    names.append('behavior/discount')
  return {
    'actor and critic: losses': {name: metrics[name] for name in names},
    'actor and critic: gradients': gradients,
  }


def discounts(
  agent: str,
  arrays: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """Discounts, weights and returns of a rollout whose features are given."""
  config = small_config(agent, sizes)
  system = registry.build(config, sizes.actions, None).system
  everything = variables(config, arrays)

  def head(feat):
    logit = system.model.apply(
      everything, method=lambda m: m.continuation(feat)
    )
    return jax.nn.sigmoid(logit)

  fns = imagination.Functions(None, None, None, None, head)
  feats, values = inputs['rollout_feat'], inputs['rollout_value']
  discount, weight = imagination.discounts(
    fns, jnp.asarray(feats), terminal(inputs).reshape(-1), system.behavior
  )
  ret = returns.lambda_return(
    inputs['rollout_reward'],
    values[:-1],
    values[-1],
    discount,
    system.behavior.lam,
  )
  return {
    'continuation: a rollout': {
      'discounts': discount,
      'weights': weight,
      'returns': ret,
    }
  }


def continuation(agent: str, case: dict[str, Any]) -> Rows:
  """The rows in which a head of continuation takes part."""
  weights, inputs = case['weights'], case['inputs']
  return {
    **finetune(agent, weights, inputs),
    **behavior(agent, weights, case['slow_critic'], inputs),
    **discounts(agent, weights, inputs),
  }


def optimizer_steps(
  agent: str,
  arrays: Arrays,
  theirs: Rows,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """How parameters move under the original's gradients, in three steps.

  Args:
    agent: the system.
    arrays: of the agent.
    theirs: rows of the original, of which the gradients are read. They are
      multiplied by GRADIENT_FACTORS in turn. Steps in which an encoder has to
      wait come on top.
    sizes: of the comparison.
  """
  config = small_config(agent, sizes)
  frozen = config.optim.encoder_frozen_updates
  rows = {
    'optimizers of the world model': _moves(
      config,
      registry.build(config, 2, None).finetuning.model_tx,
      arrays,
      theirs['fine-tuning: gradients'],
      frozen + len(GRADIENT_FACTORS),
    ),
    'optimizers of actor and critic': _moves(
      config,
      registry.build(config, 2, None).finetuning.behavior_tx,
      arrays,
      theirs['actor and critic: gradients'],
      len(GRADIENT_FACTORS),
    ),
  }
  if agent != 'dreamerv2':
    rows['optimizer of pre-training'] = _moves(
      config,
      optim.pretraining(config),
      arrays,
      theirs['pre-training: gradients'],
      len(GRADIENT_FACTORS),
    )
  return rows


def _moves(config, tx, arrays, gradients, updates):
  gradients = some_variables(config, gradients)['params']
  everything = variables(config, arrays)['params']

  def long(tree):
    """One long array for each parameter set, which compiles faster."""
    return {
      name: np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(own)])
      for name, own in tree.items()
    }

  def short(vector, like):
    leaves, structure = jax.tree.flatten(like)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = np.split(np.asarray(vector), ends[:-1])
    pairs = zip(parts, leaves, strict=True)
    return structure.unflatten([x.reshape(y.shape) for x, y in pairs])

  slopes = long(gradients)
  start = long({name: everything[name] for name in gradients})

  @jax.jit
  def step(carry, factor):
    params, state, total = carry
    scaled = jax.tree.map(lambda g: factor * g, slopes)
    moves, state = tx.update(scaled, state, params)
    total = jax.tree.map(jnp.add, total, moves)
    return optax.apply_updates(params, moves), state, total

  carry = start, tx.init(start), jax.tree.map(jnp.zeros_like, start)
  for i in range(updates):
    carry = step(carry, GRADIENT_FACTORS[i % len(GRADIENT_FACTORS)])
  return {name: short(carry[2][name], own) for name, own in gradients.items()}


def networks(
  agent: str,
  arrays: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """Forward passes in evaluation, module by module."""
  config = small_config(agent, sizes)
  model = registry.build(config, sizes.actions, None).system.model
  config.image.context_mask_ratio = 0.0
  unmasked = registry.build(config, sizes.actions, None).system.model
  everything = variables(config, arrays)

  def apply(method, *args, model=model):
    return model.apply(everything, *args, method=method)

  def run(inputs):
    image, feat = images.to_float(inputs['image']), inputs['feat']
    if agent == 'dreamerv2':
      decoded = apply(lambda m: m.image_decoder(feat))
      return {
        'image encoder': {'embedding': apply('encode', image)},
        'image decoder': {'image': decoded[PIXELS]},
      }
    rows = {'image encoder': {'embedding': apply('encode', image, False)}}
    if agent == 'prelar':
      return rows | _latent_actions(apply, image, inputs)
    B, T = image.shape[:2]

    def decode(m, context):
      with fed(*([] if context is None else scores)):
        return m.image_decoder(feat, context, keys(B), False)[PIXELS]

    if agent == 'ipv':
      frame = image[jnp.arange(B), inputs['context_index']]
      context = apply('context', frame, False)
      scores = [('uniform', inputs[f'token_scores{i}']) for i in range(2)]
      quarter = apply(decode, context)
      whole = apply(decode, context, model=unmasked)
      rows |= {
        'context maps': {'8x8': context.coarse, '16x16': context.fine},
        'image decoder, 1/4 of the context': {'image': quarter},
        'image decoder, whole context': {'image': whole},
      }
    else:
      rows['image decoder'] = {'image': apply(decode, None)}
    return rows | _dynamics(apply, inputs)

  return jax.jit(run)(inputs)


def _latent_actions(apply, image, inputs) -> Rows:
  """What PreLAR has: decoder, latent actions, and dynamics driven by them."""
  latent = apply(lambda m: m.inverse_dynamics(image, None, False))

  def dynamics(m):
    post, prior = m.latent_dynamics.observe(
      inputs['embed'],
      inputs['latent'],
      inputs['is_first'],
      inputs['gumbel_z'],
    )
    start = jax.tree.map(lambda x: x[:, 0], post)
    ahead = m.latent_dynamics.imagine(
      start, inputs['latent'][:, 1:], inputs['gumbel_z'][:, 1:]
    )
    return post, prior, ahead

  post, prior, ahead = apply(dynamics)
  return {
    'image decoder': {
      'image': apply(lambda m: m.decode(inputs['feat'], False)[PIXELS])
    },
    'inverse dynamics': {'mean': latent.mean, 'std': latent.std},
    'action encoder': {
      'latent action': apply(lambda m: m.action_encoder(inputs['action']))
    },
    'RSSM, observe': {
      'deter': post.deter,
      'stoch': post.stoch,
      'post logits': post.logits,
      'prior logits': prior.logits,
    },
    'RSSM, imagine': {
      'deter': ahead.deter,
      'stoch': ahead.stoch,
      'logits': ahead.logits,
    },
  }


def _dynamics(apply, inputs) -> Rows:
  """Both dynamics models, observing and then imagining."""
  rows, is_first = {}, inputs['is_first']
  no_action = jnp.zeros((*is_first.shape, ipv.ACTION_SLOT))
  for name, action, observed, gumbel in (
    ('latent', no_action, inputs['embed'], inputs['gumbel_z']),
    ('action', inputs['action'], inputs['observed'], inputs['gumbel_s']),
  ):

    def both(m, name=name, action=action, observed=observed, gumbel=gumbel):
      dynamics = getattr(m, f'{name}_dynamics')
      post, prior = dynamics.observe(observed, action, is_first, gumbel)
      start = jax.tree.map(lambda x: x[:, 0], post)
      ahead = dynamics.imagine(start, action[:, 1:], gumbel[:, 1:])
      return post, prior, ahead

    post, prior, ahead = apply(both)
    rows[f'{name} RSSM, observe'] = {
      'deter': post.deter,
      'stoch': post.stoch,
      'post logits': post.logits,
      'prior logits': prior.logits,
    }
    rows[f'{name} RSSM, imagine'] = {
      'deter': ahead.deter,
      'stoch': ahead.stoch,
      'logits': ahead.logits,
    }
  return rows


def act(
  agent: str,
  arrays: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """Some steps of acting, one environment being reset on the way."""
  config = small_config(agent, sizes)
  system = registry.build(config, sizes.actions, None).system
  everything = variables(config, arrays)
  B, T = inputs['image'].shape[:2]

  @jax.jit
  def step(carry, obs, gumbels):
    with fed(*[('gumbel', x) for x in gumbels]):
      return system.policy_step(everything, carry, obs, keys(B), False)

  carry, actions = system.initial_carry(B, 0), []
  names = 'gumbel_z', 'gumbel_s'
  if agent in ('dreamerv2', 'prelar'):
    names = ('gumbel_s',)
  for t in range(T):
    obs = types.Observation(
      inputs['image'][:, t], None, inputs['is_first'][:, t]
    )
    gumbels = [inputs[name][:, t] for name in names]
    carry, action = step(carry, obs, gumbels)
    actions.append(action)
  return {
    'acting': {
      'actions': jnp.stack(actions, 1),
      'last deter': carry.s.deter,
      'last stoch': carry.s.stoch,
    }
  }


@functools.partial(jax.jit, static_argnums=1)
def formulas(inputs: Arrays, sizes: Sizes = GOLDEN) -> Rows:
  """KL, returns, distributions and the intrinsic bonus on given numbers."""
  post, prior = inputs['post_logits'], inputs['prior_logits']
  kl = {}
  for free in (0.0, 100.0):
    loss = functools.partial(losses.kl_loss, balance=0.8, free=free)
    value, gradients = jax.value_and_grad(
      lambda x, loss=loss: loss(x[0], x[1])[0]
    )((post, prior))
    kl[f'free {free:g}'] = {
      'loss': value,
      'by post': gradients[0],
      'by prior': gradients[1],
    }

  config = small_config('ipv', sizes)
  state, bonus = _empty_queue(config, inputs['projection']), {}
  for i, feat in enumerate(inputs['bonus_feat']):
    bonus[f'batch {i}'], state = intrinsic.bonus(
      state,
      feat,
      np.zeros(feat.shape[:2], bool),
      registry.build(config, 1, None).finetuning.bonus,
      None,
    )
  return {
    'KL with balance': kl,
    'lambda-returns': {
      'returns': returns.lambda_return(
        inputs['imagined_reward'],
        inputs['imagined_value'][:-1],
        inputs['imagined_value'][-1],
        config.behavior.discount,
        config.behavior.lam,
      )
    },
    **truncated_normal(inputs),
    'intrinsic bonus, three batches': bonus,
    'random erasing': {
      'image': _erase(inputs['erased_image'], inputs['erase'])
    },
  }


@jax.jit
def truncated_normal(inputs: Arrays) -> Rows:
  """Samples, log-probabilities and entropies, with their gradients."""
  mean, std = inputs['mean'], inputs['std']

  def sample(x):
    drawn = distributions.truncated_normal_sample(*x, inputs['uniform'])
    return drawn.sum(), drawn

  def log_prob(x):
    found = distributions.truncated_normal_log_prob(*x, inputs['taken'])
    return found.sum(), found

  def entropy(x):
    found = distributions.truncated_normal_entropy(*x)
    return found.sum(), found

  truncated = {}
  for name, function in (
    ('samples', sample),
    ('log-probabilities', log_prob),
    ('entropies', entropy),
  ):
    gradients, value = jax.grad(function, has_aux=True)((mean, std))
    truncated[f'truncated normal: {name}'] = {
      'value': value,
      'by mean': gradients[0],
      'by std': gradients[1],
    }
  return truncated


def rows(agent: str, case: dict[str, Any], sizes: Sizes) -> Rows:
  """All rows of a case, as the original filled them in.

  Forward passes are in float32. Losses, gradients and steps of optimizers are
  in float64: in float32, a ReLU may fall to the other side.

  Args:
    agent: the system, with '_continuation' if it has that head.
    case: `inputs`, `weights` and `slow_critic`; of the original `rows` only the
      gradients are read, which optimizers are given.
    sizes: of the comparison.
  """
  weights, inputs = case['weights'], case['inputs']
  if agent.endswith(CONTINUATION):
    found = discounts(agent, weights, inputs, sizes)
  else:
    found = networks(agent, weights, inputs, sizes)
    found |= act(agent, weights, inputs, sizes)
  with double():
    exact = as_double(case)
    weights, inputs = exact['weights'], exact['inputs']
    found |= finetune(agent, weights, inputs, sizes)
    found |= behavior(agent, weights, exact['slow_critic'], inputs, sizes)
    if agent.endswith(CONTINUATION):
      return found
    found |= optimizer_steps(agent, weights, exact['rows'], sizes)
    if agent != 'dreamerv2':
      found |= pretrain(agent, weights, inputs, sizes)
  return found


def as_ours(
  agent: str,
  row: dict[str, Any],
  sizes: Sizes = GOLDEN,
) -> dict[str, Any]:
  """A row of the original; arrays of parameters go where ours are."""
  if not next(iter(row)).startswith(('wm.', '_task_behavior.')):
    return row
  (found,) = some_variables(small_config(agent, sizes), row).values()
  return found


def pack(case: dict[str, Any]) -> Arrays:
  """Turns a case into a few long arrays, one of each type, and an index."""
  flat = {
    path: np.asarray(leaf)
    for path, leaf in flax.traverse_util.flatten_dict(case).items()
  }
  index = [[path, x.dtype.name, x.shape] for path, x in flat.items()]
  packed = {'index': np.array(json.dumps(index))}
  for dtype in sorted({x.dtype.name for x in flat.values()}):
    own = [x.ravel() for x in flat.values() if x.dtype.name == dtype]
    packed[dtype] = np.concatenate(own)
  return packed


def unpack(packed: Arrays) -> dict[str, Any]:
  """Inverse of `pack`."""
  places, flat = dict.fromkeys(packed, 0), {}
  for path, dtype, shape in json.loads(packed['index'].item()):
    start, size = places[dtype], math.prod(shape)
    flat[tuple(path)] = packed[dtype][start : start + size].reshape(shape)
    places[dtype] += size
  return flax.traverse_util.unflatten_dict(flat)


def _erase(image, numbers):
  with fed(('uniform', numbers)):
    return images.random_erasing(image, keys(image.shape[0]))


def _empty_queue(config, projection):
  settings = registry.build(config, 1, None).finetuning.bonus
  state = intrinsic.init(jax.random.key(0), projection.shape[0], settings)
  return state.replace(matrix=jnp.asarray(projection))


def differences(found: Any, expected: Any) -> Iterable[tuple[str, float]]:
  """Largest difference of every array, relative to its largest value.

  Args:
    found: ours.
    expected: theirs, the same tree or a part of it. The bias of an attention's
      keys cannot change a softmax: what gradient it has is rounding, and
      measured by that of its values' bias.

  Yields:
    Name and difference.
  """
  found, expected = (
    {
      '/'.join(key.key for key in path): np.asarray(leaf)
      for path, leaf in jax.tree.leaves_with_path(tree)
    }
    for tree in (found, expected)
  )
  assert found.keys() >= expected.keys(), expected.keys() - found.keys()
  for name, theirs in expected.items():
    assert found[name].shape == theirs.shape, (name, found[name].shape)
    scale = np.abs(expected[name.replace('key/bias', 'value/bias')]).max()
    difference = np.abs(found[name] - theirs).max()
    yield name, float(difference / max(scale, 1e-30))
