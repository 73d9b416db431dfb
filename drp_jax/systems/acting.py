"""Acting with one dynamics model that sees images: neither z nor motion."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from drp_jax import types
from drp_jax.ops import noise
from drp_jax.systems import imagination


class ActsFromOneState:
  """The calls of acting, the same in all systems with one dynamics model.

  Of a system whose field `model` has `act` and `initial_state`.

  Attributes:
    choose_action: mean and std, keys, whether to explore -> the action.
  """

  sees_motion: ClassVar[bool] = False
  choose_action = staticmethod(imagination.choose_action)
  model: Any

  def policy_step(
    self,
    variables: Any,
    carry: types.PolicyCarry,
    obs: types.Observation,
    keys: jax.Array,
    explore: bool,
  ) -> tuple[types.PolicyCarry, jax.Array]:
    """See `System.policy_step`."""
    state_keys, action_keys = noise.split(keys, 2)
    s, mean, std = self.model.apply(
      variables, carry, obs, state_keys, method=self.model.act
    )
    action = self.choose_action(mean, std, action_keys, explore)
    return types.PolicyCarry(z=None, s=s, action=action, cache=None), action

  def initial_carry(
    self, batch: int, num_keypoints: int | None
  ) -> types.PolicyCarry:
    """See `System.initial_carry`."""
    del num_keypoints  # sees none
    return types.PolicyCarry(
      z=None,
      s=self.model.initial_state(batch),
      action=jnp.zeros([batch, self.model.actor.action_size]),
      cache=None,
    )
