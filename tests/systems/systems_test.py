"""Tests of IPV, APV and DreamerV2: gradients, acting, and IPV against DRP."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from drp_jax import types
from drp_jax.ops import images, noise
from drp_jax.systems import registry, world_model
from drp_jax.systems.drp import drp

_B, _T, _A = 2, 6, 2
_OFF = dict(image=0.0, kl_s=0.0, reward=0.0, aux_reward=0.0, free_nats=0.0)
_LEARNER = {'actor', 'critic'}


@functools.cache
def _config(agent):
  config = finetune_dmcr.get_config('debug')
  config.agent = agent
  return config


@functools.cache
def _system(agent):
  return registry.build(_config(agent), _A, None).system


@functools.cache
def _variables(agent):
  """None of them zero."""
  batch = registry.build(_config(agent), _A, None).finetuning.example()
  shapes = jax.eval_shape(_system(agent).init, jax.random.key(0), batch)
  return random_inputs.fill(shapes)


def _batch():
  return random_inputs.replay_batch(None, _A, _B, _T)


@functools.cache
def _jitted_step(agent):
  """A whole update that hands out its gradients; weights are traced."""

  def step(state, batch, key, weights):
    system = dataclasses.replace(
      _system(agent), weights=world_model.LossWeights(**weights)
    )
    learner = random_inputs.recording(_config(agent), _A, system=system)
    return learner.update(state, batch, key)

  return jax.jit(step)


def _update(agent, batch=None, **changes):
  """Gradients by parameter set, the state after the update, and metrics."""
  system = _system(agent)
  state = random_inputs.finetune_state(
    random_inputs.recording(_config(agent), _A), _variables(agent)
  )
  weights = dataclasses.asdict(system.weights) | changes
  weights = {name: float(value) for name, value in weights.items()}
  state, metrics = _jitted_step(agent)(
    state, _batch() if batch is None else batch, jax.random.key(3), weights
  )
  return {**state.model_opt, **state.behavior_opt}, state, metrics


def _reached(gradients) -> set[str]:
  """Parameter sets with a gradient; all of their arrays must be finite."""
  for leaf in jax.tree.leaves(gradients):
    assert np.isfinite(leaf).all()
  return {
    name
    for name, tree in gradients.items()
    if any(np.any(leaf != 0) for leaf in jax.tree.leaves(tree))
  }


_LATENT = {'latent_dynamics', 'image_encoder'}
_IPV = [
  ('ipv', 'image', _LATENT | {'image_decoder', 'context_encoder'}),
  ('ipv', 'kl_s', _LATENT),
  ('ipv', 'reward', _LATENT | {'reward'}),
  ('ipv', 'aux_reward', _LATENT | {'aux_reward'}),
]
_DREAMERV2 = [
  ('dreamerv2', 'image', {'image_encoder', 'image_decoder'}),
  ('dreamerv2', 'kl_s', {'image_encoder'}),
  ('dreamerv2', 'reward', {'image_encoder', 'reward'}),
]
_APV = [
  ('apv', 'image', _LATENT | {'image_decoder'}),
  ('apv', 'reward', _LATENT | {'reward'}),
]


@pytest.mark.parametrize(
  ('agent', 'loss', 'reached'),
  [
    *_IPV,
    *_DREAMERV2,
    *(pytest.param(*case, marks=pytest.mark.slow) for case in _APV),
  ],
)
def test_each_loss_reaches_its_parameter_sets(agent, loss, reached):
  gradients, _, metrics = _update(agent, **{**_OFF, loss: 1.0})
  assert _reached(gradients) == reached | {'action_dynamics'} | _LEARNER
  np.testing.assert_allclose(
    metrics['loss/total'], metrics[f'loss/{loss}'], rtol=1e-6
  )


def test_what_pre_training_teaches_gets_no_loss_of_its_own_in_ipv():
  """No image and no KL of z while fine-tuning, whatever the weights."""
  plain, _, metrics = _update('ipv')
  changed, _, _ = _update('ipv', dyn=7.0, kl_z=7.0, mae=7.0)
  jax.tree.map(np.testing.assert_array_equal, changed, plain)
  assert not {'loss/image_z', 'loss/kl_z', 'loss/mae'} & metrics.keys()


def test_dreamerv2_learns_the_plain_reward_of_all_steps():
  batch = _batch()
  _, state, base = _update('dreamerv2')
  assert state.intrinsic is None
  assert base['bonus/mean'] == 0
  reward = batch.reward.copy()
  reward[:, -1] += 10.0
  _, _, late = _update('dreamerv2', batch.replace(reward=reward))
  assert abs(late['loss/reward'] - base['loss/reward']) > 1


def test_ipv_has_a_bonus_of_z():
  _, state, metrics = _update('ipv')
  assert metrics['bonus/mean'] > 0
  size = _B * (_T - _config('ipv').intrinsic.window + 1)
  assert state.intrinsic.count == size
  assert _system('ipv').bonus_size == state.intrinsic.matrix.shape[0]


def test_running_statistics_move_and_nothing_else_of_the_collections():
  variables = _variables('ipv')
  _, state, _ = _update('ipv')
  assert state.collections.keys() == {'batch_stats'}
  moved = jax.tree.map(
    lambda a, b: np.any(a != b),
    state.collections['batch_stats'],
    variables['batch_stats'],
  )
  assert all(jax.tree.leaves(moved))
  assert _variables('dreamerv2').keys() == {'params'}


def test_parameter_sets_of_the_systems():
  dreamerv2 = {'image_encoder', 'image_decoder', 'action_dynamics', 'reward'}
  apv = dreamerv2 | {'latent_dynamics'}
  ipv = apv | {'context_encoder', 'aux_reward'}
  for agent, names in (('dreamerv2', dreamerv2), ('apv', apv), ('ipv', ipv)):
    params = _variables(agent)['params']
    assert params.keys() == names | _LEARNER
    context = [name for name in params['image_decoder'] if 'context' in name]
    assert bool(context) == (agent == 'ipv')


def test_what_is_pre_trained():
  names = {'image_encoder', 'image_decoder', 'latent_dynamics'}
  assert set(_system('apv').pretrained) == names
  assert set(_system('ipv').pretrained) == names | {'context_encoder'}
  assert _system('dreamerv2').pretrained == ()
  for agent in ('ipv', 'apv', 'dreamerv2'):
    assert not _system(agent).sees_motion
  assert _system('drp').sees_motion


@pytest.mark.slow
@pytest.mark.parametrize('agent', ['ipv', 'apv'])
def test_pre_training_teaches_what_is_loaded(agent):
  system, variables = _system(agent), _variables(agent)
  video = random_inputs.video_batch(None, _B, _T)
  params = {name: variables['params'][name] for name in system.pretrained}
  shapes = jax.eval_shape(system.init, jax.random.key(0), video)
  assert shapes['params'].keys() == params.keys()

  @jax.jit
  def run(params, keys):
    return jax.grad(system.pretrain_loss, has_aux=True)(
      params, {'batch_stats': variables['batch_stats']}, video, keys
    )

  gradients, (collections, metrics) = run(params, random_inputs.keys(0, _B))
  assert _reached(gradients) == set(system.pretrained)
  assert collections.keys() == {'batch_stats'}
  np.testing.assert_allclose(
    metrics['loss/total'],
    metrics['loss/image_z'] + system.weights.kl_z * metrics['loss/kl_z'],
    rtol=1e-5,
  )


def test_open_loop_prediction_of_ipv_sees_only_the_context_frames():
  system, n = _system('ipv'), 3
  video = random_inputs.video_batch(None, _B, _T)
  predict = jax.jit(functools.partial(system.open_loop, context_steps=n))
  # So that modes of z depend on the image.
  variables = jax.tree.map_with_path(
    lambda path, x: 50 * x if 'post_embed' in str(path) else x,
    _variables('ipv'),
  )

  def run(image):
    return predict(
      variables, video.replace(image=image), random_inputs.keys(0, _B)
    )

  recon, predicted = run(video.image)
  assert predicted.shape == (_B, _T, 64, 64, 3)
  np.testing.assert_array_equal(predicted[:, :n], recon[:, :n])
  image = video.image.copy()
  image[:, n:] = 255 - image[:, n:]
  other_recon, other = run(image)
  np.testing.assert_array_equal(other, predicted)
  assert np.abs(other_recon - recon)[:, n:].max() > 1e-3
  # Nothing drives them.
  assert not system.follows_motion
  ignored = predict(
    variables,
    video,
    random_inputs.keys(0, _B),
    driver=video.replace(image=image),
  )
  np.testing.assert_array_equal(ignored[1], predicted)


def _act_keys(t):
  return random_inputs.keys(100 + t, 1)


def _gumbel(dynamics, split, which, steps):
  shape = (dynamics.groups, dynamics.classes)
  return jnp.stack(
    [
      noise.draw(
        noise.split(_act_keys(t), split)[which], jax.random.gumbel, shape
      )
      for t in range(steps)
    ],
    1,
  )


@pytest.mark.parametrize('agent', ['ipv', 'dreamerv2'])
def test_acting_sees_what_training_sees(agent):
  """policy_step over a clip = the batch pass with the same noise."""
  system, variables = _system(agent), _variables(agent)
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
    assert carry.cache is None
    np.testing.assert_array_equal(carry.action, action)
    acted.append(carry.s)
    actions.append(np.asarray(action))
  acted = jax.tree.map(lambda *x: np.stack(x, 1), *acted)

  def ipv(module, image, action):
    zeros = jnp.zeros([1, _T, 50])
    embed = module.encode(images.to_float(image), False)
    z, _ = module.observe_z(
      embed, zeros, batch.is_first, _gumbel(model.latent_dynamics, 3, 0, _T)
    )
    gumbel = _gumbel(model.action_dynamics, 3, 1, _T)
    return module.observe_s(z.feat, embed, action, batch.is_first, gumbel)[0]

  def dreamerv2(module, image, action):
    gumbel = _gumbel(model.action_dynamics, 2, 0, _T)
    return module.action_dynamics.observe(
      module.encode(images.to_float(image)), action, batch.is_first, gumbel
    )[0]

  # The action at step t led to frame t + 1.
  action = np.stack([np.zeros_like(actions[0]), *actions[:-1]], 1)
  s = jax.jit(
    lambda *args: model.apply(
      variables, *args, method=dict(ipv=ipv, dreamerv2=dreamerv2)[agent]
    )
  )(batch.image, action)
  for part in ('deter', 'logits', 'stoch'):
    np.testing.assert_allclose(
      getattr(acted, part), getattr(s, part), atol=2e-4, err_msg=part
    )


def test_ipv_is_drp_without_adapter_motion_and_its_losses():
  """DRP around IPV's own networks; a_agg is 0 as its last norm gives 0."""
  config = finetune_dmcr.get_config('debug')
  config.dae.width = 50  # IPV's slot for actions
  ipv, K = _system('ipv'), config.dae.num_keypoints
  weights = dataclasses.replace(ipv.weights, mae=0.0, dyn=0.0)
  both = dataclasses.replace(
    registry.build(config, _A, None).system, model=ipv.model, weights=weights
  )
  assert isinstance(both, drp.DRP) and both.model.adapter is None
  batch = random_inputs.replay_batch(K, _A, _B, _T)
  motion = random_inputs.fill(
    jax.eval_shape(
      both.deconstruction.init,
      jax.random.key(0),
      batch.motion,
      batch.is_first,
      random_inputs.keys(0, _B),
    )
  )
  norm = motion['params']['dae']['norm']
  motion['params']['dae']['norm'] = jax.tree.map(np.zeros_like, norm)
  variables = _variables('ipv')

  @functools.partial(jax.jit, static_argnums=0)
  def run(system, variables, batch, keys):
    params = variables.pop('params')
    return system.world_model_loss(
      params,
      variables,
      batch,
      keys,
      lambda feat, _: (feat[:, :2].mean(-1), None),
    )

  loss, out = run(
    ipv,
    dict(variables),
    batch.replace(motion=None),
    random_inputs.keys(5, _B),
  )

  def run_both():
    params = {**variables['params'], **motion['params']}
    return run(
      both,
      {**variables, **motion, 'params': params},
      batch,
      random_inputs.keys(5, _B),
    )

  other_loss, other = run_both()
  np.testing.assert_allclose(other_loss, loss, rtol=1e-6)
  for name, value in out.metrics.items():
    np.testing.assert_allclose(
      other.metrics[name], value, rtol=1e-6, atol=1e-7, err_msg=name
    )
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6),
    other.s,
    out.s,
  )
  assert float(other.metrics['a_agg/std']) == 0.0
  # With a_agg it is another model: what s observes changes.
  motion['params']['dae']['norm'] = norm
  moved_loss, moved = run_both()
  assert abs(moved_loss - loss) > 1e-3
  assert np.abs(moved.s.logits - out.s.logits).max() > 1e-3
