r"""Runs the official DreamerV3 code beside drp_jax, on the same numbers.

  make parity SYSTEM=dreamerv3 CHECKOUT=DIR

DIR is a checkout of github.com/danijar/dreamerv3. It runs on the CPU, in the
environment of the tests, with packages from third_party/requirements.txt. Only
its scans over time are unrolled, so that every step can be handed its own
noise. Random weights of small networks go from their arrays into ours. Images,
actions and all noise are the same for both. Forward passes and formulas are
compared in float32. Losses, gradients and steps of the optimizer are compared
in float64. The script prints a table, and exits with 1 if an array differs by
more than 1e-4 of its largest value.

With --golden=tests/golden, what was fed and what the original made of it is
written down for tests/golden_dreamerv3_test.py.
"""

import contextlib
import io
import pathlib
import sys
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax

from tests.parity import arguments, contextwm_ours, tables
from tests.parity import dreamerv3_ours as ours
from third_party import contextwm_imports

_PARAMETERS = 'enc/', 'dyn/', 'dec/', 'rew/', 'con/', 'pol/', 'val/'
_LOW, _HIGH = 'retnorm/lo/value', 'retnorm/hi/value'
_ABOUT = {
  'original': 'github.com/danijar/dreamerv3',
  'made_by': 'python -m tests.parity.compare_dreamerv3 --golden=tests/golden',
  'fed': (
    'Random weights, images, actions, rewards, flags and states; Gumbel noise'
    ' for samples of states (jax.random.categorical), normal noise for actions'
    ' (jax.random.normal). The original computed losses and gradients, and'
    ' steps of the optimizer, in float64, all else in float32.'
  ),
}

Arrays = dict[str, np.ndarray]


def main() -> None:
  checkout, sizes, golden = arguments.parse(__doc__, 'dreamerv3', ours.GOLDEN)
  sys.path.insert(0, str(checkout))
  with contextlib.redirect_stdout(io.StringIO()):  # they say a lot
    case = Original(checkout, sizes).case()
  found, expected = ours.rows(case, sizes), case['rows']
  assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
  table = [
    (row, contextwm_ours.differences(arrays, ours.as_ours(expected[row])))
    for row, arrays in found.items()
  ]
  worst = tables.report(sizes, table)
  if golden:
    path, versions = golden / 'about_dreamerv3.json', ('jax', 'ninjax')
    cases = {'dreamerv3': case}
    tables.write(path, checkout, cases, worst, _ABOUT, versions)
  sys.exit(worst > tables.TOLERANCE)


class Original:
  """The official agent, small, with random weights.

  Attributes:
    agent: not wrapped in what compiles and distributes it.
    state: all its variables.
    inputs: what is fed to networks and losses.
    numbers: what is fed to formulas.
  """

  def __init__(self, checkout: pathlib.Path, sizes: ours.Sizes):
    import elements
    import ninjax as nj
    from dreamerv3 import agent  # of the checkout
    from embodied.jax import nets

    nets.COMPUTE_DTYPE = jnp.float32
    settings = contextwm_imports.read_settings(
      checkout / 'dreamerv3' / 'configs.yaml'
    )
    self.sizes = sizes
    config = elements.Config(settings['defaults']).update(_settings(sizes))
    observed = {'image': elements.Space(np.uint8, (64, 64, 3))}
    observed |= {'reward': elements.Space(np.float32)}
    observed |= {
      f'is_{name}': elements.Space(bool)
      for name in ('first', 'last', 'terminal')
    }
    actions = {'action': elements.Space(np.float32, (sizes.actions,), -1, 1)}
    self.agent = object.__new__(agent.Agent)
    self.agent.__init__(
      observed, actions, elements.Config(**config.agent, replay_context=0)
    )
    self.inputs, self.numbers = _inputs(sizes), _numbers(sizes)
    shapes = jax.eval_shape(
      lambda x: nj.init(self._loss)({}, x, seed=0), self.inputs
    )
    self.state = _random_values(shapes, sizes)
    low, high = self.inputs['range']
    assert {_LOW, _HIGH} <= self.state.keys()
    self.state |= {_LOW: low, _HIGH: high}

  def case(self) -> dict[str, Any]:
    """What is fed, and what the original makes of it."""
    losses = _single(self.losses())
    rows = {
      **self.networks(),
      **self.act(),
      **losses,
      **self.optimizer_steps(losses['gradients']),
      **self.formulas(),
    }
    slow = {
      name.replace('slowval/', 'val/'): x
      for name, x in self.state.items()
      if name.startswith('slowval/')
    }
    return {
      'weights': self._parameters(),
      'slow_critic': slow,
      'inputs': self.inputs,
      'numbers': self.numbers,
      'rows': _single(rows),
    }

  def networks(self) -> ours.Rows:
    """Forward passes, module by module."""

    def run(x):
      agent = self.agent
      B, T = x['is_first'].shape
      reset, no = x['is_first'], jnp.zeros(x['deter'].shape[:1], bool)
      state = {'deter': x['deter'], 'stoch': x['stoch']}
      _, _, tokens = agent.enc({}, {'image': x['image']}, reset, False)
      _, _, image = agent.dec({}, state, no, False, single=True)
      core = agent.dyn._core(x['deter'], x['stoch'], x['wide_action'])
      _, _, post = agent.dyn.observe(
        agent.dyn.initial(B),
        x['embed'],
        {'action': x['action']},
        reset,
        False,
      )
      prior = agent.dyn._prior(post['deter'])
      _, (ahead, _) = agent.dyn.imagine(
        state, {'action': x['wide_action']}, 1, False, single=True
      )
      feat = agent.feat2tensor(state)
      policy = agent.pol(feat, 1)['action']
      return {
        'image encoder': {'embedding': tokens},
        'image decoder': {'image': image['image'].pred()[ours.PIXELS]},
        'block GRU': {'deter': core},
        'RSSM, observe': {
          'deter': post['deter'],
          'stoch': post['stoch'],
          'post logits': self._mixed(post['logit']),
          'prior logits': self._mixed(prior),
        },
        'RSSM, a step ahead': {
          'deter': ahead['deter'],
          'stoch': ahead['stoch'],
          'logits': self._mixed(ahead['logit']),
        },
        'heads': {
          'reward': agent.rew(feat, 1).pred(),
          'value': agent.val(feat, 1).pred(),
          'going on': agent.con(feat, 1).prob(1),
          'policy mean': policy.pred(),
          'policy std': policy.output.stddev,
          'policy log-probability': policy.logp(x['wide_action']),
          'policy entropy': policy.entropy(),
        },
      }

    gumbel = self.inputs['gumbel']
    with _fed(categorical=[*np.moveaxis(gumbel, 1, 0), gumbel[0, :4]]):
      return self._run(run, self.inputs)[1]

  def act(self) -> ours.Rows:
    """Some steps of acting, one environment being reset on the way."""

    def run(x):
      carry, actions = self.agent.init_policy(self.sizes.sequences), []
      for t in range(self.sizes.steps):
        obs = {name: x[name][:, t] for name in ('image', 'is_first')}
        carry, action, _ = self.agent.policy(carry, obs)
        # As the environment's wrapper and the next step of the model have it.
        actions.append(jnp.clip(action['action'], -1, 1))
      return {
        'acting': {
          'actions': jnp.stack(actions, 1),
          'last deter': carry[1]['deter'],
          'last stoch': carry[1]['stoch'],
        }
      }

    x = self.inputs
    noise = [np.moveaxis(x[k], 1, 0) for k in ('gumbel', 'acting_normal')]
    with _fed(categorical=list(noise[0]), normal=list(noise[1])):
      return self._run(run, x)[1]

  def losses(self) -> ours.Rows:
    """The loss, term by term, and gradients of all parameters."""
    x, parameters = self.inputs, self._parameters()
    rest = {k: v for k, v in self.state.items() if k not in parameters}
    H = x['imagined_gumbel'].shape[1]

    def imagined(name):
      own = np.moveaxis(x[name], 1, 0)
      return list(own.reshape(H, -1, *own.shape[3:]))

    actions = imagined('imagined_normal')
    # They also draw an action in the last state, whose use is none.
    actions.append(np.zeros_like(actions[0]))
    gumbel = list(np.moveaxis(x['gumbel'], 1, 0)) + imagined('imagined_gumbel')

    def run(parameters, rest, x):
      state, (loss, metrics) = self._pure(self._loss)(
        {**parameters, **rest}, x, seed=0, create=False
      )
      return loss, (state, metrics)

    with _double(), _fed(categorical=gumbel, normal=actions):
      (loss, (state, metrics)), gradients = jax.jit(
        jax.value_and_grad(run, has_aux=True)
      )(*contextwm_ours.as_double((parameters, rest, x)))
    names = {
      'image': 'image',
      'reward': 'rew',
      'cont': 'con',
      'dyn': 'dyn',
      'rep': 'rep',
      'actor': 'policy',
      'critic': 'value',
      'replay_value': 'repval',
    }
    terms = {k: metrics[f'loss/{theirs}'] for k, theirs in names.items()}
    return {
      'loss terms': {**terms, 'total': loss},
      'range of returns after the step': {
        'low': state[_LOW],
        'high': state[_HIGH],
      },
      'gradients': gradients,
    }

  def optimizer_steps(self, gradients: Arrays) -> ours.Rows:
    """Moves of parameters under given gradients, step after step."""
    parameters, moves = self._parameters(), []
    with _double():
      gradients, parameters = contextwm_ours.as_double((gradients, parameters))
      tx = self.agent._make_opt(**{**self.agent.config.opt, 'warmup': 2})
      state, step = tx.init(parameters), jax.jit(tx.update)
      for factor in ours.GRADIENT_FACTORS:
        scaled = {name: factor * x for name, x in gradients.items()}
        updates, state = step(scaled, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        moves.append(updates)
      total = jax.tree.map(lambda *xs: sum(xs), *moves)
    return {'clipping and LaProp, three steps': total}

  def formulas(self) -> ours.Rows:
    """Their functions and distributions on numbers of their own."""
    from dreamerv3 import agent  # of the checkout
    from embodied.jax import nets, outs

    half = nets.symexp(jnp.linspace(-20, 0, 128, dtype=jnp.float32))
    bins = jnp.concatenate([half, -half[:-1][::-1]])
    x, dist = self.numbers, self.agent.dyn._dist

    def from_logits(function):
      gradient, value = jax.grad(
        lambda logits: (
          function(outs.TwoHot(logits, bins)).sum(),
          function(outs.TwoHot(logits, bins)),
        ),
        has_aux=True,
      )(x['bin_logits'])
      return {'value': value, 'by logits': gradient}

    def kl(post, prior):
      return dist(post).kl(dist(prior))

    by_post, by_prior = jax.grad(lambda *y: kl(*y).sum(), (0, 1))(
      x['post_logits'], x['prior_logits']
    )
    no = jnp.zeros(x['live'].T.shape, bool)
    reward, value = x['some_rewards'].T, x['some_values'].T
    imagined = agent.lambda_return(
      no, 1 - x['live'].T, reward, value, value, 1, 0.95
    )
    replayed = agent.lambda_return(
      no, x['terminal'].T, reward, value, value, 1 - 1 / 333, 0.95
    )

    def normalize():
      found = {}
      for name in ('lo', 'hi'):
        getattr(self.agent.retnorm, name).write(jnp.zeros(()))
      for i, returns in enumerate(x['returns']):
        low, _ = self.agent.retnorm(returns, update=True)
        high = self.agent.retnorm.hi.read()
        found |= {f'low {i}': low, f'high {i}': high}
      return found

    def move_slow_critic():
      val, slow = (f'{name}/head/logits/bias' for name in ('val', 'slowval'))
      import ninjax as nj

      nj.context()[val], nj.context()[slow] = x['critic'], x['slow_critic']
      self.agent.slowval.update()
      return nj.context()[slow]

    return {
      'two-hot: mean': from_logits(lambda d: d.pred()),
      'two-hot: cross-entropy': from_logits(lambda d: d.loss(x['numbers'])),
      'KL of categoricals with unimix': {
        'KL': kl(x['post_logits'], x['prior_logits']),
        'by post': by_post,
        'by prior': by_prior,
      },
      'lambda-returns': {'imagined': imagined.T, 'replayed': replayed.T},
      'return normaliser, three updates': self._run(normalize)[1],
      'slow critic, an update': {'weights': self._run(move_slow_critic)[1]},
    }

  def _loss(self, x):
    obs = {
      name: x[name]
      for name in ('image', 'reward', 'is_first', 'is_last', 'is_terminal')
    }
    carry = self.agent.init_train(self.sizes.sequences)[:3]
    loss, (_, _, _, metrics) = self.agent.loss(
      carry, obs, {'action': x['action']}, training=True
    )
    return loss, metrics

  def _mixed(self, logits):
    return self.agent.dyn._dist(logits).output.dist.logits

  def _parameters(self) -> Arrays:
    return {k: v for k, v in self.state.items() if k.startswith(_PARAMETERS)}

  def _pure(self, function):
    import ninjax as nj

    return nj.pure(function)

  def _run(self, function, *args):
    """Calls `function` with the weights: their state after it, its result."""
    pure = self._pure(function)
    return jax.jit(lambda *args: pure(*args, seed=0, create=True))(
      self.state, *args
    )


@contextlib.contextmanager
def _double():
  """Computes in float64, also where the original asks for float32."""
  from dreamerv3 import agent  # of the checkout
  from embodied.jax import heads, nets, opt, outs, utils

  with contextlib.ExitStack() as stack:
    stack.enter_context(contextwm_ours.double())
    for module in (agent, heads, nets, opt, outs, utils):
      patch = mock.patch.object(module, 'f32', jnp.float64)
      stack.enter_context(patch)
    patch = mock.patch.object(nets, 'COMPUTE_DTYPE', jnp.float64)
    stack.enter_context(patch)
    yield


def _single(tree):
  """Arrays of real numbers as float32."""

  def single(x):
    x = np.asarray(x)
    return x.astype(np.float32) if x.dtype == np.float64 else x

  return jax.tree.map(single, tree)


@contextlib.contextmanager
def _fed(**numbers):
  """Makes functions of `jax.random` hand out given noise, and unrolls scans.

  Args:
    **numbers: 'categorical', Gumbel noise of each call, and 'normal'. All have
      to be taken.
  """
  import ninjax as nj

  left = {name: list(arrays) for name, arrays in numbers.items()}

  def categorical(key, logits, axis, shape):
    del key, shape
    return jnp.argmax(logits + left['categorical'].pop(0), axis)

  def normal(key, shape, dtype):
    del key
    x = left['normal'].pop(0)
    assert x.shape == tuple(shape)
    return jnp.asarray(x, dtype)

  def scan(function, carry, xs, length=None, unroll=1, axis=0):
    del unroll
    results = []
    for t in range(length or jax.tree.leaves(xs)[0].shape[axis]):
      now = jax.tree.map(lambda x, t=t: jnp.take(x, t, axis), xs)
      carry, result = function(carry, now)
      results.append(result)
    return carry, jax.tree.map(lambda *x: jnp.stack(x, axis), *results)

  with (
    mock.patch.object(jax.random, 'categorical', categorical),
    mock.patch.object(jax.random, 'normal', normal),
    mock.patch.object(nj, 'scan', scan),
  ):
    yield
  assert not any(left.values()), {name: len(x) for name, x in left.items()}


def _settings(sizes: ours.Sizes) -> dict[str, Any]:
  """Their settings that make networks as small as ours."""
  model = ours.small_system().model
  dynamics, width = model.action_dynamics, model.critic.width
  settings = {
    'agent.dyn.rssm.deter': dynamics.deter_size,
    'agent.dyn.rssm.hidden': dynamics.hidden,
    'agent.dyn.rssm.stoch': dynamics.groups,
    'agent.dyn.rssm.classes': dynamics.classes,
    'agent.dyn.rssm.blocks': dynamics.blocks,
    'agent.imag_length': sizes.horizon,
  }
  for name in ('enc', 'dec'):
    settings[f'agent.{name}.simple.depth'] = model.image_encoder.depth
    settings[f'agent.{name}.simple.units'] = width
  for name in ('rewhead', 'conhead', 'policy', 'value'):
    settings[f'agent.{name}.units'] = width
  return settings


def _inputs(sizes: ours.Sizes) -> Arrays:
  """Images, actions, rewards, states, and all noise."""
  model, rng = ours.small_system(sizes).model, sizes.random(2)
  B, T, H, A = sizes.sequences, sizes.steps, sizes.horizon, sizes.actions
  dynamics, lead, M = model.action_dynamics, (B, T), 4
  latent = dynamics.groups, dynamics.classes

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  def gumbel(*shape):
    return rng.gumbel(size=shape).astype(np.float32)

  coarse = rng.uniform(0, 256, (*lead, 16, 16, 3))
  classes = rng.integers(0, latent[1], (M, latent[0]))
  inputs = {
    'image': coarse.repeat(4, 2).repeat(4, 3).astype(np.uint8),
    'action': rng.uniform(-1, 1, (*lead, A)).astype(np.float32),
    'reward': normal(*lead),
    'is_first': np.zeros(lead, bool),
    'is_last': np.zeros(lead, bool),
    'is_terminal': np.zeros(lead, bool),
    'gumbel': gumbel(*lead, *latent),
    'acting_normal': normal(*lead, A),
    'imagined_normal': normal(B, H, T, A),
    'imagined_gumbel': gumbel(B, H, T, *latent),
    'deter': np.tanh(normal(M, dynamics.deter_size)),
    'stoch': np.eye(latent[1], dtype=np.float32)[classes],
    'wide_action': 2.0 * normal(M, A),
    'embed': normal(*lead, 64 * model.image_encoder.depth),
    'range': np.array([-1.0, 1.5], np.float32),
  }
  inputs['is_first'][:, 0] = inputs['is_first'][1, 3] = True
  # An episode may end with the segment; for us it may not go on in it.
  inputs['is_terminal'][1, 2] = True
  inputs['is_last'][0, -1] = True
  return inputs


def _numbers(sizes: ours.Sizes) -> Arrays:
  rng, (T, N) = sizes.random(4), (6, 5)

  def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)

  bins = np.linspace(-20, 20, 255)
  centers = rng.uniform(-5, 5, (40, 1))
  logits = normal(40, 255) - 0.5 * np.square(bins - centers)
  numbers = np.sinh(rng.uniform(-9, 9, 40))
  numbers[:4] = [0.0, 1e9, -1e9, np.expm1(20 / 127)]
  weights = normal(2, 255)
  return {
    'bin_logits': logits.astype(np.float32),
    'numbers': numbers.astype(np.float32),
    'post_logits': 2.0 * normal(3, 7, 4, 4),
    'prior_logits': 2.0 * normal(3, 7, 4, 4),
    'some_rewards': normal(T, N),
    'some_values': normal(T, N),
    'live': rng.uniform(size=(T, N)).astype(np.float32),
    'terminal': rng.uniform(size=(T, N)) < 0.3,
    'returns': normal(3, 4, 50) * np.array([1, 10, 3])[:, None, None],
    'critic': weights[0],
    'slow_critic': weights[1],
  }


def _random_values(
  shapes: dict[str, jax.ShapeDtypeStruct], sizes: ours.Sizes
) -> Arrays:
  """Values for all variables, as far from their initial ones as trained."""
  rng, found = sizes.random(3), {}
  for name, like in sorted(shapes.items()):
    x = rng.normal(size=like.shape)
    if name.endswith('/kernel'):
      # Of blocks, what one sees.
      x /= np.sqrt(like.shape[1] if x.ndim == 3 else np.prod(like.shape[:-1]))
      if 'dyn/' in name and 'logit' in name:
        x *= 3.0  # states that are not all alike
    elif name.endswith('/scale'):
      x = 1.0 + 0.2 * x
    elif name.endswith('logits/bias'):  # numbers around 0
      x = 0.3 * x - 0.5 * np.square(np.linspace(-20, 20, 255))
    elif name.endswith('/bias'):
      x *= 0.1
    else:  # counters
      x *= 0
    found[name] = x.astype(like.dtype)
  return found


if __name__ == '__main__':
  main()
