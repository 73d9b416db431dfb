"""Pre-training from videos (Algorithm 1)."""

import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from drp_jax import types
from drp_jax.agents import system as system_lib
from drp_jax.data import input_pipeline, report
from drp_jax.ops import noise
from drp_jax.train import (
  build,
  checkpoint,
  evaluate,
  logger,
  parallel,
  workdir,
)
from drp_jax.train import state as state_lib


def init_state(
  config: ml_collections.ConfigDict,
  system: system_lib.System,
  tx: optax.GradientTransformation,
  flow_scale: float,
) -> state_lib.PretrainState:
  """Random parameters and, where motion is seen, the data's flow scale (A3).

  Args:
    config: configs/base.py.
    system: from `build.system`.
    tx: optimizer.
    flow_scale: pixels per frame.
  """
  key = jax.random.key(config.seed)
  batch = build.example_video_batch(config)
  variables = jax.jit(system.init)(key, batch)
  params = variables.pop('params')
  if system.sees_motion:
    variables['constants'] = {'flow_scale': jnp.float32(flow_scale)}
  return state_lib.PretrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    collections=variables,
    opt_state=tx.init(params),
  )


def pretrain_step(
  state: state_lib.PretrainState,
  batch: types.VideoBatch,
  key: jax.Array,
  *,
  system: system_lib.System,
  tx: optax.GradientTransformation,
  axis_name: str | None = None,
) -> tuple[state_lib.PretrainState, dict[str, jax.Array]]:
  """Takes one gradient step on one device's share of the batch.

  Pure; `key` is the run's key, the same at every call.

  Args:
    state: equal on all devices.
    batch: leaves [b, T, ...].
    key: typed key [].
    system: what to train.
    tx: optimizer.
    axis_name: device axis, or None on a single device.

  Returns:
    The next state and metrics, averaged over devices.
  """
  b = batch.image.shape[0]
  first = parallel.device_examples(b, axis_name)
  keys = noise.example_keys(jax.random.fold_in(key, state.step), first, b)
  grads, (collections, metrics) = jax.grad(system.pretrain_loss, has_aux=True)(
    state.params, state.collections, batch, keys
  )
  grads, metrics = parallel.mean((grads, metrics), axis_name)
  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  metrics['grad_norm/all'] = optax.global_norm(grads)
  return state.replace(
    step=state.step + 1,
    params=params,
    collections=collections,
    opt_state=opt_state,
  ), metrics


def pretrain(
  config: ml_collections.ConfigDict, directory: str | pathlib.Path
) -> state_lib.PretrainState:
  """Runs Algorithm 1 to its end, going on from the newest checkpoint.

  Args:
    config: configs/base.py.
    directory: the workdir: config, checkpoints, metrics, TensorBoard events.

  Returns:
    The final state.

  Raises:
    ValueError: for settings or data that do not fit, naming the key.
  """
  system = build.system(config, 1, parallel.AXIS)
  if not system.pretrained:
    raise ValueError(
      f'config.agent={config.agent!r} has no pre-training: fine-tune it from'
      ' scratch.'
    )
  tx = build.pretrain_optimizer(config)
  iterator = input_pipeline.make_iterator(
    config.data.shards_dir,
    'train',
    config.data.batch_size,
    build.keypoints(config),
    config.seed,
    jax.process_index(),
    jax.process_count(),
  )
  held_out = evaluate.held_out_batches(config)
  flow_scale = report.read_report(config.data.shards_dir)['flow_scale']
  state = init_state(config, system, tx, flow_scale)
  saved = checkpoint.Checkpoints(directory)
  workdir.begin(directory, config)
  log = logger.Logger(
    directory, config.pretrain.num_steps, 'pretrain', ('loss/total',)
  )
  if saved.latest_step() is not None:
    state, meta = saved.restore(state)
    iterator.set_state(meta['iterator'])
  start = int(state.step)
  log.resume(start if start else -1)

  run_key = jax.random.key(config.seed + 1)
  step = parallel.pmap_step(pretrain_step, system=system, tx=tx)
  clock, since = time.time(), start
  for number in range(start + 1, config.pretrain.num_steps + 1):
    batch = build.video_batch(next(iterator))
    state, metrics = step(state, parallel.shard(batch), run_key)
    log.advance(number)
    last = number == config.pretrain.num_steps
    if number % config.pretrain.log_every == 0 or last:
      metrics = jax.device_get(metrics)
      now = time.time()
      metrics['time/steps_per_second'] = (number - since) / (now - clock)
      log.scalars(number, metrics)
      clock, since = now, number
    if number % config.pretrain.eval_every == 0 or last:
      _evaluate(system, state, held_out, number, log)
    if number % config.pretrain.checkpoint_every == 0 or last:
      saved.save(number, state, {'iterator': _json(iterator.get_state())})
  log.close()
  saved.close()
  return state


def _evaluate(
  system: system_lib.System,
  state: state_lib.PretrainState,
  batches: list[types.VideoBatch],
  step: int,
  log: logger.Logger,
) -> None:
  variables = parallel.on_one_device(
    {'params': state.params, **state.collections}
  )
  metrics, video = evaluate.held_out(system, variables, batches)
  log.scalars(step, metrics)
  log.image(step, 'open_loop/frames', np.concatenate(video[::6], 0))
  log.video(step, 'open_loop/clips', video, fps=5)


def _json(value: Any) -> Any:
  """Turns NumPy numbers of an iterator's state into JSON values."""
  if isinstance(value, dict):
    return {key: _json(item) for key, item in value.items()}
  if isinstance(value, np.generic):
    return value.item()
  return value
