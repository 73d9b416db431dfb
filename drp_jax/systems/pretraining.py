"""Makes the state and the steps of pre-training (Algorithm 1)."""

import dataclasses

import jax
import jax.numpy as jnp
import optax

from drp_jax import types
from drp_jax.ops import noise
from drp_jax.runs import bad_steps, parallel
from drp_jax.systems import contract, examples


@dataclasses.dataclass(frozen=True, eq=False)
class Pretraining:
  """Trains a system on videos.

  Attributes:
    system: what is trained.
    tx: one optimizer for everything.
    seed: of the first parameters.
    num_keypoints: K, None for systems that see no motion.
    axis_name: device axis, or None on a single device.
  """

  system: contract.Pretrains
  tx: optax.GradientTransformation
  seed: int
  num_keypoints: int | None
  axis_name: str | None = None

  def example(self, shape: tuple[int, int] = (1, 2)) -> types.VideoBatch:
    """Returns zeros in the shapes of a batch of `shape` = (B, T) frames."""
    return examples.video_batch(self.num_keypoints, shape)

  def init(self, flow_scale: float) -> types.PretrainState:
    """Makes random parameters and, where motion is seen, its scale (A3).

    Args:
      flow_scale: of the data, pixels per frame.
    """

    def create(key, batch, flow_scale):
      variables = self.system.init(key, batch)
      params = variables.pop('params')
      if self.system.sees_motion:
        variables['constants'] = {'flow_scale': flow_scale}
      return types.PretrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        collections=variables,
        opt_state=self.tx.init(params),
      )

    # One program, the optimizer's zeros too, so that one entry of the
    # compilation cache holds it. Array by array, each shape of zeros is
    # compiled at every start.
    return jax.jit(create)(
      jax.random.key(self.seed), self.example(), jnp.float32(flow_scale)
    )

  def update(
    self, state: types.PretrainState, batch: types.VideoBatch, key: jax.Array
  ) -> tuple[types.PretrainState, contract.Metrics]:
    """Takes one gradient step on one device's share of the batch.

    Args:
      state: equal on all devices.
      batch: leaves [b, T, ...].
      key: the run's typed key [], the same at every call.

    Returns:
      The next state and metrics, averaged over devices. Where a loss or
      gradient is not finite, all but the count of steps stays as it was.
    """
    b, axis_name = batch.image.shape[0], self.axis_name
    first = parallel.device_examples(b, axis_name)
    keys = noise.example_keys(jax.random.fold_in(key, state.step), first, b)
    grads, (collections, metrics) = jax.grad(
      self.system.pretrain_loss, has_aux=True
    )(state.params, state.collections, batch, keys)
    grads, metrics = parallel.mean((grads, metrics), axis_name)
    updates, opt_state = self.tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics['grad_norm/all'] = optax.global_norm(grads)
    counted = dataclasses.replace(state, step=state.step + 1)
    moved = dataclasses.replace(
      counted, params=params, collections=collections, opt_state=opt_state
    )
    return bad_steps.guard(moved, counted, metrics)
