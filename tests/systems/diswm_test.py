"""Tests of DisWM: losses by hand, the frozen teacher, its schedule, acting."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import random_inputs

from configs import finetune_dmcr
from configs import pretrain as pretrain_config
from drp_jax import types
from drp_jax.models import rssm
from drp_jax.ops import distributions, noise
from drp_jax.runs import checkpoint
from drp_jax.systems import registry
from drp_jax.systems.diswm import diswm, networks

_B, _T, _A = 2, 6, 2
_LEARNER = {'actor', 'critic'}
_STUDENT = {'image_encoder', 'image_decoder', 'action_dynamics', 'reward'}
_PRETRAINED = {'teacher', 'image_decoder', 'action_dynamics'}


@functools.cache
def _config():
  config = finetune_dmcr.get_config('debug')
  config.agent = 'diswm'
  config.init_from = 'somewhere'  # so that there is a teacher
  return config


@functools.cache
def _system():
  return registry.build(_config(), _A, None).system


@functools.cache
def _variables():
  """None of them zero, but the count of updates."""
  batch = registry.build(_config(), _A, None).finetuning.example()
  return random_inputs.fill(
    jax.eval_shape(_system().init, jax.random.key(0), batch)
  )


def _batch(batch=_B, seed=0):
  return random_inputs.replay_batch(None, _A, batch, _T, seed)


def _reached(gradients) -> set[str]:
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
  return {
    name
    for name, tree in gradients.items()
    if any(np.any(leaf != 0) for leaf in jax.tree.leaves(tree))
  }


@pytest.mark.parametrize(
  ('schedule', 'weights'),
  [
    ('intended', (0.1, 0.05, 0.01, 0.01, 0.01)),
    ('cross_domain', (0.0, 0.0, 0.1, 0.05, 0.01)),
    ('released', (0.095,) * 5),
  ],
)
def test_weight_of_distillation_at_several_counts(schedule, weights):
  """Half of 50,000 agent steps are 5000 updates, one every 5 steps."""
  config = finetune_dmcr.get_config()
  config.agent, config.init_from = 'diswm', 'somewhere'
  config.diswm.schedule = schedule
  settings = registry.build(config, _A, None).system.settings
  for updates, weight in zip(
    (0, 5_000, 10_000, 15_000, 90_000), weights, strict=True
  ):
    found = diswm.distill_weight(settings, jnp.int32(updates))
    np.testing.assert_allclose(found, weight, rtol=1e-5)


def test_nothing_is_distilled_from_a_random_teacher():
  config = finetune_dmcr.get_config('debug')
  config.agent = 'diswm'
  assert registry.build(config, _A, None).system.settings.distill_scale == 0
  config.init_from = 'somewhere'
  assert registry.build(config, _A, None).system.settings.distill_scale == 0.1
  config.init_without = ('teacher',)
  assert registry.build(config, _A, None).system.settings.distill_scale == 0


def test_distillation_by_hand():
  """softmax(0, ln 3) = 1/4, 3/4 against 1/2, 1/2; 3 frames, the sum of them."""
  teacher = jnp.tile(jnp.log(jnp.array([1.0, 3.0])), (2, 3, 1))
  student = jnp.full([2, 3, 2], 7.0)
  frame = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
  found = diswm.distill_loss(teacher, student)
  np.testing.assert_allclose(found, 3 * frame, rtol=1e-5)
  to_teacher = jax.grad(diswm.distill_loss)(teacher, student)
  assert not to_teacher.any()
  # d KL / d logits = softmax(student) - softmax(teacher), over the batch.
  to_student = jax.grad(diswm.distill_loss, 1)(teacher, student)
  np.testing.assert_allclose(to_student[1, 2], [0.125, -0.125], rtol=1e-5)


def test_divergences_of_normals_by_hand():
  """KL(N(1, 2) || N(0, 1)) = (4 + 1 - 1 - ln 4) / 2; two latents, two frames.

  Codes have the same to the standard normal, a mean over frames of sums.
  """
  one = 0.5 * (4 - np.log(4.0))
  p = jnp.array([[1.0, 2.0], [0.0, 1.0]])  # [S, (mean, std)]
  q = jnp.array([[0.0, 1.0], [0.0, 1.0]])
  np.testing.assert_allclose(diswm._normals_kl(p, q), one, rtol=1e-6)
  codes = networks.Codes(
    mean=jnp.array([[[1.0, 0.0], [1.0, 1.0]]]),
    std=jnp.array([[[2.0, 1.0], [2.0, 2.0]]]),
  )
  np.testing.assert_allclose(diswm._code_kl(codes), 1.5 * one, rtol=1e-6)


def test_states_are_normal():
  """std = 2 sigmoid(raw / 2) + 0.1; sample = mean + std noise; mode = mean."""
  model = rssm.RSSM(3, 4, 5, 1, _A, 2, normal=True)
  state = model.initial(_B)
  assert state.stoch.shape == (_B, 5, 1) and state.logits.shape == (_B, 5, 2)
  assert state.feat.shape == (_B, model.feat_size) == (_B, 8)
  action, eps = jnp.ones([_B, _A]), jnp.full([_B, 5, 1], 2.0)
  variables = model.init(
    jax.random.key(0), state, action, eps, method=model.img_step
  )
  step = jax.jit(
    lambda eps: model.apply(
      variables, state, action, eps, method=model.img_step
    )
  )
  sample = step(eps)
  mean, std = sample.logits[..., :1], sample.logits[..., 1:]
  np.testing.assert_allclose(sample.stoch, mean + 2 * std, rtol=1e-6)
  mode = model.apply(variables, state, action, None, method=model.img_step)
  np.testing.assert_allclose(mode.stoch, mean, rtol=1e-5)
  out = variables['params']['prior_out']
  raised = {**out, 'bias': out['bias'] + 100.0}
  variables = {'params': {**variables['params'], 'prior_out': raised}}
  np.testing.assert_allclose(step(eps).logits[..., 1], std[..., 0])
  wide = model.apply(variables, state, action, None, method=model.img_step)
  np.testing.assert_allclose(wide.logits[..., 1], 2.1, rtol=1e-5)


@functools.cache
def _jitted_loss():
  """Gradients and metrics; the weights of losses are traced."""

  def run(params, weights, settings, updates):
    system = _system()
    system = dataclasses.replace(
      system,
      weights=dataclasses.replace(system.weights, **weights),
      settings=dataclasses.replace(system.settings, **settings),
    )
    return jax.grad(system.world_model_loss, has_aux=True)(
      params,
      {'progress': {'updates': updates}},
      _batch(),
      random_inputs.keys(0, _B),
      None,  # it has no bonus
    )

  return jax.jit(run)


def _loss(updates=0, **changes):
  model = {
    name: tree
    for name, tree in _variables()['params'].items()
    if name not in _LEARNER
  }
  off = dict(image=0.0, kl_s=0.0)
  own = dict(beta=0.0, reward_scale=0.0, distill_scale=0.0, free_nats=0.0)
  weights = {name: changes.get(name, off[name]) for name in off}
  settings = {name: changes.get(name, own[name]) for name in own}
  return _jitted_loss()(model, weights, settings, jnp.int32(updates))


@pytest.mark.parametrize(
  ('term', 'name', 'reached'),
  [
    ('image', 'image', _STUDENT - {'reward'}),
    ('kl_s', 'kl_s', {'image_encoder', 'action_dynamics'}),
    ('reward_scale', 'reward', _STUDENT - {'image_decoder'}),
    ('beta', 'code', {'image_encoder'}),
    ('distill_scale', 'distill', {'image_encoder'}),
  ],
)
def test_each_loss_reaches_its_parameter_sets_and_never_the_teacher(
  term, name, reached
):
  gradients, out = _loss(**{term: 2.0})
  assert gradients.keys() == _STUDENT | {'teacher'}
  assert _reached(gradients) == reached
  np.testing.assert_allclose(
    out.metrics['loss/total'], 2 * out.metrics[f'loss/{name}'], rtol=1e-5
  )
  assert out.metrics[f'loss/{name}'] > 0


def test_the_weight_falls_with_the_count_of_updates():
  """debug: one update every 10 agent steps, 5000 in all."""
  for updates, weight in ((0, 0.1), (2500, 0.05), (9000, 0.01)):
    _, out = _loss(updates, distill_scale=0.1)
    np.testing.assert_allclose(out.metrics['distill_weight'], weight, rtol=1e-5)
    np.testing.assert_allclose(
      out.metrics['loss/total'],
      weight * out.metrics['loss/distill'],
      rtol=1e-5,
    )
    assert out.collections['progress']['updates'] == updates + 1


def test_acting_sees_what_training_sees():
  """policy_step over a clip = the batch pass with the same noise."""
  system, variables = _system(), _variables()
  model, batch = system.model, _batch(1, seed=7)
  act = jax.jit(functools.partial(system.policy_step, explore=True))
  carry = jax.tree.map(lambda x: x + 0.5, system.initial_carry(1, 4))
  acted, actions, codes, normals = [], [], [], []
  for t in range(_T):
    key = random_inputs.keys(100 + t, 1)
    for drawn, own, shape in zip(
      (codes, normals),
      noise.split(noise.split(random_inputs.keys(100 + t, 1), 2)[0], 2),
      ((20,), (model.action_dynamics.groups, 1)),
      strict=True,
    ):
      drawn.append(noise.draw(own, jax.random.normal, shape))
    obs = types.Observation(
      image=batch.image[:, t], motion=None, is_first=batch.is_first[:, t]
    )
    carry, action = act(variables, carry, obs, key)
    assert (np.abs(action) < 1).all()
    acted.append(carry.s)
    actions.append(np.asarray(action))

  def filtered(module, action):
    image = batch.image.astype(np.float32) / 255 - 0.5
    mean, std = module.image_encoder(image)
    code = mean + std * jnp.stack(codes, 1)
    return module.action_dynamics.observe(
      code, action, batch.is_first, jnp.stack(normals, 1)
    )[0]

  # The action at step t led to frame t + 1.
  action = np.stack([np.zeros_like(actions[0]), *actions[:-1]], 1)
  s = jax.jit(lambda a: model.apply(variables, a, method=filtered))(action)
  acted = jax.tree.map(lambda *x: np.stack(x, 1), *acted)
  for part in ('deter', 'logits', 'stoch'):
    np.testing.assert_allclose(
      getattr(acted, part), getattr(s, part), atol=2e-4, err_msg=part
    )


@pytest.mark.slow
def test_both_stages_train_load_save_and_go_on(tmp_path):
  """Two steps each; the teacher stays as videos left it, bit by bit."""
  config = pretrain_config.get_config('debug')
  config.agent = 'diswm'
  built = registry.build(config, 1, None)
  system, state = built.system, built.pretraining.init(1.0)
  assert state.params.keys() == _PRETRAINED
  first = jax.device_get(state)
  step = jax.jit(built.pretraining.update)
  video = random_inputs.video_batch(None, _B, _T)
  for _ in range(2):
    state, metrics = step(state, video, jax.random.key(1))
  assert metrics['skipped'] == 0
  np.testing.assert_allclose(
    metrics['loss/total'],
    metrics['loss/image_z']
    + metrics['loss/kl_z']
    + 0.015 * metrics['loss/code'],
    rtol=1e-5,
  )
  change = jax.tree.map(lambda a, b: a - b, state.params, first.params)
  assert _reached(change) == _PRETRAINED
  recon, predicted = jax.jit(
    functools.partial(system.open_loop, context_steps=3)
  )({'params': state.params}, video, random_inputs.keys(0, _B))
  assert predicted.shape == video.image.shape
  np.testing.assert_array_equal(predicted[:, :3], recon[:, :3])
  saved = checkpoint.Checkpoints(tmp_path / 'pretrain')
  saved.save(2, state, {})
  saved.close()

  config = finetune_dmcr.get_config('debug')
  config.agent, config.init_from = 'diswm', str(tmp_path / 'pretrain')
  learner = registry.build(config, _A, None).finetuning
  begun = learner.init()
  teacher = jax.device_get(state.params['teacher'])
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.device_get(begun.params)['teacher'],
    teacher,
  )
  moments = jax.tree.flatten_with_path(begun.model_opt)[0]
  paths = [jax.tree_util.keystr(path) for path, _ in moments]
  assert any('image_encoder' in path for path in paths)
  assert not any('teacher' in path for path in paths)
  step = jax.jit(learner.update)
  once, metrics = step(begun, _batch(), jax.random.key(3))
  np.testing.assert_allclose(metrics['distill_weight'], 0.1, rtol=1e-6)
  folder = checkpoint.Checkpoints(tmp_path / 'finetune')
  folder.save(1, once, {})
  twice, metrics = step(once, _batch(), jax.random.key(3))
  assert metrics['skipped'] == 0
  assert twice.collections['progress']['updates'] == twice.step == 2
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.device_get(twice.params)['teacher'],
    teacher,
  )
  change = jax.tree.map(lambda a, b: a - b, twice.params, begun.params)
  assert _reached(change) == _STUDENT | _LEARNER
  restored, _ = folder.restore(begun)
  folder.close()
  again, _ = step(restored, _batch(), jax.random.key(3))
  jax.tree.map(
    np.testing.assert_array_equal,
    jax.device_get(again),
    jax.device_get(twice),
  )


def test_codes_are_drawn_around_their_means():
  """And the KL of codes is that of what they are drawn from."""
  _, out = _loss(beta=1.0)
  mean, std = jax.jit(
    lambda x: _system().model.apply(
      _variables(), x, method=lambda m, x: m.image_encoder(x)
    )
  )(_batch().image.astype(np.float32) / 255 - 0.5)
  expected = distributions.normal_kl(mean, std, 0.0, 1.0).mean()
  np.testing.assert_allclose(out.metrics['loss/code'], expected, rtol=1e-4)
