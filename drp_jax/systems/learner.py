"""Makes the state and the updates of fine-tuning (Alg. 2, 1-3, 10-23)."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from drp_jax import types
from drp_jax.ops import noise
from drp_jax.runs import bad_steps, parallel
from drp_jax.systems import contract, examples, intrinsic, warm_start

LEARNER = ('actor', 'critic')  # parameter sets of the policy


@dataclasses.dataclass(frozen=True, eq=False)
class Learner:
  """Trains a system on replay; holds what all systems share.

  A subclass says in `move` how parameters change.

  Attributes:
    system: what is trained.
    model_tx: optimizer of the world model.
    behavior_tx: optimizer of actor and critic.
    start: where the first parameters come from.
    axis_name: device axis, or None on a single device.
  """

  system: Any
  model_tx: optax.GradientTransformation
  behavior_tx: optax.GradientTransformation
  start: warm_start.Start
  axis_name: str | None

  def example(self, shape: tuple[int, int] = (1, 2)) -> types.ReplayBatch:
    """Returns zeros in the shapes of a batch of `shape` = (B, T) steps."""
    start = self.start
    return examples.replay_batch(start.num_keypoints, start.action_size, shape)

  def init(self) -> types.FinetuneState:
    """Makes random parameters and loads the pre-trained ones (Alg. 2, 1-3).

    Raises:
      ValueError: if what is to be loaded does not fit.
    """
    start, batch = self.start, self.example()
    init_key, bonus_key = jax.random.split(jax.random.key(start.seed))
    init = jax.jit(self.system.init)  # traced once for both uses
    shapes = init.eval_shape(init_key, batch)
    loaded = warm_start.load(start, self.system, shapes)

    def create(key, bonus_key, batch, loaded, flow_scale):
      variables = init(key, batch)
      if self.system.sees_motion:
        variables['constants'] = {'flow_scale': flow_scale}
      variables['params'] = {**variables['params'], **loaded['params']}
      for kind, tree in loaded['collections'].items():
        variables[kind] = {**variables[kind], **tree}
      return self.first_state(variables, bonus_key)

    # One program; see pretraining.py.
    return jax.jit(create)(
      init_key, bonus_key, batch, loaded, jnp.float32(start.flow_scale)
    )

  def first_state(
    self, variables: dict[str, Any], bonus_key: jax.Array
  ) -> types.FinetuneState:
    """Makes the state before the first update.

    Args:
      variables: params and collections.
      bonus_key: typed key of the bonus's projection.
    """
    collections = dict(variables)
    params = collections.pop('params')
    model, learner = split(params)
    return types.FinetuneState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      collections=collections,
      model_opt=self.model_tx.init(model),
      behavior_opt=self.behavior_tx.init(learner),
      # A copy, since the step donates its input buffers one by one.
      slow_critic=jax.tree.map(jnp.copy, params['critic']),
      intrinsic=self.first_bonus(bonus_key),
    )

  def update(
    self, state: types.FinetuneState, batch: types.ReplayBatch, key: jax.Array
  ) -> tuple[types.FinetuneState, contract.Metrics]:
    """Updates everything once (Alg. 2, 10-23) on one device's share.

    Args:
      state: equal on all devices.
      batch: leaves [b, T, ...].
      key: the run's typed key [], the same at every call.

    Returns:
      The next state and metrics, averaged over devices. Where a loss or
      gradient is not finite, all but the count of updates and the slow critic
      stays as it was.
    """
    b = batch.image.shape[0]
    first = parallel.device_examples(b, self.axis_name)
    keys = noise.example_keys(jax.random.fold_in(key, state.step), first, b)
    state = dataclasses.replace(state, slow_critic=self.slow_critic(state))
    moved, grads, metrics = self.move(state, batch, keys)
    metrics |= {
      f'grad_norm/{name}': optax.global_norm(x) for name, x in grads.items()
    }
    number = state.step + 1
    return bad_steps.guard(
      dataclasses.replace(moved, step=number),
      dataclasses.replace(state, step=number),
      metrics,
    )

  def first_bonus(self, key: jax.Array) -> Any:
    """Makes the state of the intrinsic bonus; None where there is none."""
    del key

  def slow_critic(self, state: types.FinetuneState) -> Any:
    """Computes the slow critic's parameters for the next update."""
    raise NotImplementedError

  def move(
    self,
    state: types.FinetuneState,
    batch: types.ReplayBatch,
    keys: jax.Array,
  ) -> tuple[types.FinetuneState, dict[str, Any], contract.Metrics]:
    """Moves the parameters; everything but the slow critic and the count.

    Args:
      state: its slow critic is the next one already.
      batch: leaves [b, T, ...].
      keys: [b] typed keys.

    Returns:
      The next state, gradients by parameter set, and metrics; averaged over
      devices.
    """
    raise NotImplementedError


@dataclasses.dataclass(frozen=True, eq=False)
class InTurn(Learner):
  """Moves the world model first, then the policy in its imagination.

  Policy learning imagines with the new world model, from the posterior states
  that its loss left.

  Attributes:
    bonus: numbers of the intrinsic bonus.
    slow_critic_every: updates between copies of the critic.
  """

  system: contract.Imagines
  bonus: intrinsic.Settings
  slow_critic_every: int

  def first_bonus(self, key: jax.Array) -> intrinsic.IntrinsicState | None:
    """See `Learner.first_bonus`."""
    size = self.system.bonus_size
    return intrinsic.init(key, size, self.bonus) if size else None

  def slow_critic(self, state: types.FinetuneState) -> Any:
    """Copies the critic every few updates."""
    refresh = state.step % self.slow_critic_every == 0
    return jax.tree.map(
      lambda new, old: jnp.where(refresh, new, old),
      state.params['critic'],
      state.slow_critic,
    )

  def move(
    self,
    state: types.FinetuneState,
    batch: types.ReplayBatch,
    keys: jax.Array,
  ) -> tuple[types.FinetuneState, dict[str, Any], contract.Metrics]:
    """See `Learner.move`."""
    system, axis_name = self.system, self.axis_name
    model_keys, behavior_keys = noise.split(keys, 2)
    model, learner = split(state.params)
    bonus_fn = functools.partial(
      intrinsic.bonus, state.intrinsic, settings=self.bonus, axis_name=axis_name
    )
    grads, out = jax.grad(system.world_model_loss, has_aux=True)(
      model, state.collections, batch, model_keys, bonus_fn
    )
    grads, metrics = parallel.mean((grads, out.metrics), axis_name)
    model, model_opt = apply(self.model_tx, grads, state.model_opt, model)

    learner_grads, more = jax.grad(system.behavior_loss, has_aux=True)(
      learner,
      state.slow_critic,
      model,
      out.collections,
      system.start_states(out),
      batch.is_terminal.reshape(-1),
      behavior_keys,
    )
    learner_grads, more = parallel.mean((learner_grads, more), axis_name)
    learner, behavior_opt = apply(
      self.behavior_tx, learner_grads, state.behavior_opt, learner
    )
    moved = dataclasses.replace(
      state,
      params={**model, **learner},
      collections=out.collections,
      model_opt=model_opt,
      behavior_opt=behavior_opt,
      intrinsic=out.bonus_state,
    )
    return moved, {**grads, **learner_grads}, metrics | more


def split(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
  """Splits parameters into the world model's and {'actor', 'critic'}."""
  model = {k: v for k, v in params.items() if k not in LEARNER}
  return model, {k: params[k] for k in LEARNER}


def apply(
  tx: optax.GradientTransformation, grads: Any, opt_state: Any, params: Any
) -> tuple[Any, Any]:
  """Takes an optimizer's step.

  Args:
    tx: optimizer.
    grads: shaped as `params`.
    opt_state: its state.
    params: what moves.

  Returns:
    The next parameters and the optimizer's next state.
  """
  updates, opt_state = tx.update(grads, opt_state, params)
  return optax.apply_updates(params, updates), opt_state
