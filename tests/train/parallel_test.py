"""Tests of devices: four give what one gives, all noise included."""

import functools

import jax
import numpy as np
import pytest
import random_inputs

from drp_jax.train import build, finetune, parallel, pretrain
from drp_jax.train import state as state_lib


def test_shard_keeps_the_order_of_examples():
  batch = {'x': np.arange(16).reshape(8, 2)}
  shares = parallel.shard(batch)['x']
  assert shares.shape == (4, 2, 2)
  np.testing.assert_array_equal(shares.reshape(8, 2), batch['x'])


def test_shard_names_the_keys_of_a_wrong_batch_size():
  with pytest.raises(
    ValueError, match=r'6 .*4 devices.*config\.data\.batch_size'
  ):
    parallel.shard(np.zeros((6, 2)))


def test_step_sees_its_examples_and_averages():
  def step(state, batch, key, *, axis_name, factor):
    del key
    first = parallel.device_examples(batch.shape[0], axis_name)
    weighted = (factor * (first + np.arange(2)) * batch).mean()
    return state + 1, parallel.mean(weighted, axis_name)

  batch = np.arange(8.0)
  state, mean = parallel.pmap_step(step, factor=10.0)(
    np.float32(1), parallel.shard(batch), jax.random.key(0)
  )
  assert state.shape == mean.shape == ()
  assert state == 2
  np.testing.assert_allclose(mean, (10 * np.arange(8) * batch).mean())
  alone = step(0, batch[:2], None, axis_name=None, factor=10.0)[1]
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


def test_pretraining_gradient_on_four_devices(
  config, system, variables, video_batch
):
  params = {
    name: tree
    for name, tree in variables['params'].items()
    if name in system.pretrained
  }
  tx = random_inputs.recording_sgd()

  def state():
    return state_lib.PretrainState(
      step=np.int32(2),
      params=params,
      collections={k: v for k, v in variables.items() if k != 'params'},
      opt_state=tx.init(params),
    )

  one, metrics = jax.jit(
    functools.partial(
      pretrain.pretrain_step, system=build.system(config, 1, None), tx=tx
    )
  )(state(), video_batch, jax.random.key(3))
  four, four_metrics = parallel.pmap_step(
    pretrain.pretrain_step,
    system=build.system(config, 1, parallel.AXIS),
    tx=tx,
  )(state(), parallel.shard(video_batch), jax.random.key(3))
  assert four.step == one.step == 3
  _assert_same(four.opt_state, one.opt_state)
  _assert_same(four.params, one.params)
  _assert_same(four.collections, one.collections)
  _assert_same_metrics(four_metrics, metrics)
  np.testing.assert_array_equal(
    four.collections['constants']['flow_scale'],
    variables['constants']['flow_scale'],
  )
  moved = jax.tree.map(
    lambda a, b: np.any(a != b),
    one.collections['batch_stats'],
    variables['batch_stats'],
  )
  assert all(jax.tree.leaves(moved))


def test_finetuning_gradient_on_four_devices(
  config, system, variables, replay_batch, finetune_gradients
):
  gradients, one, metrics = finetune_gradients(replay_batch)
  step = parallel.pmap_step(
    finetune.finetune_step,
    system=build.system(config, 2, parallel.AXIS),
    model_tx=random_inputs.recording_sgd(),
    behavior_tx=random_inputs.recording_sgd(),
    bonus=build.intrinsic_settings(config),
    slow_critic_every=100,
  )
  four, four_metrics = step(
    random_inputs.finetune_state(config, system, variables),
    parallel.shard(replay_batch),
    jax.random.key(3),
  )
  four_gradients = {**four.model_opt, **four.behavior_opt}
  for name in gradients:
    _assert_same(four_gradients[name], gradients[name])
  _assert_same(four.params, one.params)
  _assert_same(four.collections, one.collections)
  _assert_same(four.intrinsic.queue, one.intrinsic.queue)
  _assert_same_metrics(four_metrics, metrics)


def test_a_step_compiled_ahead_is_the_step():
  """Also from a restored state, which lies on one device, and its own."""

  def step(state, batch, key, axis_name):
    noise = jax.random.uniform(jax.random.fold_in(key, 1))
    total = parallel.mean(batch.sum(), axis_name)
    return state + total + noise, {'total': total}

  pmapped = parallel.pmap_step(step)
  batch = parallel.shard(np.arange(8, dtype=np.float32))
  start = jax.device_put(np.float32(1), jax.devices()[0])
  ahead = parallel.compile_ahead(
    pmapped, parallel.replicate(start), np.zeros_like(batch), jax.random.key(0)
  )
  key, expected = jax.random.key(1), jax.numpy.float32(1)
  state = parallel.replicate(start)
  for _ in range(2):
    state, metrics = ahead(state, batch, key)
    expected, _ = pmapped(expected, batch, key)
    assert state == expected and metrics['total'] == 7
  with pytest.raises(TypeError, match='float32'):
    ahead(state, batch[:, :1], key)
