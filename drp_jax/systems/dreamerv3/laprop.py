"""LaProp with adaptive gradient clipping  [DreamerV3]."""

import jax
import jax.numpy as jnp
import ml_collections
import optax

_SMALLEST_NORM = 1e-3  # of a parameter, in adaptive clipping  [DreamerV3]


def optimizer(
  config: ml_collections.ConfigDict,
) -> optax.GradientTransformation:
  """Makes the optimizer of all parameters: no array's update sees another's."""
  c = config.dreamerv3
  return laprop(warmed_up(c.lr, c.warmup), clip=c.adaptive_clip)


def laprop(
  learning_rate: optax.ScalarOrSchedule, *, clip: float
) -> optax.GradientTransformation:
  """LaProp with adaptive gradient clipping, array by array  [DreamerV3].

  Clip, divide by the root of the mean square, and only then average: the
  reverse of Adam's order. Both averages are corrected for their start.

  Args:
    learning_rate: a number or a schedule over updates.
    clip: largest norm of a gradient, in norms of its parameter.

  Returns:
    The optimizer.
  """
  return optax.chain(
    adaptive_clip(clip),
    optax.scale_by_rms(
      decay=0.999, eps=1e-20, eps_in_sqrt=False, bias_correction=True
    ),
    optax.ema(decay=0.9, debias=True),
    optax.scale_by_learning_rate(learning_rate),
  )


def adaptive_clip(clip: float) -> optax.GradientTransformation:
  """Shrinks each array's gradient to `clip` norms of the whole array.

  `optax.adaptive_grad_clip` has a norm for each output unit instead.
  """

  def shrink(gradient, param):
    norm = jnp.linalg.norm(gradient.ravel())
    largest = clip * jnp.linalg.norm(param.ravel()).clip(min=_SMALLEST_NORM)
    return gradient / jnp.maximum(1.0, norm / largest)

  return optax.stateless(
    lambda gradients, params: jax.tree.map(shrink, gradients, params)
  )


def warmed_up(learning_rate: float, updates: int) -> optax.Schedule:
  """Rises from 0 in equal steps, then is constant."""
  return optax.linear_schedule(0.0, learning_rate, updates)
