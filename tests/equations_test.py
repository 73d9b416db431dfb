"""Every equation of the paper's supplement, (5)-(19), against NumPy and loops.

The losses are those of the whole system (debug preset): from flow, points,
actions and rewards to the number that is minimized, with the networks of
`paper_in_numpy` around what is taken as given: which atomic actions are hidden,
which latents were drawn, and image embeddings and decoded images, which
golden_test.py holds against the paper's lineage.

Where the text leaves something open, the expected numbers follow the table of
choices (docs/choices.md); the sums over t of Eqs. 6, 9, 11 and 12 are means.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np
import paper_in_numpy as paper
import pytest
import random_inputs
import scipy.stats

from drp_jax import losses, types
from drp_jax.models import dae, outputs
from drp_jax.ops import noise, returns
from drp_jax.systems import imagination, world_model

_OFF = dict(
  mae=0, dyn=0, image=0, kl_z=0, kl_s=0, reward=0, aux_reward=0, free_nats=0
)
_BONUS_STEPS = 3


def _normal(*shape):
  rng = np.random.default_rng(list(shape))
  return rng.normal(size=shape).astype(np.float32)


def _assert_close(found, expected, rtol=1e-5):
  """Within `rtol` of the largest value."""
  expected = np.asarray(expected)
  scale = np.abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=0, atol=rtol * scale)


def _params(variables):
  return paper.float64(variables['params'])


def _bonus(feat, is_last):
  """Any function of z's features will do; of the first steps only."""
  del is_last
  return feat[:, :_BONUS_STEPS].mean(-1), None


@dataclasses.dataclass
class _Pass:
  """One evaluation of a loss of the system.

  Attributes:
    loss: [], what is minimized.
    metrics: scalars.
    inner: what the networks returned on the way, by name.
  """

  loss: float
  metrics: dict
  inner: dict


_PASSES = outputs.Motion, outputs.Latent, outputs.Action


def _watching(loss_fn):
  """`loss_fn`, which also returns what the outermost networks returned."""

  def run(*args):
    inner = {}

    def listen(call, args, kwargs, context):
      out = call(*args, **kwargs)
      if context.module.path == ():
        for part in out if isinstance(out, tuple) else (out,):
          if isinstance(part, _PASSES):
            inner.update(vars(part))
      return out

    with nn.intercept_methods(listen):
      loss, metrics = loss_fn(*args)
    return loss, metrics, inner

  return jax.jit(run)


def _evaluate(run, system, variables, batch):
  """A function of loss weights, all others 0, that returns a `_Pass`."""

  def evaluate(**weights):
    weights = dataclasses.asdict(system.weights) | _OFF | weights
    weights = {name: float(value) for name, value in weights.items()}
    out = run(weights, dict(variables), batch, random_inputs.keys(2))
    return _Pass(*jax.device_get(out))

  return functools.cache(evaluate)


@pytest.fixture(scope='module')
def pretraining(system, variables, video_batch):
  """Algorithm 1's loss as a function of its weights."""

  def loss(weights, variables, batch, keys):
    weighted = dataclasses.replace(
      system, weights=world_model.LossWeights(**weights)
    )
    params = variables.pop('params')
    loss, (_, metrics) = weighted.pretrain_loss(params, variables, batch, keys)
    return loss, metrics

  return _evaluate(_watching(loss), system, variables, video_batch)


@pytest.fixture(scope='module')
def finetuning(system, variables, replay_batch):
  """Algorithm 2's loss of the world model as a function of its weights."""

  def loss(weights, variables, batch, keys):
    weighted = dataclasses.replace(
      system, weights=world_model.LossWeights(**weights)
    )
    params = variables.pop('params')
    loss, out = weighted.world_model_loss(
      params, variables, batch, keys, _bonus
    )
    return loss, out.metrics

  return _evaluate(_watching(loss), system, variables, replay_batch)


def _atomic_actions(config, variables, motion):
  """[B, T, K, 2 P^2]: cropped, divided by sigma, clipped to +-10 (A3)."""
  sigma = float(variables['constants']['flow_scale'])
  out = np.zeros((*motion.points.shape[:3], 2 * config.dae.patch_size**2))
  for b, t in np.ndindex(out.shape[:2]):
    flow = motion.flow[b, t].astype(np.float64)
    cropped = paper.crop(flow, motion.points[b, t], config.dae.patch_size)
    out[b, t] = np.clip(cropped / sigma, -10.0, 10.0).reshape(out.shape[2:])
  return out


def _a_agg(config, variables, batch):
  """[B, T, D]: [MAT] after the encoder's pass over everything (B15)."""
  p, motion = _params(variables), batch.motion
  u = _atomic_actions(config, variables, motion)
  return np.stack(
    [
      paper.dae(
        p['dae'],
        u[b],
        motion.points[b],
        motion.window_step[b],
        batch.is_first[b],
        np.zeros(u.shape[1:3], bool),
        config.dae.num_heads,
      )[0][:, 0]
      for b in range(len(u))
    ]
  )


def _mae_loss(config, variables, batch, hidden):
  """Eq. 5 from flow and points."""
  p, motion, heads = _params(variables), batch.motion, config.dae.num_heads
  u = _atomic_actions(config, variables, motion)
  total, count = 0.0, 0
  for b in range(len(u)):
    place = motion.points[b], motion.window_step[b], batch.is_first[b]
    encoded, _ = paper.dae(p['dae'], u[b], *place, hidden[b], heads)
    recon = paper.mae_decoder(
      p['mae_decoder'], encoded, *place, hidden[b], heads
    )
    for t, k in zip(*np.nonzero(hidden[b]), strict=True):
      total += sum((recon[t, k] - u[b, t, k]) ** 2)
      count += 1
  return total / count


def _image_term(image, decoded):
  """-ln p(o | .) of unit variance, its constant dropped: mean over B, T."""
  frames = [
    0.5 * ((o / 255.0 - 0.5 - mean) ** 2).sum()
    for o, mean in zip(
      image.reshape(-1, *image.shape[2:]).astype(np.float64),
      decoded.reshape(-1, *decoded.shape[2:]),
      strict=True,
    )
  ]
  return np.mean(frames)


def _dynamics_terms(config, variables, batch, inner):
  """Eq. 6: the image term and the mean KL of z."""
  p = _params(variables)['latent_dynamics']
  a_agg = _a_agg(config, variables, batch)
  kls = []
  for b in range(len(a_agg)):
    _, post, prior = paper.rssm(
      p, inner['embed'][b], a_agg[b], batch.is_first[b], inner['z'].stoch[b]
    )
    kls += map(paper.kl, post, prior)
  return _image_term(batch.image, inner['z_decoded']), np.mean(kls)


def test_equation_05_masked_autoencoder(
  pretraining, config, variables, video_batch
):
  found = pretraining(mae=2)
  hidden = found.inner['hidden']
  K, T = config.dae.num_keypoints, random_inputs.T
  per_clip = int(config.dae.mask_ratio * K * (T - 1))
  np.testing.assert_array_equal(hidden.sum((1, 2)), per_clip)
  expected = _mae_loss(config, variables, video_batch, hidden)
  _assert_close(found.loss, 2 * expected)
  _assert_close(found.metrics['loss/mae'], expected)


def test_equation_06_latent_dynamics(
  pretraining, config, variables, video_batch
):
  found = pretraining(dyn=3, kl_z=0.7)
  image, kl = _dynamics_terms(config, variables, video_batch, found.inner)
  assert kl > 0.1
  _assert_close(found.metrics['loss/image_z'], image)
  _assert_close(found.metrics['loss/kl_z'], kl)
  _assert_close(found.loss, 3 * (image + 0.7 * kl))


@pytest.mark.parametrize(('share', 'clamped'), [(0.9, False), (1.1, True)])
def test_equation_06_free_nats(
  pretraining, config, variables, video_batch, share, clamped
):
  """The mean over the batch is clamped, not the KL of each step (1.3)."""
  inner = pretraining(dyn=3, kl_z=0.7).inner
  image, kl = _dynamics_terms(config, variables, video_batch, inner)
  free = share * kl
  found = pretraining(dyn=1, kl_z=1, free_nats=free)
  _assert_close(found.loss, image + (free if clamped else kl))


def test_equation_06_balanced_gradients():
  """0.8 of the prior's towards the posterior, 0.2 of the posterior's (1.3)."""
  post, prior = _normal(2, 3, 2, 4), _normal(2, 3, 4, 2).swapaxes(-1, -2)
  loss_fn = functools.partial(losses.kl_loss, balance=0.8, free=0.0)
  (loss, value), found = jax.jit(
    jax.value_and_grad(loss_fn, (0, 1), has_aux=True)
  )(post, prior)
  to_post, to_prior = np.zeros((2, *post.shape))
  kls = []
  for b, t in np.ndindex(2, 3):
    kls.append(paper.kl(post[b, t].astype(np.float64), prior[b, t]))
    for group in range(2):
      q = paper.log_softmax(post[b, t, group].astype(np.float64))
      p = paper.log_softmax(prior[b, t, group].astype(np.float64))
      kl = sum(np.exp(q) * (q - p))
      to_prior[b, t, group] = 0.8 * (np.exp(p) - np.exp(q)) / 6
      to_post[b, t, group] = 0.2 * np.exp(q) * (q - p - kl) / 6
  _assert_close([loss, value], [np.mean(kls)] * 2)
  _assert_close(found[0], to_post)
  _assert_close(found[1], to_prior)


def test_equation_07_masked_autoencoder_in_fine_tuning(
  finetuning, config, variables, replay_batch
):
  found = finetuning(mae=2)
  hidden = found.inner['hidden']
  _assert_close(
    found.loss, 2 * _mae_loss(config, variables, replay_batch, hidden)
  )


def test_equation_08_latent_dynamics_in_fine_tuning(
  finetuning, config, variables, replay_batch
):
  found = finetuning(dyn=3, kl_z=0.7)
  image, kl = _dynamics_terms(config, variables, replay_batch, found.inner)
  _assert_close(found.loss, 3 * (image + 0.7 * kl))


def test_equation_09_action_specific_dynamics(
  finetuning, config, variables, replay_batch
):
  """On DMCR s observes Adapter(z) and the embedding (D7).

  Two heads predict rewards, one of them of the first steps and with the bonus
  (D8, D9).
  """
  found = finetuning(image=3, kl_s=0.7, reward=1.7, aux_reward=0.6)
  batch, inner, p = replay_batch, found.inner, _params(variables)
  a_agg = _a_agg(config, variables, batch)
  assert config.adapter.concat_embed
  kls, plain, with_bonus = [], [], []
  for b in range(random_inputs.B):
    z, s = inner['z'].stoch[b], inner['s'].stoch[b]
    embed, first = inner['embed'][b], batch.is_first[b]
    deter, _, _ = paper.rssm(p['latent_dynamics'], embed, a_agg[b], first, z)
    z_feat = np.concatenate([z.reshape(len(z), -1), deter], -1)
    observed = np.concatenate([embed, paper.adapter(p['adapter'], z_feat)], -1)
    deter, post, prior = paper.rssm(
      p['action_dynamics'], observed, batch.action[b], first, s
    )
    s_feat = np.concatenate([s.reshape(len(s), -1), deter], -1)
    kls += map(paper.kl, post, prior)
    aux = paper.mlp(p['aux_reward']['mlp'], s_feat)[:, 0]
    predicted = paper.mlp(p['reward']['mlp'], s_feat)[:, 0]
    for t, reward in enumerate(batch.reward[b]):
      plain.append(0.5 * (aux[t] - reward) ** 2)
      if t < _BONUS_STEPS:
        target = reward + z_feat[t].mean()
        with_bonus.append(0.5 * (predicted[t] - target) ** 2)
  image = _image_term(batch.image, inner['s_decoded'])
  _assert_close(found.metrics['loss/kl_s'], np.mean(kls))
  _assert_close(found.metrics['loss/reward'], np.mean(with_bonus))
  _assert_close(found.metrics['loss/aux_reward'], np.mean(plain))
  expected = 3 * image + 0.7 * np.mean(kls)
  expected += 1.7 * np.mean(with_bonus) + 0.6 * np.mean(plain)
  _assert_close(found.loss, expected)


def test_fine_tuning_minimizes_the_sum_of_equations_7_8_and_9(finetuning):
  """Choice D5."""
  parts = (
    dict(mae=2),
    dict(dyn=3, kl_z=0.7),
    dict(image=3, kl_s=0.7, reward=1.7, aux_reward=0.6),
  )
  together = finetuning(**{k: v for part in parts for k, v in part.items()})
  _assert_close(together.loss, sum(finetuning(**part).loss for part in parts))


def _lambda_return(reward, value, discount, lam):
  """Eq. 10 on one trajectory, rewards [H], values [H+1] (D15)."""
  H = len(reward)
  ret = np.zeros(H)
  for t in reversed(range(H)):
    if t == H - 1:
      ret[t] = reward[t] + discount * value[t + 1]
    else:
      mixed = (1 - lam) * value[t + 1] + lam * ret[t + 1]
      ret[t] = reward[t] + discount * mixed
  return ret


def test_equation_10_lambda_return():
  H, N = 5, 3
  reward, value = _normal(H, N), _normal(H + 1, N)
  found = returns.lambda_return(reward, value[:-1], value[-1], 0.9, 0.7)
  for n in range(N):
    expected = _lambda_return(reward[:, n], value[:, n], 0.9, 0.7)
    _assert_close(found[:, n], expected)


_SETTINGS = imagination.Settings(
  horizon=4, discount=0.9, lam=0.7, entropy_scale=0.3
)
_STARTS = 3


@pytest.fixture(scope='module')
def imagination(config, system, variables):
  """The system's policy learning, and NumPy's along the same noise.

  The critic that bootstraps returns is not the one that learns.

  Returns:
    The metrics; and by trajectory: V, values, entropies, weights, [N, H].
  """
  H, N = _SETTINGS.horizon, _STARTS
  A = system.model.actor.action_size
  groups, classes = config.rssm.groups, config.rssm.classes
  draws = np.random.default_rng(0).integers(0, classes, (N, groups))
  start = types.RSSMState(
    deter=_normal(N, config.rssm.deter_size),
    stoch=np.eye(classes, dtype=np.float32)[draws],
    logits=np.zeros((N, groups, classes), np.float32),
  )
  params = variables['params']
  slow = jax.tree.map(lambda x: 0.5 * x, params['critic'])
  learner = {name: params[name] for name in ('actor', 'critic')}
  learning = dataclasses.replace(system, behavior=_SETTINGS)
  _, metrics = jax.jit(learning.behavior_loss)(
    learner,
    slow,
    params,
    {'constants': variables['constants']},
    start,
    np.zeros(N, bool),
    random_inputs.keys(4, 1),
  )

  action_key, state_key = noise.split(random_inputs.keys(4, 1), 2)
  uniform = np.asarray(jax.random.uniform(action_key[0], (H, N, A)))
  gumbel = np.asarray(jax.random.gumbel(state_key[0], (H, N, groups, classes)))
  p, slow = _params(variables), paper.float64(slow)
  model, found = p['action_dynamics'], []
  for n in range(N):
    deter, stoch = start.deter[n].astype(np.float64), start.stoch[n].reshape(-1)
    feats, entropies = [np.concatenate([stoch, deter])], []
    for t in range(H):
      mean, std = np.split(paper.mlp(p['actor']['mlp'], feats[-1]), 2)
      mean, std = np.tanh(mean), 2 * paper.sigmoid(std / 2) + 0.1
      policy = scipy.stats.truncnorm(
        (-1 - mean) / std, (1 - mean) / std, mean, std
      )
      entropies.append(policy.entropy().sum())
      action = policy.ppf(uniform[t, n])
      deter = paper.recur(model, deter, stoch, action)
      logits = paper.prior_logits(model, deter, classes)
      stoch = np.eye(classes)[(logits + gumbel[t, n]).argmax(-1)].reshape(-1)
      feats.append(np.concatenate([stoch, deter]))
    reward = [paper.mlp(p['reward']['mlp'], feat)[0] for feat in feats[:-1]]
    value = [paper.mlp(p['critic']['mlp'], feat)[0] for feat in feats[:-1]]
    bootstrap = [paper.mlp(slow['mlp'], feat)[0] for feat in feats]
    ret = _lambda_return(reward, bootstrap, _SETTINGS.discount, _SETTINGS.lam)
    found.append((ret, value, entropies))
  return metrics, found


def test_equation_10_in_imagination(imagination):
  metrics, trajectories = imagination
  expected = np.mean([ret for ret, _, _ in trajectories])
  _assert_close(metrics['behavior/return'], expected)


def test_equation_11_critic(imagination):
  """States further ahead weigh less (D15)."""
  metrics, trajectories = imagination
  terms = [
    _SETTINGS.discount**t * 0.5 * (value[t] - ret[t]) ** 2
    for ret, value, _ in trajectories
    for t in range(_SETTINGS.horizon)
  ]
  _assert_close(metrics['loss/critic'], np.mean(terms))


def test_equation_11_stops_the_gradient_of_its_targets():
  value, ret, weight = _normal(4, 3), _normal(3, 4).T, _normal(4, 3) ** 2
  by_value, by_return = jax.grad(losses.critic_loss, (0, 1))(value, ret, weight)
  _assert_close(by_value, weight * (value - ret) / 12)
  np.testing.assert_array_equal(by_return, 0)


def test_equation_12_actor(imagination):
  """V of a state is what the action before it can change (D15)."""
  metrics, trajectories = imagination
  terms = [
    -(_SETTINGS.discount ** (t - 1))
    * (ret[t] + _SETTINGS.entropy_scale * entropies[t - 1])
    for ret, _, entropies in trajectories
    for t in range(1, _SETTINGS.horizon)
  ]
  _assert_close(metrics['loss/actor'], np.mean(terms))


_B, _T, _K, _D = 2, 6, 3, 8
_attend = jax.jit(functools.partial(dae.attend, num_heads=1))


@pytest.fixture(
  scope='module', params=[(1, 2), (2, 1)], ids=['one_head', 'two_heads']
)
def encoded(request):
  """What happens inside the encoder, here and in NumPy; some tokens hidden.

  Returns:
    (found, expected, read) of every sequence: results by block and name, and
    the final one; `read` [T, K+1] says which places are not hidden.
  """
  num_heads, num_blocks = request.param
  model = dae.DAE(num_blocks, _D, num_heads, mlp_ratio=2, image_size=64)
  rng = np.random.default_rng(0)
  hidden = rng.uniform(size=(_B, _T, _K)) > 0.6
  hidden[:, 0] = False
  inputs = dict(
    patches=_normal(_B, _T, _K, 8),
    points=rng.uniform(0, 63, (_B, _T, _K, 2)).astype(np.float32),
    window_step=np.array([[0, 0, 1, 2, 3, 4], [0, 0, 1, 2, 0, 1]]),
    is_first=np.tile(np.arange(_T) == 0, (_B, 1)),
    hidden=hidden,
  )
  variables = random_inputs.fill(
    jax.eval_shape(lambda key: model.init(key, **inputs), jax.random.key(0))
  )

  @jax.jit
  def run(inputs):
    found = {}

    def listen(call, args, kwargs, context):
      out = call(*args, **kwargs)
      block, *layer = context.module.path or ('',)
      if block.startswith('blocks_') and context.method_name == '__call__':
        blocks = found.setdefault(block, {})
        if layer:
          blocks[layer[0]] = args[0], out
        else:
          blocks['block'] = None, out
      return out

    with nn.intercept_methods(listen):
      return model.apply(variables, **inputs), found

  out, found = jax.device_get(run(inputs))
  found = [found[f'blocks_{i}'] for i in range(num_blocks)]
  sequences = []
  for b in range(_B):
    expected = paper.dae(
      paper.float64(variables['params']),
      *(inputs[name][b] for name in inputs),
      num_heads,
    )
    ours = out[b], jax.tree.map(lambda x, b=b: x[b], found)
    read = np.concatenate([np.ones((_T, 1), bool), ~hidden[b]], 1)
    sequences.append((ours, expected, read))
  return sequences


def _blocks(encoded):
  """(found, expected, read) of every block of every sequence."""
  for (_, found), (_, expected), read in encoded:
    for ours, theirs in zip(found, expected, strict=True):
      yield ours, theirs, read


@pytest.mark.parametrize('name', ['query', 'key', 'value'])
def test_equation_13_projections_within_a_frame(encoded, name):
  for found, expected, read in _blocks(encoded):
    _, out = found[f'intra_{name}']
    _assert_close(out[read], expected[f'intra_{name}'][read])


def test_equation_14_attention_within_a_frame():
  """Literally: one head, everything visible."""
  Q, K, V = _normal(3, _T, _K + 1, _D)
  found = _attend(Q, K, V, np.ones((_T, 1, _K + 1), bool))
  for t in range(_T):
    for i in range(_K + 1):
      weights = [
        np.exp(sum(Q[t, i] * K[t, j]) / np.sqrt(_D)) for j in range(_K + 1)
      ]
      expected = sum(w * V[t, j] / sum(weights) for j, w in enumerate(weights))
      _assert_close(found[t, i], expected)


@pytest.mark.parametrize('name', ['query', 'key', 'value'])
def test_equation_15_projections_along_a_token(encoded, name):
  for found, expected, read in _blocks(encoded):
    _, out = found[f'inter_{name}']  # [K+1, T, D]
    out = out.swapaxes(0, 1)
    _assert_close(out[read], expected[f'inter_{name}'][read])


def test_equation_16_causal_attention_along_a_token():
  """Literally: one head, M_causal adds minus infinity to the future."""
  Q, K, V = _normal(3, _K + 1, _T, _D)
  M = np.where(np.tril(np.ones((_T, _T))) == 1, 0.0, -np.inf)
  found = _attend(Q, K, V, M[None] == 0)
  for k in range(_K + 1):
    for t in range(_T):
      weights = [
        np.exp(sum(Q[k, t] * K[k, u]) / np.sqrt(_D) + M[t, u])
        for u in range(_T)
      ]
      expected = sum(w * V[k, u] / sum(weights) for u, w in enumerate(weights))
      _assert_close(found[k, t], expected)


def test_equation_17_residual_of_attention_within_frames(encoded):
  """Z', what the second branch reads."""
  for found, expected, read in _blocks(encoded):
    between, _ = found['inter_norm']
    _assert_close(between[read], expected['intra'][read])


def test_equation_18_residual_of_attention_over_time(encoded):
  """Z'', what the MLP reads."""
  for found, expected, read in _blocks(encoded):
    between, _ = found['mlp_norm']
    _assert_close(between[read], expected['inter'][read])


def test_equation_19_mlp_and_the_encoder_as_a_whole(encoded):
  """Z_out; after the last block and a LayerNorm, [MAT] is a_agg (C3)."""
  for found, expected, read in _blocks(encoded):
    _, out = found['block']
    _assert_close(out[read], expected['out'][read])
  for (found, _), (expected, _), read in encoded:
    _assert_close(found[read], expected[read])
    assert np.isnan(expected[~read]).all()


def test_a_agg_drives_the_latent_dynamics(
  finetuning, config, variables, replay_batch
):
  """[MAT] of the unmasked pass, zero at first frames (A6, B15)."""
  a_agg = finetuning(mae=2).inner['tokens'][:, :, 0]
  _assert_close(a_agg, _a_agg(config, variables, replay_batch))
  np.testing.assert_array_equal(a_agg[:, 0], 0)


def test_all_equations_have_a_test():
  """(5) to (19); those before them come back in (6) and (9)."""
  names = [name for name in globals() if name.startswith('test_equation_')]
  numbers = {int(name.split('_')[2]) for name in names}
  assert numbers == set(range(5, 20))
