"""One update of a system that has one loss for everything (DreamerV3)."""

import jax
import optax

from drp_jax import types
from drp_jax.agents import dreamerv3
from drp_jax.ops import noise
from drp_jax.train import bad_steps, parallel
from drp_jax.train import state as state_lib


def joint_step(
  state: state_lib.FinetuneState,
  batch: types.ReplayBatch,
  key: jax.Array,
  *,
  system: dreamerv3.DreamerV3,
  model_tx: optax.GradientTransformation,
  behavior_tx: optax.GradientTransformation,
  slow_critic_rate: float,
  axis_name: str | None = None,
) -> tuple[state_lib.FinetuneState, dict[str, jax.Array]]:
  """Moves world model, actor and critic at once, on one device's share.

  The original has one optimizer. It treats every array by itself, so two of the
  same kind do the same.

  Args:
    state: equal on all devices.
    batch: leaves [b, T, ...].
    key: the run's typed key [], the same at every call.
    system: what to train.
    model_tx: optimizer of the world model.
    behavior_tx: optimizer of actor and critic.
    slow_critic_rate: how far the slow critic goes towards the critic.
    axis_name: device axis, or None on a single device.

  Returns:
    The next state and metrics, averaged over devices. Where a loss or gradient
    is not finite, all but the count of updates and the slow critic stays as it
    was.
  """
  b = batch.image.shape[0]
  first = parallel.device_examples(b, axis_name)
  keys = noise.example_keys(jax.random.fold_in(key, state.step), first, b)
  # Of the critic as the last update left it.
  slow_critic = optax.incremental_update(
    state.params['critic'], state.slow_critic, slow_critic_rate
  )
  grads, (collections, metrics) = jax.grad(system.joint_loss, has_aux=True)(
    state.params, slow_critic, state.collections, batch, keys
  )
  grads, metrics = parallel.mean((grads, metrics), axis_name)

  params, opt_states = {}, []
  for tx, opt_state, names in (
    (model_tx, state.model_opt, state.params.keys() - {'actor', 'critic'}),
    (behavior_tx, state.behavior_opt, {'actor', 'critic'}),
  ):
    own = {name: state.params[name] for name in sorted(names)}
    own_grads = {name: grads[name] for name in own}
    updates, opt_state = tx.update(own_grads, opt_state, own)
    params |= optax.apply_updates(own, updates)
    opt_states.append(opt_state)
  metrics |= {
    f'grad_norm/{name}': optax.global_norm(tree) for name, tree in grads.items()
  }
  counted = state.replace(step=state.step + 1, slow_critic=slow_critic)
  moved = counted.replace(
    params=params,
    collections=collections,
    model_opt=opt_states[0],
    behavior_opt=opt_states[1],
  )
  return bad_steps.guard(moved, counted, metrics)
