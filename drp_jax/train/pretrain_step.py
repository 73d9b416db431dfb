"""State and gradient step of pre-training (Algorithm 1)."""

import jax
import jax.numpy as jnp
import ml_collections
import optax

from drp_jax import types
from drp_jax.agents import system as system_lib
from drp_jax.ops import noise
from drp_jax.train import bad_steps, batches, parallel
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

  def create(key, batch, flow_scale):
    variables = system.init(key, batch)
    params = variables.pop('params')
    if system.sees_motion:
      variables['constants'] = {'flow_scale': flow_scale}
    return state_lib.PretrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      collections=variables,
      opt_state=tx.init(params),
    )

  # One program, the optimizer's zeros too, so that one entry of the compilation
  # cache holds it. Array by array, each shape of zeros is compiled at every
  # start.
  return jax.jit(create)(
    jax.random.key(config.seed),
    batches.example_video_batch(config),
    jnp.float32(flow_scale),
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
    The next state and metrics, averaged over devices. Where a loss or gradient
    is not finite, all but the count of steps stays as it was.
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
  counted = state.replace(step=state.step + 1)
  moved = counted.replace(
    params=params, collections=collections, opt_state=opt_state
  )
  return bad_steps.guard(moved, counted, metrics)
