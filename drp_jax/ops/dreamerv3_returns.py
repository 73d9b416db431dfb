"""Returns of DreamerV3, and the range that makes their sizes comparable.

Rewards belong to the state in which they arrive, and how far an episode goes on
is predicted, so discounts differ from step to step.
"""

import chex
import jax
import jax.numpy as jnp

_PERCENTILES = 5.0, 95.0  # that low and high follow  [DreamerV3]

Range = dict[str, jax.Array]


def lambda_return(
  reward: jax.Array,
  value: jax.Array,
  live: jax.Array,
  lam: float,
  last: jax.Array | None = None,
) -> jax.Array:
  """Mixes multi-step returns with bootstrapped values.

  V_t = r_{t+1} + c_{t+1} ((1 - lam) v_{t+1} + lam V_{t+1}), and the last state
  has its value.

  Args:
    reward: [T, ...], received on arriving in each state; entry 0 is not used.
    value: [T, ...], of each state; entry 0 is not used.
    live: [T, ...], c: discount times whether the episode goes on; entry 0 is
      not used.
    lam: lambda.
    last: [T, ...] bool, states after which another episode follows: there is
      only their value. What is returned for themselves must not be read. None
      if there are none.

  Returns:
    [T-1, ...], V of all states but the last.
  """
  chex.assert_equal_shape([reward, value, live])

  def step(ret, inputs):
    reward, value, live, last = inputs
    ahead = (1.0 - lam) * value + lam * ret
    if last is not None:
      ahead = jnp.where(last, value, ahead)
    ret = reward + live * ahead
    return ret, ret

  inputs = reward, value, live, last
  _, returns = jax.lax.scan(
    step, value[-1], jax.tree.map(lambda x: x[1:], inputs), reverse=True
  )
  return returns


def initial_range() -> Range:
  """Before the first returns: `low` and `high`, both []."""
  return {'low': jnp.zeros(()), 'high': jnp.zeros(())}


def follow(
  old: Range, returns: jax.Array, rate: float, axis_name: str | None
) -> Range:
  """Moves the range a little towards that of new returns.

  Args:
    old: `low` and `high`.
    returns: of any shape; their outermost twentieths do not count.
    rate: of the moving average. It starts at 0 and is not corrected for that.
    axis_name: device axis, or None; returns of all devices count.

  Returns:
    The range, stopped.
  """
  if axis_name is not None:
    returns = jax.lax.all_gather(returns, axis_name)
  new = jnp.percentile(returns, jnp.array(_PERCENTILES))
  moved = {
    name: (1.0 - rate) * old[name] + rate * x
    for name, x in zip(('low', 'high'), new, strict=True)
  }
  return jax.lax.stop_gradient(moved)
