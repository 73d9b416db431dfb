"""The losses of the paper, in its order (Eqs. 5-12).

All are means over batch and time of per-frame sums: the sum over t of Eqs. 6,
9, 11 and 12 is a mean, as in the paper's lineage.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from drp_jax.ops import distributions


def mae_loss(
  recon: jax.Array,
  patches: jax.Array,
  hidden: jax.Array,
  axis_name: str | None = None,
) -> jax.Array:
  """Computes the masked reconstruction loss of atomic actions (Eqs. 5, 7).

  The loss is the squared L2 norm over a patch's 2 P^2 values, averaged over
  hidden patches (choice B14: literally, a sum within the patch).

  Args:
    recon: [B, T, K, 2 P^2].
    patches: [B, T, K, 2 P^2], normalized.
    hidden: [B, T, K] bool, the set M.
    axis_name: device axis; the average is over hidden patches of all devices.

  Returns:
    [], whose mean over devices is the loss.
  """
  chex.assert_equal_shape([recon, patches])
  error = jnp.square(recon - patches).sum(-1)
  weight = hidden.astype(error.dtype)
  count = weight.sum()
  if axis_name is not None:
    count = jax.lax.pmean(count, axis_name)
  return (error * weight).sum() / jnp.maximum(count, 1.0)


def image_loss(
  recon: jax.Array, image: jax.Array, weight: jax.Array | None = None
) -> jax.Array:
  """Computes -ln p(o | .) of a unit-variance Gaussian without its constant.

  Args:
    recon: [B, T, H, W, 3], the mean.
    image: [B, T, H, W, 3] in [-0.5, 0.5].
    weight: [B, T] of the frames, with a mean of one; None weights all equally.

  Returns:
    [].
  """
  chex.assert_equal_shape([recon, image])
  error = jnp.square(recon - image).sum((-1, -2, -3))
  if weight is not None:
    error *= weight
  return 0.5 * error.mean()


def kl_loss(
  post: jax.Array,
  prior: jax.Array,
  balance: float,
  free: float,
  axis_name: str | None = None,
  kl: Callable = distributions.categorical_kl,
) -> tuple[jax.Array, jax.Array]:
  """Computes the balanced KL of Eqs. 6 and 9 (choice C5).

  The share `balance` trains the prior towards the posterior, and 1 - balance
  the posterior towards the prior. The mean is clamped at `free` nats.

  Args:
    post: [B, T, groups, classes] logits.
    prior: [B, T, groups, classes] logits.
    balance: share of the prior's side, 0.8 in the paper's lineage.
    free: nats below which there is no gradient.
    axis_name: device axis; the clamp is on the mean over all devices.
    kl: KL function (p, q) -> [B, T]; override it for distributions that are not
      categorical.

  Returns:
    The loss [] and the plain mean KL [].
  """
  sg = jax.lax.stop_gradient
  to_prior = kl(sg(post), prior).mean()
  to_post = kl(post, sg(prior)).mean()
  if axis_name is not None:
    to_prior, to_post = jax.lax.pmean((to_prior, to_post), axis_name)
  loss = balance * jnp.maximum(to_prior, free)
  loss += (1.0 - balance) * jnp.maximum(to_post, free)
  return loss, to_post


def reward_loss(predicted: jax.Array, reward: jax.Array) -> jax.Array:
  """Computes -ln p(r | s) of a unit-variance Gaussian (Eq. 9): [B, T] -> []."""
  chex.assert_equal_shape([predicted, reward])
  return 0.5 * jnp.square(predicted - reward).mean()


def continuation_loss(
  logit: jax.Array, is_terminal: jax.Array, discount: float
) -> jax.Array:
  """Computes -ln p(gamma (1 - terminal) | s) of a Bernoulli with soft targets.

  The head predicts the discount itself, so a trained head returns gamma while
  an episode continues  [DreamerV2, IPV].

  Args:
    logit: [B, T], of the discount.
    is_terminal: [B, T] bool.
    discount: gamma.

  Returns:
    [].
  """
  chex.assert_equal_shape([logit, is_terminal])
  target = discount * (1.0 - is_terminal.astype(logit.dtype))
  log_p, log_not_p = jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit)
  return -(target * log_p + (1.0 - target) * log_not_p).mean()


def consistency_loss(
  action: jax.Array,
  all_action: jax.Array,
  state: jax.Array,
  all_state: jax.Array,
  temperature: float | None,
) -> jax.Array:
  """Computes rank consistency of action distances and state distances.

  For all pairs of examples, larger action distances should mean larger
  distances of the resulting states  [PreLAR].

  Args:
    action: [n] distances of these examples' actions.
    all_action: [N] distances of all examples, on all devices.
    state: [n] distances of these examples' states, stopped.
    all_state: [N] distances of all examples.
    temperature: nats, for the logistic form: -ln p(order of states) given the
      distances of actions. None is the form of PreLAR's code, squared
      differences of signs, which have no gradient anywhere (T1).

  Returns:
    [].
  """
  chex.assert_equal_shape([action, state])
  chex.assert_equal_shape([all_action, all_state])
  action_gap = action[:, None] - all_action[None]
  order = jnp.sign(state[:, None] - all_state[None])
  if temperature is None:
    return jnp.square(order - jnp.sign(action_gap)).mean()
  return jax.nn.softplus(-order * action_gap / temperature).mean()


def actor_loss(
  lambda_return: jax.Array,
  entropy: jax.Array,
  weight: jax.Array,
  entropy_scale: float,
) -> jax.Array:
  """Computes the actor's loss from returns and entropy (Eq. 12, choice D15).

  The action at state t can change only the return at state t + 1.

  Args:
    lambda_return: [H, N], V of states 0..H-1, differentiable.
    entropy: [H, N], of the policy at states 0..H-1.
    weight: [H, N], cumulative discounts, stopped.
    entropy_scale: eta.

  Returns:
    [].
  """
  chex.assert_equal_shape([lambda_return, entropy, weight])
  objective = lambda_return[1:] + entropy_scale * entropy[:-1]
  return -(weight[:-1] * objective).mean()


def critic_loss(
  value: jax.Array, lambda_return: jax.Array, weight: jax.Array
) -> jax.Array:
  """Regresses values onto returns (Eq. 11): all [H, N] -> []."""
  chex.assert_equal_shape([value, lambda_return, weight])
  target = jax.lax.stop_gradient(lambda_return)
  return (weight * 0.5 * jnp.square(value - target)).mean()
