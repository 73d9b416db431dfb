"""Tests of PreLAR: latent actions, who learns from what, consistency, acting.

That it computes what the official code does is tests/golden_prelar_test.py's.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax import losses, types
from drp_jax.ops import images, noise
from drp_jax.systems import registry, world_model
from drp_jax.systems.prelar import latent_actions, networks, prelar

_B, _T, _A, _Z = 3, 6, 2, 8
_LEARNER = {'actor', 'critic'}
_OFF = dict.fromkeys(
  (f.name for f in dataclasses.fields(world_model.LossWeights)), 0.0
)


@functools.cache
def _config():
  config = finetune_dmcr.get_config('debug')
  config.agent = 'prelar'
  return config


@functools.cache
def _system():
  return registry.build(_config(), _A, None).system


def _batch():
  return random_inputs.replay_batch(None, _A, _B, _T)


def _video():
  return random_inputs.video_batch(None, _B, _T)


@functools.cache
def _variables(finetune):
  """None of them zero."""
  batch = _batch() if finetune else _video()
  shapes = jax.eval_shape(_system().init, jax.random.key(0), batch)
  return random_inputs.fill(shapes)


def _reached(gradients) -> set[str]:
  """Parameter sets with a gradient; all of their arrays must be finite."""
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
  return {
    name
    for name, tree in gradients.items()
    if any(np.any(leaf != 0) for leaf in jax.tree.leaves(tree))
  }


@functools.cache
def _jitted_pretraining():
  """Loss, gradients and the rest; the weights of losses are traced."""

  def run(params, weights, image):
    system = dataclasses.replace(
      _system(), weights=world_model.LossWeights(**weights)
    )
    return jax.value_and_grad(system.pretrain_loss, has_aux=True)(
      params,
      {'batch_stats': _variables(False)['batch_stats']},
      _video().replace(image=image),
      random_inputs.keys(0, _B),
    )

  return jax.jit(run)


def _pretrain(**weights):
  params = _variables(False)['params']
  (loss, (_, metrics)), gradients = _jitted_pretraining()(
    params, {**_OFF, **weights}, _video().image
  )
  return loss, metrics, gradients


_MODEL = {'image_encoder', 'image_decoder', 'latent_dynamics'}


@pytest.mark.parametrize(
  ('weights', 'reached'),
  [
    ({}, _MODEL | {'inverse_dynamics'}),  # the image, whose weight is 1
    ({'latent_action': 1.0}, _MODEL | {'inverse_dynamics'}),
    ({'consistency': 1.0}, _MODEL | {'inverse_dynamics'}),
  ],
)
def test_gradients_of_pre_training(weights, reached):
  _, _, gradients = _pretrain(**weights)
  assert _reached(gradients) == reached
  _, _, image = _pretrain()
  more = jax.tree.map(lambda a, b: a - b, gradients, image)
  # The released consistency has no gradient (T1); the KL of latent actions has
  # one in the network that infers them.
  own = {'inverse_dynamics'} if 'latent_action' in weights else set()
  assert _reached(more) == own


def test_the_loss_is_the_sum_of_its_terms():
  loss, metrics, _ = _pretrain(kl_z=0.5, latent_action=2.0, consistency=3.0)
  expected = (
    metrics['loss/image_z']
    + 0.5 * metrics['loss/kl_z']
    + 2.0 * metrics['loss/latent_action']
    + 3.0 * metrics['loss/consistency']
  )
  np.testing.assert_allclose(loss, expected, rtol=1e-5)
  assert all(
    metrics[f'loss/{name}'] > 0 for name in ('latent_action', 'consistency')
  )


def test_the_prior_of_latent_actions_is_wider_than_a_standard_normal():
  """T10: 1.245; at it the KL is zero."""
  std = latent_actions.latent_std(jnp.float32(1.0))
  np.testing.assert_allclose(std, 1.2449187, rtol=1e-6)


def test_consistency_by_hand():
  """Three examples; the second and third are in the other order."""
  action, state = jnp.array([1.0, 3.0, 2.0]), jnp.array([0.1, 0.5, 0.7])
  args = action, action, state, state
  sign = losses.consistency_loss(*args, temperature=None)
  np.testing.assert_allclose(sign, 2 * 4 / 9, rtol=1e-6)
  logistic = losses.consistency_loss(*args, temperature=0.5)
  gaps = [2.0, 1.0, -1.0]  # of actions, positive where the order is right
  expected = 2 * sum(np.log1p(np.exp(-2 * gap)) for gap in gaps)
  expected = (expected + 3 * np.log(2)) / 9  # each with itself
  np.testing.assert_allclose(logistic, expected, rtol=1e-6)


def _distances(rng, count):
  """What consistency is computed from."""
  state = lambda: types.RSSMState(  # noqa: E731
    deter=None,
    stoch=None,
    logits=jnp.asarray(rng.normal(size=(count, _T, 2, 4)), jnp.float32),
  )

  def latent():
    mean, std = rng.normal(size=(2, count, _T - 1, _Z))
    return latent_actions.LatentAction(
      jnp.asarray(mean, jnp.float32),
      jnp.asarray(np.exp(0.1 * std), jnp.float32),
      None,
    )

  other = state()
  return {
    'z_prior': state(),
    'z_prior_other': other.replace(logits=other.logits[:, 1:]),
    'latent': latent(),
    'latent_other': latent(),
  }


@pytest.mark.parametrize('rank', ['sign', 'logistic'])
def test_consistency_is_the_same_on_four_devices_and_has_its_gradient(rank):
  """Pairs are those of the whole batch; states are not taught."""
  out = _distances(np.random.default_rng(0), 4)
  system = dataclasses.replace(_system(), rank=rank, rank_temperature=2.0)

  def loss(out, axis_name=None):
    own = dataclasses.replace(system, axis_name=axis_name)
    others = out['latent'], out['latent_other'], out['z_prior_other']
    return own._consistency(out['z_prior'], networks.Compared(*others))

  value, gradient = jax.jit(jax.value_and_grad(loss))(out)
  shares = jax.tree.map(lambda x: x[:, None], out)
  values, gradients = jax.pmap(
    jax.value_and_grad(functools.partial(loss, axis_name='i')), axis_name='i'
  )(shares)
  np.testing.assert_allclose(values.mean(), value, rtol=1e-5)
  # Each device holds the gradient of the sum of all devices' losses.
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a[:, 0] / 4, b, atol=1e-6),
    gradients,
    gradient,
  )
  states = _reached({k: gradient[k] for k in ('z_prior', 'z_prior_other')})
  actions = _reached({k: gradient[k] for k in ('latent', 'latent_other')})
  assert not states
  assert bool(actions) == (rank == 'logistic')


def test_the_order_of_sequences_is_one_of_the_whole_batch():
  """Whatever the number of devices; it permutes."""
  x = jnp.arange(4.0)

  def shuffle(x, keys, axis_name):
    system = dataclasses.replace(_system(), axis_name=axis_name)
    return system._shuffle(keys)({'x': x})['x']

  one = shuffle(x, random_inputs.keys(6, 4), None)
  four = jax.pmap(functools.partial(shuffle, axis_name='i'), axis_name='i')(
    x[:, None], random_inputs.keys(6, 4)[:, None]
  )
  np.testing.assert_array_equal(np.sort(one), x)
  assert np.any(one != x)
  np.testing.assert_array_equal(four[:, 0], one)


def test_how_it_starts():
  """Glorot-uniform everywhere, biases at zero  [PreLAR]; IPV differs."""
  params = jax.jit(_system().init)(jax.random.key(0), _video())['params']
  params = jax.device_get(params)
  gru = params['latent_dynamics']['gru']['dense']
  assert not gru['bias'].any()
  kernel = gru['kernel']
  limit = np.sqrt(6 / sum(kernel.shape))
  assert 0.9 * limit < np.abs(kernel).max() <= limit
  for tower in (
    params['image_encoder'],
    params['inverse_dynamics']['encoder']['tower'],
  ):
    kernel = tower['stage1_layer0']['conv1']['kernel']
    limit = np.sqrt(6 / (9 * sum(kernel.shape[2:])))
    assert 0.9 * limit < np.abs(kernel).max() <= limit
  same = params['image_encoder']['stage1_layer0']['conv1']['kernel']
  assert np.any(same != kernel)
  assert 'action_encoder' not in params


def test_parameter_sets_of_both_stages():
  assert _variables(False)['params'].keys() == _MODEL | {'inverse_dynamics'}
  tuned = _MODEL | {'action_encoder', 'reward', 'aux_reward'} | _LEARNER
  assert _variables(True)['params'].keys() == tuned
  assert set(_system().pretrained) == _MODEL
  assert not _system().sees_motion
  for name in _MODEL:
    shapes = (
      jax.tree.map(np.shape, _variables(stage)['params'][name])
      for stage in (False, True)
    )
    assert next(shapes) == next(shapes)


@functools.cache
def _jitted_finetuning():
  def step(state, batch, key, weights):
    system = dataclasses.replace(
      _system(), weights=world_model.LossWeights(**weights)
    )
    learner = random_inputs.recording(_config(), _A, system=system)
    return learner.update(state, batch, key)

  return jax.jit(step)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('loss', 'reached'),
  [
    ('image', {'image_encoder', 'image_decoder'}),
    ('kl_s', {'image_encoder'}),
    ('reward', {'image_encoder', 'reward'}),
    ('aux_reward', {'image_encoder', 'aux_reward'}),
  ],
)
def test_gradients_of_fine_tuning(loss, reached):
  state = random_inputs.finetune_state(
    random_inputs.recording(_config(), _A), _variables(True)
  )
  state, metrics = _jitted_finetuning()(
    state, _batch(), jax.random.key(3), {**_OFF, loss: 1.0}
  )
  gradients = {**state.model_opt, **state.behavior_opt}
  shared = {'latent_dynamics', 'action_encoder'}
  assert _reached(gradients) == reached | shared | _LEARNER
  np.testing.assert_allclose(
    metrics['loss/total'], metrics[f'loss/{loss}'], rtol=1e-6
  )
  # The bonus looks at embeddings.
  assert metrics['bonus/mean'] > 0
  embed_size = _system().model.latent_dynamics.embed_size
  assert state.intrinsic.matrix.shape[0] == embed_size


def test_imagination_acts_through_the_action_encoder():
  model, variables = _system().model, _variables(True)
  state = model.latent_dynamics.initial(_B)
  rng = np.random.default_rng(0)
  action = rng.uniform(-1, 1, (_B, _A)).astype(np.float32)

  def both(m):
    latent = m.action_encoder(action)
    return m.img_step(state, action, None), m.latent_dynamics.img_step(
      state, latent, None
    )

  found, expected = jax.jit(lambda v: model.apply(v, method=both))(variables)
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def _act_keys(t):
  return random_inputs.keys(100 + t, 1)


def test_acting_sees_what_training_sees():
  """policy_step over a clip = the batch pass with the same noise."""
  system, variables = _system(), _variables(True)
  model = system.model
  batch = random_inputs.replay_batch(None, _A, 1, _T, seed=7)
  act = jax.jit(functools.partial(system.policy_step, explore=True))
  carry, acted, actions = system.initial_carry(1, 4), [], []
  # What an episode before this one left behind must not matter.
  carry = jax.tree.map(lambda x: x + 0.5, carry)
  for t in range(_T):
    obs = types.Observation(
      image=batch.image[:, t], motion=None, is_first=batch.is_first[:, t]
    )
    carry, action = act(variables, carry, obs, _act_keys(t))
    assert carry.z is None and carry.cache is None
    acted.append(carry.s)
    actions.append(np.asarray(action))
  acted = jax.tree.map(lambda *x: np.stack(x, 1), *acted)
  shape = model.latent_dynamics.groups, model.latent_dynamics.classes
  gumbel = jnp.stack(
    [
      noise.draw(noise.split(_act_keys(t), 2)[0], jax.random.gumbel, shape)
      for t in range(_T)
    ],
    1,
  )

  def filtered(m, image, action):
    return m.latent_dynamics.observe(
      m.encode(images.to_float(image), False),
      m.action_encoder(action),
      batch.is_first,
      gumbel,
    )[0]

  # The action at step t led to frame t + 1.
  action = np.stack([np.zeros_like(actions[0]), *actions[:-1]], 1)
  s = jax.jit(lambda *args: model.apply(variables, *args, method=filtered))(
    batch.image, action
  )
  for part in ('deter', 'logits', 'stoch'):
    np.testing.assert_allclose(
      getattr(acted, part), getattr(s, part), atol=2e-4, err_msg=part
    )


def test_open_loop_prediction_follows_the_later_frames_latent_actions():
  """T6: each predicted frame by the pairs up to it, none after."""
  system, video, n = _system(), _video(), 3
  predict = jax.jit(functools.partial(system.open_loop, context_steps=n))
  # So that latent actions and modes of z depend on images.
  variables = jax.tree.map_with_path(
    lambda path, x: (
      20 * x if {'post_embed', 'action_in'} & {k.key for k in path} else x
    ),
    _variables(False),
  )

  def run(image):
    return predict(
      variables, video.replace(image=image), random_inputs.keys(0, _B)
    )

  recon, predicted = run(video.image)
  assert predicted.shape == (_B, _T, 64, 64, 3)
  np.testing.assert_array_equal(predicted[:, :n], recon[:, :n])
  image = video.image.copy()
  image[:, n + 1 :] = 255 - image[:, n + 1 :]
  _, other = run(image)
  np.testing.assert_array_equal(other[:, : n + 1], predicted[:, : n + 1])
  assert np.abs(other - predicted)[:, n + 1 :].max() > 1e-4
  # The latent actions alone are those of another clip, if one drives.
  (own_recon, own), (driven_recon, driven) = (
    predict(variables, video, random_inputs.keys(0, _B), driver=driver)
    for driver in (video, video.replace(image=image))
  )
  np.testing.assert_array_equal(driven_recon, own_recon)
  np.testing.assert_allclose(own, predicted, atol=1e-6)
  np.testing.assert_allclose(driven, other, atol=1e-6)


def test_a_wrong_rank_raises():
  config = finetune_dmcr.get_config('debug')
  config.agent, config.prelar.rank = 'prelar', 'soft'
  with pytest.raises(ValueError, match="config.prelar.rank='soft'.*'logistic'"):
    registry.build(config, _A, None)
  config.prelar.rank = 'logistic'
  system = registry.build(config, _A, None).system
  assert isinstance(system, prelar.PreLAR) and system.rank == 'logistic'


def test_sizes_of_the_paper():
  config = finetune_dmcr.get_config('paper')
  config.agent = 'prelar'
  system = registry.build(config, 4, None).system

  def counts(batch):
    shapes = jax.eval_shape(system.init, jax.random.key(0), batch)
    return {
      name: sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))
      for name, tree in shapes['params'].items()
    }

  found = counts(registry.build(config, 1, None).pretraining.example())
  assert found == {
    'image_encoder': 1_562_112,
    'image_decoder': 7_519_227,
    'latent_dynamics': 14_745_600 + 14 * 1024,  # 64 instead of 50 actions
    'inverse_dynamics': 4_841_360,
  }
  found = counts(registry.build(config, 4, None).finetuning.example())
  assert found['action_encoder'] == 5 * 1024 + 1025 * 64
