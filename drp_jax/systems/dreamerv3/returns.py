"""Returns of DreamerV3, and the range that normalizes them.

Rewards belong to the state in which they arrive. The continuation of an episode
is predicted, so discounts differ from step to step.
"""

import chex
import jax
import jax.numpy as jnp

_PERCENTILES = 5.0, 95.0  # followed by low and high  [DreamerV3]

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
    live: [T, ...], c: discount times the continuation of the episode, a
      probability or 0 and 1; entry 0 is not used.
    lam: lambda.
    last: [T, ...] bool, states after which another episode follows, of which
      only the value is used; their own returns are undefined. None if there
      are none.

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
  """Returns the range before the first returns: `low` and `high`, both []."""
  return {'low': jnp.zeros(()), 'high': jnp.zeros(())}


def follow(
  old: Range, returns: jax.Array, rate: float, axis_name: str | None
) -> Range:
  """Moves the range a little towards that of new returns.

  Args:
    old: `low` and `high`.
    returns: of any shape; their outermost twentieths do not count.
    rate: rate of the moving average, which starts at 0 without correction.
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
