"""Returns of imagined trajectories (Eq. 10)."""

import chex
import jax
import jax.numpy as jnp


def lambda_return(
  reward: jax.Array,
  value: jax.Array,
  last_value: jax.Array,
  discount: float | jax.Array,
  lam: float,
) -> jax.Array:
  """Mixes multi-step returns with bootstrapped values (Eq. 10, choice D15).

  V_t = r_t + discount_t ((1 - lam) v_{t+1} + lam V_{t+1}), and the last step
  bootstraps with `last_value` alone.

  Args:
    reward: [H, ...], predicted at states 0..H-1.
    value: [H, ...], critic at states 0..H-1; entry 0 is not used.
    last_value: [...], critic at state H.
    discount: gamma; or [H, ...], of each state, near zero if the state ends the
      episode.
    lam: lambda.

  Returns:
    [H, ...], V of states 0..H-1.
  """
  chex.assert_equal_shape([reward, value])
  chex.assert_shape(last_value, reward.shape[1:])
  next_value = jnp.concatenate([value[1:], last_value[None]], 0)
  # A number stays a constant of the compiled code, so results stay the same.
  own_discount = discount if jnp.ndim(discount) else None

  def step(ret, inputs):
    reward_t, next_value_t, own = inputs
    discount_t = discount if own is None else own
    ret = reward_t + discount_t * ((1 - lam) * next_value_t + lam * ret)
    return ret, ret

  _, returns = jax.lax.scan(
    step, last_value, (reward, next_value, own_discount), reverse=True
  )
  return returns
