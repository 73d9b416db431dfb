"""One update of everything from one loss."""

import dataclasses
from typing import Any

import jax
import optax

from drp_jax import types
from drp_jax.runs import parallel
from drp_jax.systems import contract, learner


@dataclasses.dataclass(frozen=True, eq=False)
class AtOnce(learner.Learner):
  """Moves world model, actor and critic at once.

  The original has one optimizer. It treats every array by itself, so two of the
  same kind do the same.

  Attributes:
    slow_critic_rate: how far the slow critic goes towards the critic.
  """

  slow_critic_rate: float

  def slow_critic(self, state: types.FinetuneState) -> Any:
    """Moves towards the critic as the last update left it."""
    return optax.incremental_update(
      state.params['critic'], state.slow_critic, self.slow_critic_rate
    )

  def move(
    self,
    state: types.FinetuneState,
    batch: types.ReplayBatch,
    keys: jax.Array,
  ) -> tuple[types.FinetuneState, dict[str, Any], contract.Metrics]:
    """See `Learner.move`."""
    grads, (collections, metrics) = jax.grad(
      self.system.joint_loss, has_aux=True
    )(state.params, state.slow_critic, state.collections, batch, keys)
    grads, metrics = parallel.mean((grads, metrics), self.axis_name)
    model, policy = learner.split(state.params)
    model_grads, policy_grads = learner.split(grads)
    model, model_opt = learner.apply(
      self.model_tx, model_grads, state.model_opt, model
    )
    policy, behavior_opt = learner.apply(
      self.behavior_tx, policy_grads, state.behavior_opt, policy
    )
    moved = dataclasses.replace(
      state,
      params={**model, **policy},
      collections=collections,
      model_opt=model_opt,
      behavior_opt=behavior_opt,
    )
    return moved, grads, metrics
