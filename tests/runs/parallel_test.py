"""Tests of devices: many give what one gives, all noise included."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import random_inputs

from drp_jax import types
from drp_jax.runs import parallel
from drp_jax.systems import registry

# Tests have four devices; the last of this file runs some of it with eight.
_COUNTS = [n for n in (1, 2, 4, 8) if jax.device_count() in (n, 8)]


def test_shard_keeps_the_order_of_examples():
  batch = {'x': np.arange(16).reshape(8, 2)}
  shares = parallel.shard(batch)['x']
  assert shares.shape == (4, 2, 2)
  np.testing.assert_array_equal(shares.reshape(8, 2), batch['x'])


def test_shard_names_the_keys_of_a_wrong_batch_size():
  with pytest.raises(
    ValueError, match=r'6 does not divide.*4 devices.*config\.data\.batch_size'
  ):
    parallel.shard(np.zeros((6, 2)))
  with pytest.raises(
    ValueError,
    match=r'3 has fewer examples than 4 .*config\.replay\.batch_size',
  ):
    parallel.shard(np.zeros((3, 2)))


def test_a_process_alone_writes_into_the_workdir_and_waits_for_nobody():
  assert parallel.own_folder('runs/x') == pathlib.Path('runs/x')
  parallel.wait_for_all('anything')
  parallel.check_agreement('anything', 3)


def test_step_sees_its_examples_and_averages():
  def step(state, batch, key, axis_name=parallel.AXIS):
    del key
    first = parallel.device_examples(batch.shape[0], axis_name)
    weighted = (10 * (first + np.arange(2)) * batch).mean()
    return state + 1, parallel.mean(weighted, axis_name)

  batch = np.arange(8.0)
  state, mean = parallel.pmap_step(step)(
    np.float32(1), parallel.shard(batch), jax.random.key(0)
  )
  assert state.shape == mean.shape == ()
  assert state == 2
  np.testing.assert_allclose(mean, (10 * np.arange(8) * batch).mean())
  alone = step(0, batch[:2], None, axis_name=None)[1]
  np.testing.assert_allclose(alone, 5.0)


def _flat(tree) -> np.ndarray:
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def _assert_same(four, one):
  """The whole tree to 1e-5, and each array to 1e-4 of its largest entry.

  Some gradients are zero but for rounding (an attention's key bias), so a part
  of the whole tree's size counts too.
  """
  norm = np.linalg.norm(_flat(one))
  assert np.linalg.norm(_flat(four) - _flat(one)) < 1e-5 * norm

  def check(path, a, b):
    atol = 1e-4 * np.abs(b).max() + 2e-6 * norm
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(a, b, rtol=0, atol=atol, err_msg=name)

  jax.tree.map_with_path(check, four, one)


def _assert_same_metrics(four, one):
  assert four.keys() == one.keys()
  for name in one:
    np.testing.assert_allclose(
      four[name], one[name], rtol=1e-4, atol=1e-5, err_msg=name
    )


@pytest.fixture(scope='module')
def pretraining(config, system, variables):
  """(step or pmapped step) -> its gradients, state and metrics."""
  batch = random_inputs.video_batch(
    config.dae.num_keypoints, jax.device_count()
  )
  params = {
    name: tree
    for name, tree in variables['params'].items()
    if name in system.pretrained
  }
  tx = random_inputs.recording_sgd()

  def call(step, devices=None):
    state = types.PretrainState(
      step=np.int32(2),
      params=params,
      collections={k: v for k, v in variables.items() if k != 'params'},
      opt_state=tx.init(params),
    )
    shares = parallel.shard(batch, devices) if devices else batch
    state, metrics = step(tx)(state, shares, jax.random.key(4))
    return jax.device_get((state.opt_state, state, metrics))

  return call


@pytest.fixture(scope='module')
def pretrained_on_one(config, pretraining):
  def step(tx):
    learner = registry.build(config, 1, None).pretraining
    return jax.jit(dataclasses.replace(learner, tx=tx).update)

  return pretraining(step)


@pytest.mark.parametrize('devices', _COUNTS)
def test_pretraining_gradient_on_devices(
  config, variables, pretraining, pretrained_on_one, devices
):
  def step(tx):
    learner = registry.build(config, 1, parallel.AXIS).pretraining
    learner = dataclasses.replace(learner, tx=tx)
    return parallel.pmap_step(learner.update, jax.devices()[:devices])

  gradients, one, metrics = pretrained_on_one
  own_gradients, many, own_metrics = pretraining(step, devices)
  assert many.step == one.step == 3
  _assert_same(own_gradients, gradients)
  _assert_same(many.params, one.params)
  _assert_same(many.collections, one.collections)
  _assert_same_metrics(own_metrics, metrics)
  np.testing.assert_array_equal(
    many.collections['constants']['flow_scale'],
    variables['constants']['flow_scale'],
  )
  moved = jax.tree.map(
    lambda a, b: np.any(a != b),
    one.collections['batch_stats'],
    variables['batch_stats'],
  )
  assert all(jax.tree.leaves(moved))


@pytest.mark.parametrize('devices', _COUNTS)
def test_finetuning_gradient_on_devices(
  config, variables, finetune_gradients, devices
):
  batch = random_inputs.replay_batch(
    config.dae.num_keypoints, 2, jax.device_count()
  )
  gradients, one, metrics = finetune_gradients(batch)
  learner = random_inputs.recording(config, 2, parallel.AXIS)
  step = parallel.pmap_step(learner.update, jax.devices()[:devices])
  many, own_metrics = step(
    random_inputs.finetune_state(learner, variables),
    parallel.shard(batch, devices),
    jax.random.key(4),
  )
  own_gradients = {**many.model_opt, **many.behavior_opt}
  for name in gradients:
    _assert_same(own_gradients[name], gradients[name])
  _assert_same(many.params, one.params)
  _assert_same(many.collections, one.collections)
  _assert_same(many.intrinsic.queue, one.intrinsic.queue)
  _assert_same_metrics(own_metrics, metrics)


def test_a_step_compiled_ahead_is_the_step():
  """Also from a restored state, which lies on one device, and its own."""

  def step(state, batch, key):
    noise = jax.random.uniform(jax.random.fold_in(key, 1))
    total = parallel.mean(batch.sum(), parallel.AXIS)
    return state + total + noise, {'total': total}

  pmapped = parallel.pmap_step(step)
  batch = parallel.shard(np.arange(8, dtype=np.float32))
  start = jax.device_put(np.float32(1), jax.devices()[0])
  ahead, done = parallel.compile_ahead(
    pmapped, parallel.replicate(start), np.zeros_like(batch), jax.random.key(0)
  )
  key, expected = jax.random.key(1), jax.numpy.float32(1)
  state = parallel.replicate(start)
  for _ in range(2):
    state, metrics = ahead(state, batch, key)
    expected, _ = pmapped(expected, batch, key)
    assert state == expected and metrics['total'] == 7 and done()
  with pytest.raises(TypeError, match='float32'):
    ahead(state, batch[:, :1], key)


@pytest.mark.slow
def test_gradients_on_one_two_and_eight_devices():
  """In a process that has eight; these tests, with all counts."""
  flags = '--xla_force_host_platform_device_count=8'
  run = subprocess.run(
    [sys.executable, '-m', 'pytest', __file__, '-k', 'gradient_on_devices'],
    env={**os.environ, 'XLA_FLAGS': flags},
    cwd=pathlib.Path(__file__).parents[2],
    stdout=subprocess.PIPE,
    text=True,
    check=False,
  )
  assert run.returncode == 0, run.stdout[-3000:]
  assert '8 passed' in run.stdout
