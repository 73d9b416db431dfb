"""Tests of the whole system: indices, gradients, acting against training."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from drp_jax import types
from drp_jax.ops import images, noise
from drp_jax.systems import world_model

_OFF = dict(
  mae=0, dyn=0, image=0, kl_z=0, kl_s=0, reward=0, aux_reward=0, free_nats=0
)
_LATENT = {'dae', 'latent_dynamics', 'image_encoder'}
_DECODER = {'image_decoder', 'context_encoder'}


def _reached(gradients) -> set[str]:
  """Parameter sets with a gradient; all of their arrays must be finite."""
  for leaf in jax.tree.leaves(gradients):
    assert np.isfinite(leaf).all()
  return {
    name
    for name, tree in gradients.items()
    if any(np.any(leaf != 0) for leaf in jax.tree.leaves(tree))
  }


@pytest.fixture(scope='module')
def pretrain_gradients(system, variables, video_batch):
  """A function of loss weights, the others 0: gradients by parameter set."""

  @jax.jit
  def run(params, weights, keys):
    weighted = dataclasses.replace(
      system, weights=world_model.LossWeights(**weights)
    )
    collections = {k: v for k, v in variables.items() if k != 'params'}
    return jax.grad(weighted.pretrain_loss, has_aux=True)(
      params, collections, video_batch, keys
    )[0]

  params = {name: variables['params'][name] for name in system.pretrained}

  def call(**weights):
    weights = dataclasses.asdict(system.weights) | _OFF | weights
    weights = {name: float(value) for name, value in weights.items()}
    return jax.device_get(run(params, weights, random_inputs.keys(0)))

  return call


@pytest.mark.parametrize(
  ('weights', 'reached'),
  [
    ({}, set()),  # policy learning leaves the world model alone
    (dict(mae=1), {'dae', 'mae_decoder'}),
    (dict(dyn=1), _LATENT | _DECODER),  # the image from z, without KL
    (dict(dyn=1, kl_z=1), _LATENT | _DECODER),
    (dict(image=1), _LATENT | _DECODER | {'adapter', 'action_dynamics'}),
    (dict(kl_s=1), _LATENT | {'adapter', 'action_dynamics'}),
    (dict(reward=1), _LATENT | {'adapter', 'action_dynamics', 'reward'}),
    (
      dict(aux_reward=1),
      _LATENT | {'adapter', 'action_dynamics', 'aux_reward'},
    ),
  ],
  ids=lambda x: '+'.join(sorted(x)) or 'none' if isinstance(x, dict) else '',
)
def test_each_loss_reaches_its_parameter_sets(
  finetune_gradients, replay_batch, weights, reached
):
  """C2: L_dyn teaches [MAT] and the DAE; D4: L_action's gradient flows on."""
  gradients, _, _ = finetune_gradients(replay_batch, **{**_OFF, **weights})
  learner = {'actor', 'critic'}  # policy learning has no weight
  assert _reached(gradients) == reached | learner
  mat = np.asarray(gradients['dae']['tokens']['mat'])
  assert np.any(mat != 0) == ('dae' in reached)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('weights', 'reached'),
  [
    (dict(mae=1), {'dae', 'mae_decoder'}),
    (dict(dyn=1), _LATENT | _DECODER),
    (dict(dyn=1, kl_z=1), _LATENT | _DECODER),
  ],
  ids=['mae', 'dyn', 'dyn+kl_z'],
)
def test_each_loss_of_pre_training_reaches_its_parameter_sets(
  pretrain_gradients, weights, reached
):
  """C1: one sum of two losses; C2: L_dyn teaches [MAT] and the DAE."""
  gradients = pretrain_gradients(**weights)
  assert _reached(gradients) == reached
  assert np.any(gradients['dae']['tokens']['mat'] != 0)


def test_weights_scale_losses(finetune_gradients, replay_batch):
  _, _, metrics = finetune_gradients(
    replay_batch,
    mae=2,
    dyn=3,
    image=5,
    kl_z=7,
    kl_s=11,
    reward=13,
    aux_reward=17,
    free_nats=0,
  )
  loss = {
    name: float(metrics[f'loss/{name}'])
    for name in (
      'mae',
      'image_z',
      'kl_z',
      'image',
      'kl_s',
      'reward',
      'aux_reward',
    )
  }
  expected = 2 * loss['mae'] + 3 * (loss['image_z'] + 7 * loss['kl_z'])
  expected += 5 * loss['image'] + 11 * loss['kl_s']
  expected += 13 * loss['reward'] + 17 * loss['aux_reward']
  np.testing.assert_allclose(metrics['loss/total'], expected, rtol=1e-5)
  np.testing.assert_allclose(metrics['kl/z'], loss['kl_z'], rtol=1e-5)


def test_free_nats_stop_both_kls(finetune_gradients, replay_batch):
  weights = {**_OFF, 'dyn': 1, 'kl_z': 1, 'kl_s': 1}
  without, _, _ = finetune_gradients(replay_batch, **{**_OFF, 'dyn': 1})
  gradients, _, metrics = finetune_gradients(
    replay_batch, **{**weights, 'free_nats': 1000}
  )
  np.testing.assert_allclose(metrics['loss/kl_z'], 1000, rtol=1e-6)
  np.testing.assert_allclose(metrics['loss/kl_s'], 1000, rtol=1e-6)
  assert 'action_dynamics' not in _reached(gradients)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5),
    gradients['latent_dynamics'],
    without['latent_dynamics'],
  )


def test_behavioral_reward_ends_with_the_last_window(
  config, finetune_gradients, replay_batch
):
  """Its head sees T - 4 steps with the bonus, the other one all (1.3)."""
  n = random_inputs.T - config.intrinsic.window + 1
  _, _, base = finetune_gradients(replay_batch)
  reward = replay_batch.reward.copy()
  reward[:, n:] += 10.0
  _, _, late = finetune_gradients(replay_batch.replace(reward=reward))
  assert late['loss/reward'] == base['loss/reward']
  assert abs(late['loss/aux_reward'] - base['loss/aux_reward']) > 1
  reward = replay_batch.reward.copy()
  reward[:, n - 1] += 10.0
  _, _, early = finetune_gradients(replay_batch.replace(reward=reward))
  assert abs(early['loss/reward'] - base['loss/reward']) > 1


def test_what_happened_before_the_first_entry_is_ignored(
  finetune_gradients, replay_batch
):
  """The action and the motion that led to a segment's first frame."""
  action = replay_batch.action.copy()
  motion = jax.tree.map(np.copy, replay_batch.motion)
  action[:, 0] += 1.0
  motion.flow[:, 0] += 3.0
  motion.points[:, 0] += 5.0
  changed = replay_batch.replace(action=action, motion=motion)
  base, _, base_metrics = finetune_gradients(replay_batch)
  other, _, metrics = finetune_gradients(changed)
  assert metrics['loss/total'] == base_metrics['loss/total']
  jax.tree.map(np.testing.assert_array_equal, other, base)


def test_policy_learning_reads_s_only(system, variables):
  """Imagination needs no aggregated actions and no z (D10)."""
  world = {
    name: jax.tree.map(lambda x: x * np.nan, tree)
    if name not in ('action_dynamics', 'reward', 'actor', 'critic')
    else tree
    for name, tree in variables['params'].items()
  }
  learner = {name: world[name] for name in ('actor', 'critic')}
  rng = np.random.default_rng(0)
  groups = (8, 4, 4)
  start = types.RSSMState(
    deter=rng.normal(size=(8, 16)).astype(np.float32),
    stoch=np.eye(4, dtype=np.float32)[rng.integers(0, 4, groups[:2])],
    logits=rng.normal(size=groups).astype(np.float32),
  )

  @jax.jit
  def run(world, key):
    return jax.grad(system.behavior_loss, has_aux=True)(
      learner,
      variables['params']['critic'],
      world,
      {'constants': variables['constants']},
      start,
      np.zeros(8, bool),
      noise.example_keys(key, 0, 2),
    )

  gradients, metrics = run(world, jax.random.key(0))
  assert _reached(gradients) == {'actor', 'critic'}
  assert np.isfinite(metrics['loss/actor'])


def test_starts_are_all_posteriors_sequence_by_sequence(system):
  state = types.RSSMState(
    deter=np.arange(24.0).reshape(2, 3, 4),
    stoch=np.zeros((2, 3, 1, 1)),
    logits=np.zeros((2, 3, 1, 1)),
  )
  output = dataclasses.make_dataclass('Output', ['s'])(state)
  starts = system.start_states(output)
  np.testing.assert_array_equal(starts.deter, np.arange(24.0).reshape(6, 4))


@functools.cache
def _deconstruct(system):
  def run(variables, batch, keys):
    out = system.deconstruction.apply(
      variables, batch.motion, batch.is_first, keys
    )
    return [out.recon, out.patches, out.hidden, out.tokens]

  return jax.jit(run)


def test_hidden_patches_reach_neither_reconstruction_nor_masked_tokens(
  system, variables
):
  """Patches are cropped from one field, so each frame has a field a point."""
  K = 1  # then hiding a token hides its frame's whole field
  batch = random_inputs.video_batch(K)
  keys = random_inputs.keys
  recon, u, hidden, full = _deconstruct(system)(variables, batch, keys(0))
  hidden = np.asarray(hidden)
  assert 0 < hidden.sum() < hidden.size
  flow = batch.motion.flow.copy()
  flow[hidden[:, :, 0]] += 1.0
  changed = batch.replace(motion=batch.motion.replace(flow=flow))
  recon2, u2, hidden2, full2 = _deconstruct(system)(variables, changed, keys(0))
  np.testing.assert_array_equal(hidden2, hidden)
  assert np.abs(u2 - u)[hidden].min() > 0
  np.testing.assert_array_equal(recon2, recon)
  # The pass that gives a_agg is not masked (B15), so it does see the change.
  assert np.abs(full2 - full)[:, :, 0][hidden[:, :, 0]].max() > 1e-3


def test_a_agg_is_zero_at_first_entries(system, variables, video_batch):
  *_, full = _deconstruct(system)(variables, video_batch, random_inputs.keys(0))
  np.testing.assert_array_equal(full[:, 0], 0)
  assert (np.abs(full[:, 1:, 0]).max(-1) > 1e-3).all()


def test_a_agg_sees_motion_up_to_its_frame_and_nothing_else(
  system, variables, replay_batch
):
  """What drives z in the loss: no images, actions or rewards, no future."""

  @jax.jit
  def what_drives_z(variables, batch, keys):
    seen = []

    def listen(call, args, kwargs, context):
      module, method = context.module.path, context.method_name
      if module == ('latent_dynamics',) and method == 'observe':
        seen.append(args[1])
      return call(*args, **kwargs)

    params = variables.pop('params')
    with nn.intercept_methods(listen):
      system.world_model_loss(
        params, variables, batch, keys, lambda feat, _: (feat[:, :2, 0], None)
      )
    (a_agg,) = seen
    return a_agg

  def run(batch):
    return what_drives_z(dict(variables), batch, random_inputs.keys(0))

  base = run(replay_batch)
  other = replay_batch.replace(
    image=255 - replay_batch.image,
    action=-replay_batch.action,
    reward=replay_batch.reward + 1.0,
  )
  np.testing.assert_array_equal(run(other), base)
  for t in (1, 4):
    motion = jax.tree.map(np.copy, replay_batch.motion)
    motion.flow[:, t:] += 1.0
    motion.points[:, t:] = 63.0 - motion.points[:, t:]
    out = run(replay_batch.replace(motion=motion))
    np.testing.assert_array_equal(out[:, :t], base[:, :t])
    assert (np.abs(out - base)[:, t:].max(-1) > 1e-3).all()


def _act_keys(t):
  return random_inputs.keys(100 + t, 1)


def test_acting_sees_what_training_sees(config, system, variables):
  """policy_step over a clip = the batch pass with the same noise.

  30 steps cross from one tracking window into the next. Running statistics in
  both.
  """
  T, K = 30, config.dae.num_keypoints
  batch = random_inputs.replay_batch(K, 2, 1, T, seed=7)
  step = (np.maximum(np.arange(T) - 1, 0) % 24).astype(np.int32)
  motion = batch.motion.replace(window_step=step[None])
  model = system.model

  act = jax.jit(functools.partial(system.policy_step, explore=True))
  carry, acted, actions = system.initial_carry(1, K), [], []
  # What an episode before this one left behind must not matter.
  carry = jax.tree.map(lambda x: x + 0.5, carry)
  for t in range(T):
    obs = types.Observation(
      image=batch.image[:, t],
      motion=jax.tree.map(lambda x, t=t: x[:, t], motion),
      is_first=batch.is_first[:, t],
    )
    carry, action = act(variables, carry, obs, _act_keys(t))
    acted.append((carry.z, carry.s))
    actions.append(np.asarray(action))
  acted = jax.tree.map(lambda *x: np.stack(x, 1), *acted)

  def gumbel(which, dynamics):
    shape = (dynamics.groups, dynamics.classes)
    return jnp.stack(
      [
        noise.draw(
          noise.split(_act_keys(t), 3)[which], jax.random.gumbel, shape
        )
        for t in range(T)
      ],
      1,
    )

  def whole(module, a_agg, image, action, z_gumbel, s_gumbel):
    embed = module.encode(images.to_float(image), False)
    z, _ = module.observe_z(embed, a_agg, batch.is_first, z_gumbel)
    s, _ = module.observe_s(z.feat, embed, action, batch.is_first, s_gumbel)
    return z, s

  # The action at step t led to frame t + 1.
  action = np.stack([np.zeros_like(actions[0]), *actions[:-1]], 1)
  a_agg = jax.jit(
    lambda motion: system.deconstruction.apply(
      variables, motion, batch.is_first, method='aggregate'
    )
  )(motion)
  z, s = jax.jit(lambda *args: model.apply(variables, *args, method=whole))(
    a_agg,
    batch.image,
    action,
    gumbel(0, model.latent_dynamics),
    gumbel(1, model.action_dynamics),
  )
  for name, a, b in (('z', acted[0], z), ('s', acted[1], s)):
    for part in ('deter', 'logits', 'stoch'):
      np.testing.assert_allclose(
        getattr(a, part), getattr(b, part), atol=2e-4, err_msg=f'{name}.{part}'
      )


def test_mode_actions_have_no_noise_of_their_own(config, system, variables):
  K = config.dae.num_keypoints
  batch = random_inputs.replay_batch(K, 2, 1, 1)
  obs = types.Observation(
    image=batch.image[:, 0],
    motion=jax.tree.map(lambda x: x[:, 0], batch.motion),
    is_first=batch.is_first[:, 0],
  )
  carry, action = jax.jit(functools.partial(system.policy_step, explore=False))(
    variables, system.initial_carry(1, K), obs, _act_keys(0)
  )
  mean, _ = system.model.apply(
    variables, carry.s.feat, method=lambda model, feat: model.actor(feat)
  )
  np.testing.assert_allclose(action, mean, atol=1e-5)
  np.testing.assert_array_equal(carry.action, action)
