"""What drp_jax's DreamerV3 computes on weights, inputs and noise of others.

`compare_dreamerv3.py` and tests/golden_dreamerv3_test.py hand in arrays of the
official code, under its names. Results come back as rows of a table, {row:
{name: array}}; what is in the tree of our parameters may have more levels.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any
from unittest import mock

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from configs import finetune_dmcr
from drp_jax import types
from drp_jax.ops import distributions, images, noise, two_hot
from drp_jax.systems import registry
from drp_jax.systems.dreamerv3 import dreamerv3, returns
from tests.parity import arguments, contextwm_ours

# The optimizer is given gradients times these, in turn: so much that some are
# clipped, and so little that none is.
GRADIENT_FACTORS = 1e2, 1e-3, 1.0
# Of decoded images, every third pixel: all phases of doubling, and both edges.
PIXELS = ..., slice(None, None, 3), slice(None, None, 3), slice(None)

Arrays = Mapping[str, np.ndarray]
Rows = dict[str, dict[str, Any]]

_HEADS = {'rew': 'reward', 'con': 'cont', 'pol': 'actor', 'val': 'critic'}
_HIDDEN = {  # a dense layer and the norm after it -> where ours are
  'dyn/dynin0': 'action_dynamics/gru/deter_in',
  'dyn/dynin1': 'action_dynamics/gru/stoch_in',
  'dyn/dynin2': 'action_dynamics/gru/action_in',
  'dyn/prior0': 'action_dynamics/prior/hidden0',
  'dyn/prior1': 'action_dynamics/prior/hidden1',
  'dyn/obs0': 'action_dynamics/post/hidden0',
  'dec/sp1': 'image_decoder/stoch_in',
}
_ALONE = {  # other layers
  'dyn/dynhid0': 'action_dynamics/gru/hidden',
  'dyn/dynhid0norm': 'action_dynamics/gru/norm',
  'dyn/dyngru': 'action_dynamics/gru/gates',
  'dyn/priorlogit': 'action_dynamics/prior_out',
  'dyn/obslogit': 'action_dynamics/post_out',
  'dec/sp0': 'image_decoder/deter_in',
  'dec/sp2': 'image_decoder/stoch_out',
  'dec/spnorm': 'image_decoder/norm_in',
  'dec/imgout': 'image_decoder/out',
  'rew/head/logits': 'reward/out',
  'con/head/logit': 'cont/out',
  'pol/head/action/mean': 'actor/mean',
  'pol/head/action/stddev': 'actor/std',
  'val/head/logits': 'critic/out',
}


@dataclasses.dataclass(frozen=True)
class Sizes(arguments.Sizes):
  """Sizes of DreamerV3; its networks are of our size 'debug'."""

  steps: int = arguments.number(4, least=4)


GOLDEN = Sizes()


def small_config(sizes: Sizes = GOLDEN) -> ml_collections.ConfigDict:
  """The debug preset, warmed up within the steps that are compared."""
  config = finetune_dmcr.get_config('debug')
  config.behavior.horizon = sizes.horizon
  config.agent = 'dreamerv3'
  config.dreamerv3.warmup = 2
  return config


def layers() -> dict[str, str]:
  """Paths of all layers: theirs -> ours."""
  found = dict(_ALONE)
  for theirs, ours in _HIDDEN.items():
    found |= {theirs: f'{ours}/dense', f'{theirs}norm': f'{ours}/norm'}
  for i in range(4):
    found[f'enc/cnn{i}'] = f'image_encoder/conv{i}'
    found[f'enc/cnn{i}norm'] = f'image_encoder/norm{i}'
  for i in range(3):
    found[f'dec/conv{i}'] = f'image_decoder/conv{i}'
    found[f'dec/conv{i}norm'] = f'image_decoder/norm{i}'
  for theirs, ours in _HEADS.items():
    for i in range(3 if theirs in ('pol', 'val') else 1):
      own = f'{ours}/mlp/hidden{i}'
      found[f'{theirs}/mlp/linear{i}'] = f'{own}/dense'
      found[f'{theirs}/mlp/norm{i}'] = f'{own}/norm'
  return found


def convert(arrays: Arrays) -> dict[str, Any]:
  """Puts their arrays, or some of them, where ours are in the tree.

  Features are the recurrent state and the sample there, the reverse here.
  """
  deter, places, flat = (
    small_system().model.action_dynamics.deter_size,
    layers(),
    {},
  )
  for name, x in arrays.items():
    layer, kind = name.rsplit('/', 1)
    if layer.endswith('/mlp/linear0') and kind == 'kernel':
      x = np.concatenate([x[deter:], x[:deter]])
    flat[f'{places[layer]}/{kind}'] = x
  return flax.traverse_util.unflatten_dict(flat, sep='/')


def as_ours(row: Mapping[str, Any]) -> dict[str, Any]:
  """A row of the original; arrays of parameters go where ours are."""
  if next(iter(row)).rsplit('/', 1)[0] in layers():
    return convert(row)
  return dict(row)


@contextlib.contextmanager
def fed(**numbers: list[jax.Array]):
  """Makes `noise.draw` hand out given numbers instead of drawing its own.

  Args:
    **numbers: of samplers of `jax.random`, by name, what each call returns. All
      have to be taken.
  """
  left = {name: list(arrays) for name, arrays in numbers.items()}

  def draw(keys, sampler, shape):
    del keys
    x = left[sampler.__name__].pop(0)
    assert x.shape[1:] == tuple(shape), (x.shape, shape)
    return x

  with mock.patch.object(noise, 'draw', draw):
    yield
  assert not any(left.values()), left


def small_system(sizes: Sizes = GOLDEN) -> dreamerv3.DreamerV3:
  """The system of `small_config`."""
  return registry.build(small_config(sizes), sizes.actions, None).system


def _keys(count: int) -> jax.Array:
  """Keys [count] that are not used where numbers are fed."""
  return noise.example_keys(jax.random.key(0), 0, count)


def networks(weights: Arrays, inputs: Arrays, sizes: Sizes = GOLDEN) -> Rows:
  """Forward passes, module by module."""
  model = small_system(sizes).model

  def run(params, x):
    def apply(method):
      return model.apply({'params': params}, method=method)

    def flat(stoch):
      return stoch.reshape(*stoch.shape[:-2], -1)

    deter, stoch, action = x['deter'], x['stoch'], x['wide_action']
    feat = jnp.concatenate([flat(stoch), deter], -1)
    core = apply(lambda m: m.action_dynamics.gru(deter, flat(stoch), action))
    post, prior = apply(
      lambda m: m.action_dynamics.observe(
        x['embed'], x['action'], x['is_first'], x['gumbel']
      )
    )
    start = types.RSSMState(deter, stoch, jnp.zeros_like(stoch))
    ahead = apply(
      lambda m: m.action_dynamics.img_step(start, action, x['gumbel'][0, :4])
    )
    mean, std = apply(lambda m: m.actor(feat))
    image = images.to_float(x['image'])
    return {
      'image encoder': {'embedding': apply(lambda m: m.encode(image))},
      'image decoder': {
        'image': apply(lambda m: m.image_decoder(deter, stoch))[PIXELS]
      },
      'block GRU': {'deter': core},
      'RSSM, observe': {
        'deter': post.deter,
        'stoch': post.stoch,
        'post logits': post.logits,
        'prior logits': prior.logits,
      },
      'RSSM, a step ahead': {
        'deter': ahead.deter,
        'stoch': ahead.stoch,
        'logits': ahead.logits,
      },
      'heads': {
        'reward': two_hot.mean(apply(lambda m: m.reward(feat))),
        'value': two_hot.mean(apply(lambda m: m.critic(feat))),
        'going on': jax.nn.sigmoid(apply(lambda m: m.cont(feat))),
        'policy mean': mean,
        'policy std': std,
        'policy log-probability': distributions.normal_log_prob(
          mean, std, action
        ),
        'policy entropy': distributions.normal_entropy(std),
      },
    }

  return jax.jit(run)(convert(weights), dict(inputs))


def act(weights: Arrays, inputs: Arrays, sizes: Sizes = GOLDEN) -> Rows:
  """Some steps of acting, one environment being reset on the way."""
  system, params = small_system(sizes), convert(weights)
  B, T = inputs['is_first'].shape

  @jax.jit
  def step(carry, obs, gumbel, normal_noise):
    with fed(gumbel=[gumbel], normal=[normal_noise]):
      return system.policy_step(
        {'params': params}, carry, obs, _keys(B), explore=True
      )

  carry, actions = system.initial_carry(B, 0), []
  for t in range(T):
    obs = types.Observation(
      inputs['image'][:, t], None, inputs['is_first'][:, t]
    )
    carry, action = step(
      carry, obs, inputs['gumbel'][:, t], inputs['acting_normal'][:, t]
    )
    actions.append(action)
  return {
    'acting': {
      'actions': jnp.stack(actions, 1),
      'last deter': carry.s.deter,
      'last stoch': carry.s.stoch,
    }
  }


def losses(
  weights: Arrays,
  slow_critic: Arrays,
  inputs: Arrays,
  sizes: Sizes = GOLDEN,
) -> Rows:
  """The joint loss, term by term, and gradients of all parameters."""
  system = small_system(sizes)
  names = 'image', 'action', 'reward', 'is_first', 'is_last', 'is_terminal'
  batch = types.ReplayBatch(motion=None, **{k: inputs[k] for k in names})
  slow = convert(slow_critic)['critic']
  collections = {
    'return_range': {
      'low': inputs['range'][0],
      'high': inputs['range'][1],
    }
  }

  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(params, slow, batch, x):
    with fed(
      gumbel=[x['gumbel'], x['imagined_gumbel']], normal=[x['imagined_normal']]
    ):
      return system.joint_loss(
        params, slow, collections, batch, _keys(batch.image.shape[0])
      )

  (_, (after, metrics)), gradients = jax.jit(loss)(
    convert(weights), slow, batch, dict(inputs)
  )
  terms = {
    name.removeprefix('loss/'): value
    for name, value in metrics.items()
    if name.startswith('loss/')
  }
  return {
    'loss terms': terms,
    'range of returns after the step': after['return_range'],
    'gradients': gradients,
  }


def optimizer_steps(weights: Arrays, gradients: Arrays) -> Rows:
  """Moves of parameters under the original's gradients, step after step."""
  config, moves = small_config(), []
  params = convert({name: weights[name] for name in gradients})
  gradients = convert(gradients)
  tx = registry.build(config, 2, None).finetuning.model_tx
  step = jax.jit(tx.update)
  state = tx.init(params)
  for factor in GRADIENT_FACTORS:
    scaled = jax.tree.map(lambda g, factor=factor: factor * g, gradients)
    updates, state = step(scaled, state, params)
    params = optax.apply_updates(params, updates)
    moves.append(updates)
  total = jax.tree.map(lambda *xs: sum(xs), *moves)
  return {'clipping and LaProp, three steps': total}


@jax.jit
def formulas(x: Arrays) -> Rows:
  """Two-hot, KL with unimix, both returns, their range, the slow critic."""

  def from_logits(function):
    gradient, value = jax.grad(
      lambda logits: (function(logits).sum(), function(logits)), has_aux=True
    )(x['bin_logits'])
    return {'value': value, 'by logits': gradient}

  def kl(post, prior):
    mixed = (distributions.mix_uniform(y, 0.01) for y in (post, prior))
    return distributions.categorical_kl(*mixed)

  by_post, by_prior = jax.grad(lambda *y: kl(*y).sum(), (0, 1))(
    x['post_logits'], x['prior_logits']
  )
  c, lam = small_config().dreamerv3, small_config().behavior.lam
  replayed_live = c.discount * (1.0 - x['terminal'].astype(jnp.float32))
  range_, ranges = returns.initial_range(), {}
  for i, some in enumerate(x['returns']):
    range_ = returns.follow(range_, some, c.return_rate, None)
    ranges |= {f'{name} {i}': value for name, value in range_.items()}
  return {
    'two-hot: mean': from_logits(two_hot.mean),
    'two-hot: cross-entropy': from_logits(
      lambda logits: two_hot.cross_entropy(logits, x['numbers'])
    ),
    'KL of categoricals with unimix': {
      'KL': kl(x['post_logits'], x['prior_logits']),
      'by post': by_post,
      'by prior': by_prior,
    },
    'lambda-returns': {
      'imagined': returns.lambda_return(
        x['some_rewards'], x['some_values'], x['live'], lam
      ),
      'replayed': returns.lambda_return(
        x['some_rewards'], x['some_values'], replayed_live, lam
      ),
    },
    'return normaliser, three updates': ranges,
    'slow critic, an update': {
      'weights': optax.incremental_update(
        x['critic'], x['slow_critic'], c.slow_rate
      )
    },
  }


def rows(case: dict[str, Any], sizes: Sizes) -> Rows:
  """All rows of a case, as the original filled them in.

  Forward passes and formulas are in float32. Losses, gradients and steps of the
  optimizer are in float64.

  Args:
    case: `weights`, `slow_critic`, `inputs` and `numbers` (of formulas); of the
      original `rows` only the gradients are read, which the optimizer is given.
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
    weights, slow = exact['weights'], exact['slow_critic']
    return {
      **found,
      **losses(weights, slow, exact['inputs'], sizes),
      **optimizer_steps(weights, exact['rows']['gradients']),
    }
