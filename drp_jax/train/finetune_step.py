"""State and update of fine-tuning (Algorithm 2, lines 1-3 and 10-23)."""

import functools
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import ml_collections
import optax

from drp_jax import types
from drp_jax.agents import system as system_lib
from drp_jax.ops import noise
from drp_jax.train import (
  bad_steps,
  batches,
  build,
  intrinsic,
  joint_step,
  optimizers,
  parallel,
)
from drp_jax.train import state as state_lib

_LEARNER = ('actor', 'critic')


def init_state(
  config: ml_collections.ConfigDict,
  system: system_lib.System,
  action_size: int,
) -> state_lib.FinetuneState:
  """Random parameters, the pre-trained ones among them loaded (Alg. 2, 1-3).

  Args:
    config: configs/base.py; `init_from` names what to load.
    system: from `build.system`.
    action_size: A.

  Raises:
    ValueError: if what is to be loaded does not fit.
  """
  init_key, intrinsic_key = jax.random.split(jax.random.key(config.seed))
  batch = batches.example_replay_batch(config, action_size)
  init = jax.jit(system.init)  # traced once for both uses
  loaded = {'params': {}, 'collections': {}}
  if config.init_from:  # before what takes longer
    shapes = init.eval_shape(init_key, batch)
    part, zeros = _pretrained_part(config, system, shapes)
    if part['params']:  # else all of it is left out (E6)
      from drp_jax.train import checkpoint  # the step itself needs no orbax

      loaded = checkpoint.load_part(config.init_from, part)
    flat = flax.traverse_util.flatten_dict(loaded['params'], sep='/')
    loaded['params'] = flax.traverse_util.unflatten_dict(flat | zeros, sep='/')

  def create(key, intrinsic_key, batch, loaded, flow_scale):
    collections = init(key, batch)
    if system.sees_motion:
      collections['constants'] = {'flow_scale': flow_scale}
    params = {**collections.pop('params'), **loaded['params']}
    for kind, tree in loaded['collections'].items():
      collections[kind] = {**collections[kind], **tree}
    model, learner = _split(params)
    return state_lib.FinetuneState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      collections=collections,
      model_opt=optimizers.world_model(config).init(model),
      behavior_opt=optimizers.behavior(config).init(learner),
      # A copy, since the step donates its input buffers one by one.
      slow_critic=jax.tree.map(jnp.copy, params['critic']),
      intrinsic=intrinsic.init(
        intrinsic_key, system.bonus_size, build.intrinsic_settings(config)
      )
      if system.bonus_size
      else None,
    )

  # One program; see pretrain.py.
  return jax.jit(create)(
    init_key,
    intrinsic_key,
    batch,
    loaded,
    jnp.float32(config.finetune.flow_scale),
  )


def finetune_step(
  state: state_lib.FinetuneState,
  batch: types.ReplayBatch,
  key: jax.Array,
  *,
  system: system_lib.System,
  model_tx: optax.GradientTransformation,
  behavior_tx: optax.GradientTransformation,
  bonus: intrinsic.Settings,
  slow_critic_every: int,
  axis_name: str | None = None,
) -> tuple[state_lib.FinetuneState, dict[str, jax.Array]]:
  """One update of everything (Algorithm 2, lines 10-23) on one device's share.

  The world model moves first; policy learning imagines with the new one, from
  the posterior states that its loss left.

  Args:
    state: equal on all devices.
    batch: leaves [b, T, ...].
    key: the run's typed key [], the same at every call.
    system: what to train.
    model_tx: optimizer of the world model's groups.
    behavior_tx: optimizer of actor and critic.
    bonus: numbers of the intrinsic bonus.
    slow_critic_every: updates between copies of the critic.
    axis_name: device axis, or None on a single device.

  Returns:
    The next state and metrics, averaged over devices. Where a loss or gradient
    is not finite, all but the count of updates and the slow critic stays as it
    was.
  """
  b = batch.image.shape[0]
  first = parallel.device_examples(b, axis_name)
  keys = noise.example_keys(jax.random.fold_in(key, state.step), first, b)
  model_keys, behavior_keys = noise.split(keys, 2)
  model, learner = _split(state.params)
  bonus_fn = functools.partial(
    intrinsic.bonus, state.intrinsic, settings=bonus, axis_name=axis_name
  )

  grads, out = jax.grad(system.world_model_loss, has_aux=True)(
    model, state.collections, batch, model_keys, bonus_fn
  )
  grads, metrics = parallel.mean((grads, out.metrics), axis_name)
  updates, model_opt = model_tx.update(grads, state.model_opt, model)
  model = optax.apply_updates(model, updates)

  refresh = state.step % slow_critic_every == 0
  slow_critic = jax.tree.map(
    lambda new, old: jnp.where(refresh, new, old),
    learner['critic'],
    state.slow_critic,
  )
  learner_grads, more = jax.grad(system.behavior_loss, has_aux=True)(
    learner,
    slow_critic,
    model,
    out.collections,
    system.start_states(out),
    batch.is_terminal.reshape(-1),
    behavior_keys,
  )
  learner_grads, more = parallel.mean((learner_grads, more), axis_name)
  updates, behavior_opt = behavior_tx.update(
    learner_grads, state.behavior_opt, learner
  )
  learner = optax.apply_updates(learner, updates)
  metrics |= more | {
    f'grad_norm/{name}': optax.global_norm(tree)
    for name, tree in {**grads, **learner_grads}.items()
  }
  counted = state.replace(step=state.step + 1, slow_critic=slow_critic)
  moved = counted.replace(
    params={**model, **learner},
    collections=out.collections,
    model_opt=model_opt,
    behavior_opt=behavior_opt,
    intrinsic=out.bonus_state,
  )
  return bad_steps.guard(moved, counted, metrics)


def update_step(
  config: ml_collections.ConfigDict,
) -> tuple[Callable, dict[str, Any]]:
  """Chooses what an update is: `finetune_step`, or of one loss `joint_step`.

  Args:
    config: configs/base.py.

  Returns:
    `step(state, batch, key, system=..., axis_name=..., **settings)`, and the
    settings.
  """
  settings = dict(
    model_tx=optimizers.world_model(config),
    behavior_tx=optimizers.behavior(config),
  )
  if build.learns_jointly(config):
    settings['slow_critic_rate'] = config.dreamerv3.slow_rate
    return joint_step.joint_step, settings
  settings['bonus'] = build.intrinsic_settings(config)
  settings['slow_critic_every'] = config.behavior.slow_critic_every
  return finetune_step, settings


def _pretrained_part(
  config: ml_collections.ConfigDict,
  system: system_lib.System,
  shapes: dict[str, Any],
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """What `config.init_from` has to hold, out of all variables.

  Returns:
    The shapes to be loaded, and zeros by path for what `config.init_zero` names
    instead (E7).

  Raises:
    ValueError: if `config.init_without` or `init_zero` names what is not
      pre-trained.
  """
  unknown = sorted(set(config.init_without) - set(system.pretrained))
  if unknown:
    raise ValueError(
      f'config.init_without={config.init_without} names {unknown};'
      f' config.agent={config.agent!r} pre-trains {system.pretrained}.'
    )
  names = [
    name for name in system.pretrained if name not in config.init_without
  ]
  collections = {}
  if 'batch_stats' in shapes:
    statistics = shapes['batch_stats']
    collections['batch_stats'] = {
      k: v for k, v in statistics.items() if k in names
    }
  if {'dae', 'flow_encoder'} & set(names):  # its flow scale
    collections['constants'] = shapes['constants']
  params = flax.traverse_util.flatten_dict(
    {name: shapes['params'][name] for name in names}, sep='/'
  )
  unknown = sorted(set(config.init_zero) - params.keys())
  if unknown:
    raise ValueError(
      f'config.init_zero={config.init_zero} names {unknown}, which are not'
      ' among the arrays that would be loaded.'
    )
  zeros = {
    path: jnp.zeros(params[path].shape, params[path].dtype)
    for path in config.init_zero
  }
  params = {path: x for path, x in params.items() if path not in zeros}
  params = flax.traverse_util.unflatten_dict(params, sep='/')
  return {'params': params, 'collections': collections}, zeros


def _split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits parameters into the world model's and {'actor', 'critic'}."""
  model = {k: v for k, v in params.items() if k not in _LEARNER}
  return model, {k: params[k] for k in _LEARNER}
